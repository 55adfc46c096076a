use serde_json::{Value, json};

/// The line of Nacos servers that a registry behaves like.
///
/// `V2_5` and `V3_0` follow what Alibaba's servers 2.5.1 and 3.0.3 were recorded to do; the
/// others differ from them as their sources say.
///
/// Example: [a registry](crate::testing)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Profile {
    /// 2.0: no batch registration, no persistent instances over gRPC, no ability negotiation, no
    /// parameter check; the answer to a subscription lists disabled instances too.
    V2_0,
    /// 2.2.0 to 2.2.4: no ability negotiation, and a silent client is never given up.
    V2_2,
    /// 2.3: ability negotiation and parameter check.
    V2_3,
    /// 2.5, as recorded from 2.5.1.
    #[default]
    V2_5,
    /// 3.0, as recorded from 3.0.3: more abilities, `allIps` for `allIPs`, and the operator's
    /// paths of 2.x answer 410.
    V3_0,
    /// 3.1, as seen of 3.1.0: the ability `agent` as well.
    V3_1,
}

impl Profile {
    pub(super) fn negotiates(self) -> bool {
        self >= Self::V2_3
    }

    pub(super) fn ejects_silent(self) -> bool {
        self != Self::V2_2
    }

    pub(super) fn checks_params(self) -> bool {
        self >= Self::V2_3
    }

    pub(super) fn subscribe_lists_disabled(self) -> bool {
        self == Self::V2_0
    }

    pub(super) fn is_v3(self) -> bool {
        self >= Self::V3_0
    }

    pub(super) fn handles(self, kind: &str) -> bool {
        match kind {
            "HealthCheckRequest"
            | "InstanceRequest"
            | "SubscribeServiceRequest"
            | "ServiceQueryRequest"
            | "ServiceListRequest" => true,
            "BatchInstanceRequest" => self >= Self::V2_2,
            "PersistentInstanceRequest" => self >= Self::V2_3,
            "NamingFuzzyWatchRequest" => self.is_v3(),
            _ => false,
        }
    }

    pub(super) fn abilities(self) -> Value {
        if self >= Self::V3_1 {
            json!({"supportPersistentInstanceByGrpc": true, "fuzzyWatch": true, "lock": true, "mcp": true, "agent": true})
        } else if self.is_v3() {
            json!({"supportPersistentInstanceByGrpc": true, "fuzzyWatch": true, "lock": true, "mcp": true})
        } else {
            json!({"supportPersistentInstanceByGrpc": true})
        }
    }
}

use std::collections::{BTreeMap, HashMap};

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::envelope::{Any, Payload, PayloadMetadata};
use crate::model::{Instance, ServiceFilter, ServiceKey, ServiceName};

/// What the client asks of a server.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Request {
    /// Needs no registered connection; says the connection's id and whether abilities are
    /// negotiated.
    ServerCheck,
    HealthCheck,
    /// The first message on the stream; everything else is a unary call.
    Setup(Setup),
    Register {
        key: ServiceKey,
        instance: Instance,
    },
    /// Whatever this connection published in the service goes with it.
    Deregister {
        key: ServiceKey,
        instance: Instance,
    },
    /// In place of whatever this connection published in the service. Servers from 2.1.1 on.
    RegisterBatch {
        key: ServiceKey,
        instances: Vec<Instance>,
    },
    /// Takes back these and no others, on servers that add a batch to the one before (rnacos).
    /// Others refuse it and do nothing.
    DeregisterBatch {
        key: ServiceKey,
        instances: Vec<Instance>,
    },
    /// Registers a persistent instance, or takes it back. Servers from 2.3 on.
    Persist {
        key: ServiceKey,
        instance: Instance,
        on: bool,
    },
    /// Always for all clusters: a server keeps one filter per connection and service, the last
    /// one given, so selection happens on this side.
    Subscribe {
        key: ServiceKey,
        subscribe: bool,
    },
    /// Always for unhealthy instances too: servers filter before they protect.
    Query {
        key: ServiceKey,
    },
    List {
        namespace: std::sync::Arc<str>,
        group: std::sync::Arc<str>,
        page: u32,
        page_size: u32,
    },
    /// To be told of the services that a pattern takes, or no longer. Servers from 3.0 on. What is
    /// to be known of `received` is only what has changed.
    FuzzyWatch {
        namespace: std::sync::Arc<str>,
        filter: ServiceFilter,
        received: Vec<ServiceName>,
        watch: bool,
    },
}

/// How the client introduces itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Setup {
    pub(crate) client_version: String,
    pub(crate) tenant: String,
    /// `module=naming` is load-bearing: without it the server knows no naming client.
    pub(crate) labels: BTreeMap<String, String>,
    /// Present means "negotiate", even when empty.
    #[serde(rename = "abilityTable")]
    pub(crate) abilities: BTreeMap<String, bool>,
}

/// What travels in a request's envelope beside its body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    /// The local address of the connection; servers show it to operators.
    pub(crate) client_ip: String,
    /// `app`, `accessToken`.
    pub(crate) headers: HashMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ServiceBody<'a, T> {
    namespace: &'a str,
    service_name: &'a str,
    group_name: &'a str,
    #[serde(flatten)]
    rest: T,
}

#[derive(Serialize)]
struct InstanceBody<'a> {
    r#type: &'static str,
    instance: InstanceJson<'a>,
}

#[derive(Serialize)]
struct BatchBody<'a> {
    r#type: &'static str,
    instances: Vec<InstanceJson<'a>>,
}

#[derive(Serialize)]
struct SubscribeBody {
    subscribe: bool,
    clusters: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct QueryBody {
    cluster: &'static str,
    healthy_only: bool,
    udp_port: u16,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ListBody {
    page_no: u32,
    page_size: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FuzzyWatchBody<'a> {
    namespace: &'a str,
    group_key_pattern: String,
    received_group_keys: Vec<String>,
    watch_type: &'static str,
    /// So that the server says when it has told everything: of a mere difference it does not.
    initializing: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InstanceJson<'a> {
    ip: String,
    port: u16,
    weight: f64,
    healthy: bool,
    enabled: bool,
    ephemeral: bool,
    cluster_name: &'a str,
    metadata: MetadataJson<'a>,
}

struct MetadataJson<'a>(&'a crate::model::Metadata);

impl Request {
    /// The Java simple class name of this request.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::ServerCheck => "ServerCheckRequest",
            Self::HealthCheck => "HealthCheckRequest",
            Self::Setup(_) => "ConnectionSetupRequest",
            Self::Register { .. } | Self::Deregister { .. } => "InstanceRequest",
            Self::RegisterBatch { .. } | Self::DeregisterBatch { .. } => "BatchInstanceRequest",
            Self::Persist { .. } => "PersistentInstanceRequest",
            Self::Subscribe { .. } => "SubscribeServiceRequest",
            Self::Query { .. } => "ServiceQueryRequest",
            Self::List { .. } => "ServiceListRequest",
            Self::FuzzyWatch { .. } => "NamingFuzzyWatchRequest",
        }
    }

    /// What it is about, as servers that want a signature know it: `group@@service`, with nothing
    /// behind the `@@` when it is about a whole group, as Nacos's Java client signs it.
    pub(crate) fn resource(&self) -> String {
        match self {
            Self::ServerCheck | Self::HealthCheck | Self::Setup(_) => String::new(),
            Self::Register { key, .. }
            | Self::Deregister { key, .. }
            | Self::RegisterBatch { key, .. }
            | Self::DeregisterBatch { key, .. }
            | Self::Persist { key, .. }
            | Self::Subscribe { key, .. }
            | Self::Query { key } => format!("{}@@{}", key.group(), key.name()),
            Self::List { group, .. } => format!("{group}@@"),
            // It names no service and no group.
            Self::FuzzyWatch { .. } => String::new(),
        }
    }

    /// The message. Headers travel in the envelope, never in the JSON.
    pub(crate) fn encode(&self, head: &Head) -> Payload {
        Payload {
            metadata: Some(PayloadMetadata {
                kind: self.kind().to_owned(),
                client_ip: head.client_ip.clone(),
                headers: head.headers.clone(),
            }),
            body: Some(Any {
                type_url: String::new(),
                value: self.json().into(),
            }),
        }
    }

    fn json(&self) -> Vec<u8> {
        match self {
            Self::ServerCheck | Self::HealthCheck => b"{}".to_vec(),
            Self::Setup(setup) => to_json(setup),
            Self::Register { key, instance } => {
                let instance = InstanceJson::from(instance);
                of_service(
                    key,
                    InstanceBody {
                        r#type: "registerInstance",
                        instance,
                    },
                )
            }
            Self::Deregister { key, instance } => {
                let instance = InstanceJson::from(instance);
                of_service(
                    key,
                    InstanceBody {
                        r#type: "deregisterInstance",
                        instance,
                    },
                )
            }
            Self::RegisterBatch { key, instances } => {
                let instances = instances.iter().map(InstanceJson::from).collect();
                of_service(
                    key,
                    BatchBody {
                        r#type: "batchRegisterInstance",
                        instances,
                    },
                )
            }
            Self::DeregisterBatch { key, instances } => {
                let instances = instances.iter().map(InstanceJson::from).collect();
                of_service(
                    key,
                    BatchBody {
                        r#type: "deregisterInstance",
                        instances,
                    },
                )
            }
            Self::Persist { key, instance, on } => {
                let instance = InstanceJson::from(instance);
                let r#type = if *on {
                    "registerInstance"
                } else {
                    "deregisterInstance"
                };
                of_service(key, InstanceBody { r#type, instance })
            }
            Self::Subscribe { key, subscribe } => of_service(
                key,
                SubscribeBody {
                    subscribe: *subscribe,
                    clusters: "",
                },
            ),
            Self::Query { key } => of_service(
                key,
                QueryBody {
                    cluster: "",
                    healthy_only: false,
                    udp_port: 0,
                },
            ),
            Self::List {
                namespace,
                group,
                page,
                page_size,
            } => to_json(&ServiceBody {
                namespace,
                service_name: "",
                group_name: group,
                rest: ListBody {
                    page_no: *page,
                    page_size: *page_size,
                },
            }),
            Self::FuzzyWatch {
                namespace,
                filter,
                received,
                watch,
            } => to_json(&FuzzyWatchBody {
                namespace,
                group_key_pattern: filter.within(namespace),
                received_group_keys: received
                    .iter()
                    .map(|service| format!("{namespace}@@{service}"))
                    .collect(),
                watch_type: if *watch { "WATCH" } else { "CANCEL_WATCH" },
                initializing: *watch,
            }),
        }
    }
}

impl<'a> From<&'a Instance> for InstanceJson<'a> {
    fn from(instance: &'a Instance) -> Self {
        Self {
            ip: instance.address().host().to_string(),
            port: instance.address().port(),
            weight: instance.weight().get(),
            healthy: instance.is_healthy(),
            enabled: instance.is_enabled(),
            ephemeral: instance.is_ephemeral(),
            cluster_name: instance.cluster(),
            metadata: MetadataJson(instance.metadata()),
        }
    }
}

impl Serialize for MetadataJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in self.0.iter() {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

fn of_service<T: Serialize>(key: &ServiceKey, rest: T) -> Vec<u8> {
    to_json(&ServiceBody {
        namespace: key.namespace(),
        service_name: key.name(),
        group_name: key.group(),
        rest,
    })
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("strings, numbers and string-keyed maps always serialise")
}

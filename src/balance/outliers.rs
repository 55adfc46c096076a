use std::time::Duration;

use crate::endpoint;

/// When an instance that can be reached but answers badly gets no call for a while.
///
/// What is bad is said by the closure that goes with it, to the builder's
/// [`outliers`](crate::balance::BalanceBuilder::outliers). After five bad outcomes in a row an
/// instance is ejected for 30 s, for 60 s the next time and so on, up to 300 s; a good half hour
/// takes as much off again as it put on. It comes back by a single call that goes well; if that one
/// does not, it counts as the next time. (As Envoy's and gRPC's outlier detection, A50.)
///
/// Never for more than half of the callable instances, nor for the last one: when all answer badly,
/// the fault is more likely ours or a shared one. When more than half are out for any reason,
/// connections included, all ejections of this kind are lifted. Connections that fail are another
/// matter, and not limited: see [`classify`](crate::balance::BalanceBuilder::classify).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outliers {
    rules: endpoint::Outliers,
}

impl Outliers {
    /// With the defaults named above.
    pub const fn new() -> Self {
        Self {
            rules: endpoint::Outliers::new(),
        }
    }

    /// How many bad outcomes in a row it takes; 5 by default, 1 to 1,000.
    #[must_use]
    pub const fn consecutive(mut self, failures: u32) -> Self {
        self.rules.consecutive = match failures {
            0 => 1,
            1..1_000 => failures as u16,
            _ => 1_000,
        };
        self
    }

    /// For how long an instance is out the first time, and how much longer each further time; 30 s
    /// by default.
    #[must_use]
    pub const fn base(mut self, rest: Duration) -> Self {
        self.rules.base = rest;
        self
    }

    /// For how long at most; 300 s by default.
    #[must_use]
    pub const fn longest(mut self, rest: Duration) -> Self {
        self.rules.longest = rest;
        self
    }

    /// What part of the callable instances may be out so, from 0 to 1; 0.5 by default.
    #[must_use]
    pub const fn max_ejection(mut self, part: f64) -> Self {
        self.rules.most = within_one(part);
        self
    }

    /// When more than this part is out for any reason, ejections of this kind are lifted; 0.5 by
    /// default, 1 for never unless all are out.
    #[must_use]
    pub const fn panic_threshold(mut self, part: f64) -> Self {
        self.rules.panic = within_one(part);
        self
    }

    pub(super) const fn rules(self) -> endpoint::Outliers {
        self.rules
    }
}

impl Default for Outliers {
    fn default() -> Self {
        Self::new()
    }
}

const fn within_one(part: f64) -> f64 {
    if part.is_nan() {
        0.5
    } else {
        part.clamp(0.0, 1.0)
    }
}

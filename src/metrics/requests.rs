use ::metrics::counter;

use crate::{
    metrics::{
        buckets::{Filled, ToldBuckets},
        recorder::{Named, guarded, labels},
    },
    model::ServiceKey,
};

pub(super) const REQUESTS: Named = (
    "tower_nacos_requests_total",
    "requests to balancers, once each, by what became of them",
);
/// Of durations.
pub(super) const DURATIONS: [Named; 2] = [
    (
        "tower_nacos_wait_seconds",
        "how long requests waited for an instance that had to, and got one",
    ),
    (
        "tower_nacos_request_duration_seconds",
        "from a request's first poll to its response's head or its failure, where that is switched on",
    ),
];

/// The labels `outcome` and `reason`, in the order of `endpoint::Fate`.
static OUTCOMES: [[&str; 2]; 17] = [
    ["ok", "none"],
    ["moved", "none"],
    ["refused", "no_instances"],
    ["refused", "no_match"],
    ["refused", "unknown"],
    ["refused", "overloaded"],
    ["refused", "all_unreachable"],
    ["refused", "unusable"],
    ["refused", "deadline"],
    ["failed", "bad_answer"],
    ["failed", "unreachable"],
    ["failed", "lost"],
    ["failed", "error"],
    ["failed", "try_timeout"],
    ["failed", "deadline"],
    ["failed", "cut"],
    ["aborted", "none"],
];

/// How many requests had each outcome.
type RequestCounts = [u64; OUTCOMES.len()];

/// What has been told of a balancer's requests.
#[derive(Debug)]
pub(crate) struct RequestMetrics {
    counts: RequestCounts,
    told: bool,
    waits: ToldBuckets,
    durations: ToldBuckets,
}

impl Default for RequestMetrics {
    fn default() -> Self {
        Self {
            counts: RequestCounts::default(),
            told: false,
            waits: ToldBuckets::new(DURATIONS[0].0),
            durations: ToldBuckets::new(DURATIONS[1].0),
        }
    }
}

impl RequestMetrics {
    /// Tells what changed; the first time all, so that who counts from 0 sees the first of each.
    pub(crate) fn tell(
        &mut self,
        key: &ServiceKey,
        counts: RequestCounts,
        waits: Filled,
        durations: Filled,
    ) {
        let first = !std::mem::replace(&mut self.told, true);
        for (at, [outcome, reason]) in OUTCOMES.into_iter().enumerate() {
            let more = counts[at].saturating_sub(self.counts[at]);
            if more == 0 && !first {
                continue;
            }
            let [namespace, group, service] = labels(key);
            let labels = [
                namespace,
                group,
                service,
                ("outcome", outcome.to_owned()),
                ("reason", reason.to_owned()),
            ];
            guarded(|| counter!(REQUESTS.0, &labels).increment(more));
        }
        self.counts = counts;
        self.waits.tell(key, waits);
        self.durations.tell(key, durations);
    }
}

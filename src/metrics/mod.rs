//! What happens, told through the [`metrics`](https://docs.rs/metrics) facade (feature `metrics`).
//!
//! Install any recorder (a Prometheus exporter, say); the names are these. Counters are told as
//! they rise, gauges as they change, so that several clients in one process add up. Nothing is told
//! by a call: what calls counted anyway is read when something changes, and every 10 s where the
//! balancer was built on a runtime. The recorder runs in the client's task: one that panics costs a
//! warning, and one that blocks holds up that client's updates (see
//! [`Builder::own_thread`](crate::client::Builder::own_thread)).
//!
//! | name | kind | labels | meaning |
//! |---|---|---|---|
//! | `tower_nacos_connected` | gauge | `namespace` | clients that are registered with a server |
//! | `tower_nacos_connections_total` | counter | `namespace` | connections made, the first included |
//! | `tower_nacos_connections_lost_total` | counter | `namespace` | connections lost |
//! | `tower_nacos_connection_attempts_failed_total` | counter | `namespace` | attempts to connect that came to nothing |
//! | `tower_nacos_pushes_total` | counter | `namespace` | lists that servers sent by themselves |
//! | `tower_nacos_pushes_unwanted_total` | counter | `namespace` | pushes for services that nobody asked for |
//! | `tower_nacos_undecodable_total` | counter | `namespace` | messages of servers that could not be read |
//! | `tower_nacos_reads_dropped_total` | counter | `namespace` | answers to reads dropped because a push was near |
//! | `tower_nacos_lists_total` | counter | `namespace`, `group`, `service` | lists applied, changed or not |
//! | `tower_nacos_hosts_dropped_total` | counter | `namespace`, `group`, `service` | hosts left out of lists because they could not be used |
//! | `tower_nacos_stamps_back_total` | counter | `namespace`, `group`, `service` | lists with a lower stamp than the one before |
//! | `tower_nacos_corrections_total` | counter | `namespace`, `group`, `service` | differences that only the safety read found |
//! | `tower_nacos_not_resurrected_total` | counter | `namespace`, `group`, `service` | hosts that a first answer would have brought back |
//! | `tower_nacos_held_total` | counter | `namespace`, `group`, `service` | times an instance was held by the collapse guard |
//! | `tower_nacos_collapses_total` | counter | `namespace`, `group`, `service` | times the collapse guard began to hold |
//! | `tower_nacos_collapses_obeyed_total` | counter | `namespace`, `group`, `service` | times a collapsed list was obeyed in the end |
//! | `tower_nacos_instances` | gauge | `namespace`, `group`, `service` | instances in the newest snapshot |
//! | `tower_nacos_instances_callable` | gauge | `namespace`, `group`, `service` | those that may be called |
//! | `tower_nacos_instances_held` | gauge | `namespace`, `group`, `service` | those that the collapse guard holds |
//! | `tower_nacos_subscriptions_stale` | gauge | `namespace`, `group`, `service` | subscriptions that lost the connection and serve the last set |
//! | `tower_nacos_calls_total` | counter | `namespace`, `group`, `service` | calls let in to instances |
//! | `tower_nacos_calls_failed_total` | counter | `namespace`, `group`, `service` | calls that failed at their instance |
//! | `tower_nacos_calls_after_evict_total` | counter | `namespace`, `group`, `service` | calls let in to an instance after its eviction: 0, by the gates |
//! | `tower_nacos_ejections_total` | counter | `namespace`, `group`, `service` | times an instance was left out because it could not be reached, or answered badly |
//! | `tower_nacos_outlier_ejections_total` | counter | `namespace`, `group`, `service` | those that were for its answers |
//! | `tower_nacos_restorations_total` | counter | `namespace`, `group`, `service` | times such an instance was let back in |
//! | `tower_nacos_scans_total` | counter | `namespace`, `group`, `service` | calls whose policy found no open instance, so that the open ones were looked through |
//! | `tower_nacos_retries_total` | counter | `namespace`, `group`, `service` | requests that an instance had had and that were sent again by policy |
//! | `tower_nacos_retries_over_budget_total` | counter | `namespace`, `group`, `service` | those that were not, since the policy's budget was spent |
//! | `tower_nacos_try_timeouts_total` | counter | `namespace`, `group`, `service` | tries that were out of time (`per_try_timeout`) |
//! | `tower_nacos_hedges_total` | counter | `namespace`, `group`, `service` | second tries that were begun beside a first one |
//! | `tower_nacos_hedges_won_total` | counter | `namespace`, `group`, `service` | those that were answered first |
//! | `tower_nacos_calls_in_flight` | gauge | `namespace`, `group`, `service` | calls in flight |
//! | `tower_nacos_calls_waiting` | gauge | `namespace`, `group`, `service` | calls that wait for an instance's service to be made or to become ready |
//! | `tower_nacos_instances_ejected` | gauge | `namespace`, `group`, `service` | instances left out so, once for each balancer |
//! | `tower_nacos_offlines_total` | counter | `namespace`, `group`, `service` | times a provider of this process went offline |
//! | `tower_nacos_offlines_unconfirmed_total` | counter | `namespace`, `group`, `service` | those that the registry did not confirm |
//! | `tower_nacos_calls_after_offline_total` | counter | `namespace`, `group`, `service` | calls that came to a provider after it was deregistered, or marked its responses |
//! | `tower_nacos_calls_after_listening_total` | counter | `namespace`, `group`, `service` | those that came after it had stopped listening |
//! | `tower_nacos_calls_rejected_total` | counter | `namespace`, `group`, `service` | calls that a provider refused since it was offline |
//! | `tower_nacos_calls_in_flight_at_end_total` | counter | `namespace`, `group`, `service` | calls in flight when a provider stopped listening |
//! | `tower_nacos_calls_cut_total` | counter | `namespace`, `group`, `service` | calls that were cut when `drain_timeout` had passed |
//! | `tower_nacos_offline_acknowledged_seconds` | histogram | `namespace`, `group`, `service` | from a provider's signal until the registry confirmed that it is not listed, if it did |
//! | `tower_nacos_offline_linger_seconds` | histogram | `namespace`, `group`, `service` | from the mark until it stopped listening |
//! | `tower_nacos_offline_last_call_seconds` | histogram | `namespace`, `group`, `service` | from the mark until the last call came, if one did |

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Once,
    time::Duration,
};

use ::metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use crate::{logs, model::ServiceKey};

/// A name, and what it means.
type Named = (&'static str, &'static str);

const CONNECTED: Named = (
    "tower_nacos_connected",
    "clients that are registered with a server",
);

/// Of a client, in the order of [`ClientCounts`].
const CLIENT: [Named; 7] = [
    (
        "tower_nacos_connections_total",
        "connections made, the first included",
    ),
    ("tower_nacos_connections_lost_total", "connections lost"),
    (
        "tower_nacos_connection_attempts_failed_total",
        "attempts to connect that came to nothing",
    ),
    (
        "tower_nacos_pushes_total",
        "lists that servers sent by themselves",
    ),
    (
        "tower_nacos_pushes_unwanted_total",
        "pushes for services that nobody asked for",
    ),
    (
        "tower_nacos_undecodable_total",
        "messages of servers that could not be read",
    ),
    (
        "tower_nacos_reads_dropped_total",
        "answers to reads dropped because a push was near",
    ),
];

/// Of a service, in the order of [`ServiceCounts`].
static SERVICE: [Named; 8] = [
    ("tower_nacos_lists_total", "lists applied, changed or not"),
    (
        "tower_nacos_hosts_dropped_total",
        "hosts left out of lists because they could not be used",
    ),
    (
        "tower_nacos_stamps_back_total",
        "lists with a lower stamp than the one before",
    ),
    (
        "tower_nacos_corrections_total",
        "differences that only the safety read found",
    ),
    (
        "tower_nacos_not_resurrected_total",
        "hosts that a first answer would have brought back",
    ),
    (
        "tower_nacos_held_total",
        "times an instance was held by the collapse guard",
    ),
    (
        "tower_nacos_collapses_total",
        "times the collapse guard began to hold",
    ),
    (
        "tower_nacos_collapses_obeyed_total",
        "times a collapsed list was obeyed in the end",
    ),
];

/// Of a service, in the order of [`ServiceGauges`].
static GAUGES: [Named; 4] = [
    ("tower_nacos_instances", "instances in the newest snapshot"),
    (
        "tower_nacos_instances_callable",
        "instances that may be called",
    ),
    (
        "tower_nacos_instances_held",
        "instances that the collapse guard holds",
    ),
    (
        "tower_nacos_subscriptions_stale",
        "subscriptions that lost the connection and serve the last set",
    ),
];

/// Of a balancer, in the order of [`CallCounts`].
static CALLS: [Named; 12] = [
    ("tower_nacos_calls_total", "calls let in to instances"),
    (
        "tower_nacos_calls_failed_total",
        "calls that failed at their instance",
    ),
    (
        "tower_nacos_calls_after_evict_total",
        "calls let in to an instance after its eviction: 0, by the gates",
    ),
    (
        "tower_nacos_ejections_total",
        "times an instance was left out because it could not be reached, or answered badly",
    ),
    (
        "tower_nacos_outlier_ejections_total",
        "those that were for its answers",
    ),
    (
        "tower_nacos_restorations_total",
        "times such an instance was let back in",
    ),
    (
        "tower_nacos_scans_total",
        "calls whose policy found no open instance, so that the open ones were looked through",
    ),
    (
        "tower_nacos_retries_total",
        "requests that an instance had had and that were sent again by policy",
    ),
    (
        "tower_nacos_retries_over_budget_total",
        "those that were not, since the policy's budget was spent",
    ),
    (
        "tower_nacos_try_timeouts_total",
        "tries that were out of time (`per_try_timeout`)",
    ),
    (
        "tower_nacos_hedges_total",
        "second tries that were begun beside a first one",
    ),
    (
        "tower_nacos_hedges_won_total",
        "those that were answered first",
    ),
];

/// Of a balancer, in the order of [`CallGauges`].
static CALL_GAUGES: [Named; 3] = [
    ("tower_nacos_calls_in_flight", "calls in flight"),
    (
        "tower_nacos_calls_waiting",
        "calls that wait for an instance's service to be made or to become ready",
    ),
    (
        "tower_nacos_instances_ejected",
        "instances left out so, once for each balancer",
    ),
];

/// Of a provider, told once when it is over.
static OFFLINES: [Named; 7] = [
    (
        "tower_nacos_offlines_total",
        "times a provider of this process went offline",
    ),
    (
        "tower_nacos_offlines_unconfirmed_total",
        "those that the registry did not confirm",
    ),
    (
        "tower_nacos_calls_after_offline_total",
        "calls that came to a provider after it was deregistered, or marked its responses",
    ),
    (
        "tower_nacos_calls_after_listening_total",
        "those that came after it had stopped listening",
    ),
    (
        "tower_nacos_calls_rejected_total",
        "calls that a provider refused since it was offline",
    ),
    (
        "tower_nacos_calls_in_flight_at_end_total",
        "calls in flight when a provider stopped listening",
    ),
    (
        "tower_nacos_calls_cut_total",
        "calls that were cut when `drain_timeout` had passed",
    ),
];

/// Of a provider, told once when it is over, as far as they are known.
static OFFLINE_SECONDS: [Named; 3] = [
    (
        "tower_nacos_offline_acknowledged_seconds",
        "from a provider's signal until the registry confirmed that it is not listed, if it did",
    ),
    (
        "tower_nacos_offline_linger_seconds",
        "from the mark until it stopped listening",
    ),
    (
        "tower_nacos_offline_last_call_seconds",
        "from the mark until the last call came, if one did",
    ),
];

/// Values of [`CLIENT`].
pub(crate) type ClientCounts = [u64; CLIENT.len()];
/// Values of [`SERVICE`].
pub(crate) type ServiceCounts = [u64; SERVICE.len()];
/// Values of [`GAUGES`].
pub(crate) type ServiceGauges = [usize; GAUGES.len()];

/// Values of [`CALLS`].
pub(crate) type CallCounts = [u64; CALLS.len()];
/// Values of [`CALL_GAUGES`].
pub(crate) type CallGauges = [usize; CALL_GAUGES.len()];

/// Describes every name of the table to the recorder that is installed. A client does it when it
/// is built, if no other has; call it yourself if you install a recorder later than that.
pub fn describe() {
    describe_gauge!(CONNECTED.0, Unit::Count, CONNECTED.1);
    let counters = CLIENT.into_iter().chain(SERVICE).chain(CALLS);
    for (name, meaning) in counters.chain(OFFLINES) {
        describe_counter!(name, Unit::Count, meaning);
    }
    for (name, meaning) in OFFLINE_SECONDS {
        describe_histogram!(name, Unit::Seconds, meaning);
    }
    for (name, meaning) in GAUGES.into_iter().chain(CALL_GAUGES) {
        describe_gauge!(name, Unit::Count, meaning);
    }
}

pub(crate) fn describe_once() {
    static DESCRIBED: Once = Once::new();
    DESCRIBED.call_once(|| guarded(describe));
}

/// Tells the recorder, which is not ours: what it panics of ends neither a client nor a call.
fn guarded(tell: impl FnOnce()) {
    static SAID: Once = Once::new();
    if catch_unwind(AssertUnwindSafe(tell)).is_err() {
        SAID.call_once(|| {
            tracing::warn!(
                target: logs::REGISTRY,
                "the metrics recorder panicked; its numbers are incomplete, and this is said once"
            );
        });
    }
}

/// A provider of `key` is over: what [`OFFLINES`] names rose by so much, and what [`OFFLINE_SECONDS`] names
/// took so long.
pub(crate) fn offline(
    key: &ServiceKey,
    counts: [u64; OFFLINES.len()],
    took: [Option<Duration>; OFFLINE_SECONDS.len()],
) {
    describe_once();
    let labels = [
        ("namespace", key.namespace().to_string()),
        ("group", key.group().to_string()),
        ("service", key.name().to_string()),
    ];
    for ((name, _), count) in OFFLINES.iter().zip(counts) {
        guarded(|| counter!(*name, &labels).increment(count));
    }
    for ((name, _), took) in OFFLINE_SECONDS.iter().zip(took) {
        if let Some(took) = took {
            guarded(|| histogram!(*name, &labels).record(took));
        }
    }
}

/// What has been told of a client.
#[derive(Debug)]
pub(crate) struct ClientMetrics {
    namespace: String,
    counts: ClientCounts,
    connected: bool,
}

impl ClientMetrics {
    pub(crate) fn new(namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            counts: ClientCounts::default(),
            connected: false,
        }
    }

    /// Tells what rose.
    pub(crate) fn count(&mut self, counts: ClientCounts) {
        for (at, (name, _)) in CLIENT.into_iter().enumerate() {
            let more = counts[at].saturating_sub(self.counts[at]);
            if more > 0 {
                guarded(|| counter!(name, "namespace" => self.namespace.clone()).increment(more));
            }
        }
        self.counts = counts;
    }

    pub(crate) fn connected(&mut self, connected: bool) {
        if connected == self.connected {
            return;
        }
        self.connected = connected;
        guarded(|| {
            let gauge = gauge!(CONNECTED.0, "namespace" => self.namespace.clone());
            if connected {
                gauge.increment(1.0);
            } else {
                gauge.decrement(1.0);
            }
        });
    }
}

impl Drop for ClientMetrics {
    fn drop(&mut self) {
        self.connected(false);
    }
}

/// What has been told of a service.
pub(crate) type ServiceMetrics = Told<{ SERVICE.len() }, { GAUGES.len() }>;
/// What has been told of a balancer.
pub(crate) type CallMetrics = Told<{ CALLS.len() }, { CALL_GAUGES.len() }>;

/// What has been told of something that belongs to a service.
#[derive(Debug)]
pub(crate) struct Told<const C: usize, const G: usize> {
    counters: &'static [Named; C],
    gauges: &'static [Named; G],
    counts: [u64; C],
    levels: [usize; G],
}

impl Default for ServiceMetrics {
    fn default() -> Self {
        Self::new(&SERVICE, &GAUGES)
    }
}

impl Default for CallMetrics {
    fn default() -> Self {
        Self::new(&CALLS, &CALL_GAUGES)
    }
}

impl<const C: usize, const G: usize> Told<C, G> {
    const fn new(counters: &'static [Named; C], gauges: &'static [Named; G]) -> Self {
        Self {
            counters,
            gauges,
            counts: [0; C],
            levels: [0; G],
        }
    }

    /// Tells what changed.
    pub(crate) fn tell(&mut self, key: &ServiceKey, counts: [u64; C], levels: [usize; G]) {
        let labels = || {
            [
                ("namespace", key.namespace().to_string()),
                ("group", key.group().to_string()),
                ("service", key.name().to_string()),
            ]
        };
        for (at, (name, _)) in self.counters.iter().enumerate() {
            let more = counts[at].saturating_sub(self.counts[at]);
            if more > 0 {
                guarded(|| counter!(*name, &labels()).increment(more));
            }
        }
        for (at, (name, _)) in self.gauges.iter().enumerate() {
            let (before, after) = (self.levels[at] as f64, levels[at] as f64);
            if before < after {
                guarded(|| gauge!(*name, &labels()).increment(after - before));
            } else if after < before {
                guarded(|| gauge!(*name, &labels()).decrement(before - after));
            }
        }
        (self.counts, self.levels) = (counts, levels);
    }

    /// The counts that were told last.
    pub(crate) const fn counts(&self) -> [u64; C] {
        self.counts
    }
}

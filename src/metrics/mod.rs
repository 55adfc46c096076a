//! What happens, told through the [`metrics`](https://docs.rs/metrics) facade (feature `metrics`).
//!
//! Install any recorder (a Prometheus exporter, say); the names are these. Counters are told as
//! they rise, gauges as they change, so that several clients in one process add up; all of them from
//! the start, 0 included, so that an alert on 0 fires for a service that never had an instance. Nothing is told
//! by a call: what calls counted in atomics is read when something changes, and every 10 s where the
//! balancer was built on a runtime. For a request that costs one addition to a line of its thread's,
//! and two readings of the clock where durations are switched on
//! ([`BalanceBuilder::request_durations`](crate::balance::BalanceBuilder::request_durations)). The recorder never runs
//! within a call: see [below](#a-recorder-that-panics-or-blocks).
//!
//! | name | kind | labels | meaning |
//! |---|---|---|---|
//! | `tower_nacos_clients` | gauge | `namespace` | clients that are to be connected: neither closed nor dropped |
//! | `tower_nacos_connected` | gauge | `namespace` | clients that are registered with a server |
//! | `tower_nacos_last_news_timestamp_seconds` | gauge | `namespace` | when a server was last heard, in seconds since 1970; of several clients of a namespace the newest. A server that has nothing to say is asked every 5 s |
//! | `tower_nacos_connections_total` | counter | `namespace` | connections made, the first included |
//! | `tower_nacos_connections_lost_total` | counter | `namespace` | connections lost |
//! | `tower_nacos_connection_attempts_failed_total` | counter | `namespace` | attempts to connect that came to nothing |
//! | `tower_nacos_pushes_total` | counter | `namespace` | lists that servers sent by themselves |
//! | `tower_nacos_pushes_unwanted_total` | counter | `namespace` | pushes for services that nobody asked for |
//! | `tower_nacos_undecodable_total` | counter | `namespace` | messages of servers that could not be read |
//! | `tower_nacos_reads_dropped_total` | counter | `namespace` | answers to reads dropped because a push was near |
//! | `tower_nacos_lists_total` | counter | `namespace`, `group`, `service` | lists applied, changed or not |
//! | `tower_nacos_hosts_rejected_total` | counter | `namespace`, `group`, `service` | hosts left out of lists because they could not be used |
//! | `tower_nacos_older_stamps_total` | counter | `namespace`, `group`, `service` | lists with a lower stamp than the one before |
//! | `tower_nacos_reads_corrected_total` | counter | `namespace`, `group`, `service` | differences that only the safety read found |
//! | `tower_nacos_not_resurrected_total` | counter | `namespace`, `group`, `service` | hosts that a first answer would have brought back |
//! | `tower_nacos_held_total` | counter | `namespace`, `group`, `service` | times an instance was held by the collapse guard |
//! | `tower_nacos_collapses_total` | counter | `namespace`, `group`, `service` | times the collapse guard began to hold |
//! | `tower_nacos_collapses_obeyed_total` | counter | `namespace`, `group`, `service` | times a collapsed list was obeyed in the end |
//! | `tower_nacos_subscriptions` | gauge | `namespace`, `group`, `service` | subscriptions that somebody holds, one for each client; 0 says that the other gauges of the service are of nobody's interest |
//! | `tower_nacos_instances` | gauge | `namespace`, `group`, `service` | instances in the newest snapshot |
//! | `tower_nacos_instances_callable` | gauge | `namespace`, `group`, `service` | those that may be called |
//! | `tower_nacos_instances_held` | gauge | `namespace`, `group`, `service` | those that the collapse guard holds |
//! | `tower_nacos_subscriptions_stale` | gauge | `namespace`, `group`, `service` | subscriptions that lost the connection and serve the last set |
//! | `tower_nacos_push_to_applied_seconds` | histogram | `namespace`, `group`, `service` | from a push's last byte until no call entered what it took away, of pushes that changed something; late by 0.1 s at most where that takes longer |
//! | `tower_nacos_pushes_unapplied` | gauge | `namespace`, `group`, `service` | subscriptions with a push of which that is not true yet |
//! | `tower_nacos_calls_total` | counter | `namespace`, `group`, `service` | calls let in to instances |
//! | `tower_nacos_calls_failed_total` | counter | `namespace`, `group`, `service` | calls that failed at their instance |
//! | `tower_nacos_calls_after_evict_total` | counter | `namespace`, `group`, `service` | calls let in to an instance after its eviction: 0, by the gates |
//! | `tower_nacos_ejections_total` | counter | `namespace`, `group`, `service` | times an instance was left out because it could not be reached, or answered badly |
//! | `tower_nacos_outlier_ejections_total` | counter | `namespace`, `group`, `service` | those that were for its answers |
//! | `tower_nacos_restorations_total` | counter | `namespace`, `group`, `service` | times such an instance was let back in |
//! | `tower_nacos_refusals_total` | counter | `namespace`, `group`, `service` | times an instance was left out because its health check refused it |
//! | `tower_nacos_panics_total` | counter | `namespace`, `group`, `service` | times so many instances were out that ejections for answers, or what health checks refuse, were lifted: the panic threshold |
//! | `tower_nacos_full_scans_total` | counter | `namespace`, `group`, `service` | calls whose policy found no open instance, so that the open ones were looked through |
//! | `tower_nacos_retries_total` | counter | `namespace`, `group`, `service` | requests that an instance had had and that were sent again by policy |
//! | `tower_nacos_retries_over_budget_total` | counter | `namespace`, `group`, `service` | those that were not, since the policy's budget was spent |
//! | `tower_nacos_try_timeouts_total` | counter | `namespace`, `group`, `service` | tries that were out of time (`per_try_timeout`) |
//! | `tower_nacos_hedges_total` | counter | `namespace`, `group`, `service` | second tries that were begun beside a first one |
//! | `tower_nacos_hedges_won_total` | counter | `namespace`, `group`, `service` | those that were answered first |
//! | `tower_nacos_calls_in_flight` | gauge | `namespace`, `group`, `service` | calls in flight |
//! | `tower_nacos_calls_waiting` | gauge | `namespace`, `group`, `service` | calls that wait for an instance's service to be made or to become ready |
//! | `tower_nacos_instances_ejected` | gauge | `namespace`, `group`, `service` | instances left out so, once for each balancer |
//! | `tower_nacos_balancers` | gauge | `namespace`, `group`, `service` | balancers of the service, discoveries and pickers included |
//! | `tower_nacos_balancers_all_out` | gauge | `namespace`, `group`, `service` | those that have callable instances, of which none is in: each is ejected, or cannot be used |
//! | `tower_nacos_moved_total` | counter | `namespace`, `group`, `service` | requests that an instance provably did not process and that set out for another, each time |
//! | `tower_nacos_requests_total` | counter | `namespace`, `group`, `service`, `outcome`, `reason` | requests to a balancer, `http::Client`, `grpc::Channel` or picker, once each, by what became of them |
//! | `tower_nacos_wait_seconds` | histogram | `namespace`, `group`, `service` | how long requests waited for an instance that had to, and got one |
//! | `tower_nacos_request_duration_seconds` | histogram | `namespace`, `group`, `service` | from a request's first poll to its response's head or its failure, where that is switched on |
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
//!
//! # What became of requests
//!
//! | `outcome` | `reason` | |
//! |---|---|---|
//! | `ok` | `none` | answered by the first instance that had it |
//! | `moved` | `none` | answered by another, after one had failed it or had not processed it, retries included |
//! | `refused` | `no_instances`, `no_match`, `unknown`, `overloaded`, `all_unreachable`, `unusable` | no instance had it: the [`CallError`](crate::endpoint::CallError) of that name |
//! | `refused` | `deadline` | no instance had it when its deadline passed: it waited too long |
//! | `failed` | `bad_answer` | answered, and the answer counts as a failure of the instance (HTTP 500 to 599 but 501; gRPC's DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE and DATA_LOSS in a head; of services of one's own what `outliers(..)` or `judge(..)` says) |
//! | `failed` | `unreachable`, `lost`, `error` | its instance, or the last of them, failed it: no connection, one that ended, anything else |
//! | `failed` | `try_timeout`, `deadline`, `cut` | out of time for a try, for the call, or after an eviction (`abort_in_flight_after`) |
//! | `aborted` | `none` | its caller let go of it |
//!
//! Under [`discover`](crate::discover) the balancer is tower's or another's, and these stay 0.
//!
//! # A recorder that panics or blocks
//!
//! It is told by the client's task, by one task of each balancer, and by whoever drops a balancer's last clone; under no
//! lock that somebody else waits for. One that panics costs a warning, and its numbers. One that blocks holds up
//! what that task does next, which is told as soon as it goes on: the client's next list
//! ([`ClientBuilder::own_thread`](crate::client::ClientBuilder::own_thread) keeps that off your runtime), the balancer's
//! probes. The list that it is told of is applied by then. Calls, other clients and the status page go on, as far as
//! the runtime has a worker thread left: a recorder that waits for something belongs on a thread of its own.
//! Without a runtime, and for a [`Writer`](crate::directory::Writer) of your own, calls tell what they change themselves.
//!
//! # How many series
//!
//! No label names an instance, a path or a caller: 10 series for each namespace, 49 for each service, and of
//! each histogram that has something to say 18 a service (for each bucket, sum and count). What a client's
//! [`max_services`](crate::http::HttpBuilder::max_services) lets in is the bound for names that come with
//! requests. Of single instances [`Balance::explain`](crate::Balance::explain) and `tower-nacos explain` tell.
//!
//! Names are Prometheus's way: the unit in the name, `_total` for what only rises. Alerts, their tests and a
//! dashboard are in the repository's `docs/` (`alerts.yml`, `alerts.test.yml`, `grafana.json`).

mod buckets;
mod pushes;
mod recorder;
mod requests;
mod telling;

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use ::metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

pub use self::buckets::BUCKETS;
pub(crate) use self::{
    buckets::{Buckets, Filled},
    pushes::PushMetrics,
    requests::RequestMetrics,
    telling::Telling,
};
use self::{
    pushes::{APPLIED, UNAPPLIED},
    recorder::{Named, guarded, labels},
    requests::{DURATIONS, REQUESTS},
};
use crate::model::ServiceKey;

/// Of a client: whether it is there, and whether it is connected.
const CLIENT_GAUGES: [Named; 2] = [
    (
        "tower_nacos_clients",
        "clients that are to be connected: neither closed nor dropped",
    ),
    (
        "tower_nacos_connected",
        "clients that are registered with a server",
    ),
];
const LAST_NEWS: Named = (
    "tower_nacos_last_news_timestamp_seconds",
    "when a server was last heard, in seconds since 1970",
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
        "tower_nacos_hosts_rejected_total",
        "hosts left out of lists because they could not be used",
    ),
    (
        "tower_nacos_older_stamps_total",
        "lists with a lower stamp than the one before",
    ),
    (
        "tower_nacos_reads_corrected_total",
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
static GAUGES: [Named; 5] = [
    (
        "tower_nacos_subscriptions",
        "subscriptions that somebody holds, one for each client",
    ),
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
static CALLS: [Named; 15] = [
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
        "tower_nacos_full_scans_total",
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
    (
        "tower_nacos_moved_total",
        "requests that an instance provably did not process and that set out for another, each time",
    ),
    (
        "tower_nacos_refusals_total",
        "times an instance was left out because its health check refused it",
    ),
    (
        "tower_nacos_panics_total",
        "times so many instances were out that ejections for answers, or what health checks refuse, were lifted",
    ),
];

/// Of a balancer, in the order of [`CallGauges`].
static CALL_GAUGES: [Named; 5] = [
    ("tower_nacos_calls_in_flight", "calls in flight"),
    (
        "tower_nacos_calls_waiting",
        "calls that wait for an instance's service to be made or to become ready",
    ),
    (
        "tower_nacos_instances_ejected",
        "instances left out so, once for each balancer",
    ),
    ("tower_nacos_balancers", "balancers of the service"),
    (
        "tower_nacos_balancers_all_out",
        "balancers that have callable instances, of which none is in",
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
    let counters = CLIENT.into_iter().chain(SERVICE).chain(CALLS);
    for (name, meaning) in counters.chain(OFFLINES).chain([REQUESTS]) {
        describe_counter!(name, Unit::Count, meaning);
    }
    for (name, meaning) in OFFLINE_SECONDS
        .into_iter()
        .chain(DURATIONS)
        .chain([APPLIED])
    {
        describe_histogram!(name, Unit::Seconds, meaning);
    }
    let gauges = CLIENT_GAUGES.into_iter().chain(GAUGES).chain(CALL_GAUGES);
    for (name, meaning) in gauges.chain([UNAPPLIED]) {
        describe_gauge!(name, Unit::Count, meaning);
    }
    describe_gauge!(LAST_NEWS.0, Unit::Seconds, LAST_NEWS.1);
}

pub(crate) fn describe_once() {
    // None that waits for the one who does it: a recorder may block.
    static DESCRIBED: AtomicBool = AtomicBool::new(false);
    if !DESCRIBED.swap(true, Relaxed) {
        guarded(describe);
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
    let labels = labels(key);
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
    /// Values of [`CLIENT_GAUGES`].
    levels: [bool; CLIENT_GAUGES.len()],
    /// In seconds since 1970.
    last_news: u64,
    told: bool,
}

impl ClientMetrics {
    pub(crate) fn new(namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            counts: ClientCounts::default(),
            levels: [false; CLIENT_GAUGES.len()],
            last_news: 0,
            told: false,
        }
    }

    /// Tells what rose; the first time all.
    pub(crate) fn count(&mut self, counts: ClientCounts) {
        let first = !std::mem::replace(&mut self.told, true);
        for (at, (name, _)) in CLIENT.into_iter().enumerate() {
            let more = counts[at].saturating_sub(self.counts[at]);
            if more > 0 || first {
                guarded(|| counter!(name, "namespace" => self.namespace.clone()).increment(more));
            }
        }
        self.counts = counts;
    }

    /// Whether it is connected.
    pub(crate) fn connected(&mut self, connected: bool) {
        self.levels([true, connected]);
    }

    /// A server was heard then, in seconds since 1970. Set and not added up: of several clients of one
    /// namespace the last word counts.
    pub(crate) fn heard(&mut self, at: u64) {
        if at > self.last_news {
            self.last_news = at;
            guarded(|| {
                gauge!(LAST_NEWS.0, "namespace" => self.namespace.clone()).set(at as f64);
            });
        }
    }

    fn levels(&mut self, levels: [bool; CLIENT_GAUGES.len()]) {
        let first = !self.told;
        for (at, (name, _)) in CLIENT_GAUGES.into_iter().enumerate() {
            let (before, after) = (self.levels[at], levels[at]);
            if before == after && !first {
                continue;
            }
            guarded(|| {
                let gauge = gauge!(name, "namespace" => self.namespace.clone());
                gauge.increment(f64::from(u8::from(after)) - f64::from(u8::from(before)));
            });
        }
        self.levels = levels;
    }
}

impl Drop for ClientMetrics {
    fn drop(&mut self) {
        if self.told {
            self.levels([false; CLIENT_GAUGES.len()]);
        }
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
    told: bool,
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
            told: false,
        }
    }

    /// Tells what changed; the first time all, zeros included, so that an alert on 0 has something to look
    /// at, and a rate sees the first of everything.
    pub(crate) fn tell(&mut self, key: &ServiceKey, counts: [u64; C], levels: [usize; G]) {
        let first = !std::mem::replace(&mut self.told, true);
        for (at, (name, _)) in self.counters.iter().enumerate() {
            let more = counts[at].saturating_sub(self.counts[at]);
            if more > 0 || first {
                guarded(|| counter!(*name, &labels(key)).increment(more));
            }
        }
        for (at, (name, _)) in self.gauges.iter().enumerate() {
            let (before, after) = (self.levels[at] as f64, levels[at] as f64);
            if before < after || (first && before <= after) {
                guarded(|| gauge!(*name, &labels(key)).increment(after - before));
            } else if after < before {
                guarded(|| gauge!(*name, &labels(key)).decrement(before - after));
            }
        }
        (self.counts, self.levels) = (counts, levels);
    }

    /// The counts that were told last.
    pub(crate) const fn counts(&self) -> [u64; C] {
        self.counts
    }
}

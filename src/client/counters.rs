use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

#[cfg(feature = "status")]
use super::pace::Pace;
use crate::{
    directory,
    session::{self, Session},
};

/// What happened to a client and all of its subscriptions since it was built. All of them only
/// rise, and those of subscriptions that have ended stay in the sums.
///
/// Example: [a client](crate::client)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientCounters {
    /// Connections that were made, the first included.
    pub connections: u64,
    /// Connections made after the first one, whether it was lost or a server asked us to move.
    pub reconnects: u64,
    /// Connections that were lost: broken, ended by the server, or left unanswered.
    pub connections_lost: u64,
    /// Attempts to connect that came to nothing.
    pub failed_attempts: u64,
    /// Lists that the server sent by itself, for services that are subscribed.
    pub pushes: u64,
    /// Pushes for services that nobody here asked for.
    pub unwanted_pushes: u64,
    /// Messages of the server that could not be read.
    pub undecodable: u64,
    /// Answers to reads that were dropped because a push was near, which is always newer.
    pub reads_dropped: u64,
    /// Lists whose stamp was lower than the one before on the same connection. Applied.
    pub older_stamps: u64,
    /// Lists that were applied, changed or not.
    pub lists: u64,
    /// Hosts left out of lists because they could not be used, once for each list.
    pub hosts_rejected: u64,
    /// Reads that found a difference which no push had brought.
    pub reads_corrected: u64,
    /// Hosts that a first answer would have brought back right after a push removed them.
    pub not_resurrected: u64,
    /// Times an instance was held by the [collapse guard](crate::guide::glossary).
    pub held: u64,
    /// Times the [collapse guard](crate::guide::glossary) began to hold.
    pub collapses: u64,
    /// Times a collapsed list was obeyed in the end, because it stayed so.
    pub collapses_obeyed: u64,
}

/// The session's counters, written by the driver and read by anybody.
#[derive(Debug, Default)]
pub(super) struct Tally {
    connections: AtomicU64,
    connections_lost: AtomicU64,
    failed_attempts: AtomicU64,
    pushes: AtomicU64,
    unwanted_pushes: AtomicU64,
    undecodable: AtomicU64,
    dropped_reads: AtomicU64,
    #[cfg(feature = "status")]
    pub(super) pace: Pace,
}

/// The driver's end of the [`Tally`].
#[derive(Debug)]
pub(super) struct Teller {
    tally: Arc<Tally>,
    #[cfg(feature = "metrics")]
    metrics: crate::metrics::ClientMetrics,
    /// When a server was heard, as last told.
    #[cfg(feature = "metrics")]
    heard: Option<std::time::Instant>,
}

impl Teller {
    #[cfg_attr(not(feature = "metrics"), expect(unused_variables))]
    pub(super) fn new(namespace: &str) -> Self {
        #[cfg(feature = "metrics")]
        crate::metrics::describe_once();
        Self {
            tally: Arc::default(),
            #[cfg(feature = "metrics")]
            metrics: crate::metrics::ClientMetrics::new(namespace),
            #[cfg(feature = "metrics")]
            heard: None,
        }
    }

    pub(super) const fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    /// A server was heard: told once a second at most.
    #[cfg(feature = "metrics")]
    pub(super) fn heard(&mut self, now: std::time::Instant) {
        let since = |last| now.saturating_duration_since(last);
        if self.heard.is_some_and(|last| since(last) < HEARD_EVERY) {
            return;
        }
        self.heard = Some(now);
        #[expect(
            clippy::disallowed_methods,
            reason = "what reads it compares it with its own clock, and nothing here does"
        )]
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        self.metrics.heard(wall.unwrap_or_default().as_secs());
    }

    /// After everything that happened.
    #[cfg_attr(not(feature = "metrics"), expect(unused_variables))]
    pub(super) fn tell(&mut self, session: &Session, connected: bool) {
        let counters = &session.counters();
        self.tally.store(counters);
        #[cfg(feature = "status")]
        self.tally.pace.store(session.pace());
        #[cfg(feature = "metrics")]
        {
            self.metrics.connected(connected);
            self.metrics.count([
                counters.connections,
                counters.connections_lost,
                counters.failed_attempts,
                counters.pushes,
                counters.unwanted_pushes,
                counters.undecodable,
                counters.dropped_reads,
            ]);
        }
    }
}

#[cfg(feature = "metrics")]
const HEARD_EVERY: std::time::Duration = std::time::Duration::from_secs(1);

impl Tally {
    fn store(&self, counters: &session::SessionCounters) {
        self.connections.store(counters.connections, Relaxed);
        self.connections_lost
            .store(counters.connections_lost, Relaxed);
        self.failed_attempts
            .store(counters.failed_attempts, Relaxed);
        self.pushes.store(counters.pushes, Relaxed);
        self.unwanted_pushes
            .store(counters.unwanted_pushes, Relaxed);
        self.undecodable.store(counters.undecodable, Relaxed);
        self.dropped_reads.store(counters.dropped_reads, Relaxed);
    }

    /// With the sum over all subscriptions, present and past.
    pub(super) fn read(&self, services: &directory::SubscriptionCounters) -> ClientCounters {
        let connections = self.connections.load(Relaxed);
        ClientCounters {
            connections,
            reconnects: connections.saturating_sub(1),
            connections_lost: self.connections_lost.load(Relaxed),
            failed_attempts: self.failed_attempts.load(Relaxed),
            pushes: self.pushes.load(Relaxed),
            unwanted_pushes: self.unwanted_pushes.load(Relaxed),
            undecodable: self.undecodable.load(Relaxed),
            // The session drops what is near a push, the local copy what is near one on its own
            // clock: one list meets one of them.
            reads_dropped: self.dropped_reads.load(Relaxed) + services.reads_dropped,
            older_stamps: services.older_stamps,
            lists: services.lists,
            hosts_rejected: services.hosts_rejected,
            reads_corrected: services.reads_corrected,
            not_resurrected: services.not_resurrected,
            held: services.held,
            collapses: services.collapses,
            collapses_obeyed: services.collapses_obeyed,
        }
    }
}

use std::{
    collections::HashSet,
    sync::{Arc, OnceLock, Weak},
};

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use crate::{
    directory::Generation,
    endpoint::{checks::config::HealthCheck, make::MakeEndpoint},
    model::Instance,
};
#[cfg(feature = "metrics")]
use crate::{endpoint::fate::FATES, metrics::Filled};

/// What the janitor of a set calls on. It is the users' and the balancers', so held weakly; each is
/// set once.
pub(crate) struct Helpers<S> {
    upkeep: OnceLock<Weak<dyn Upkeep>>,
    prober: OnceLock<Weak<dyn Prober>>,
    maker: OnceLock<Weak<dyn MakeEndpoint<Service = S>>>,
    health_check: OnceLock<Weak<HealthCheck>>,
    /// Read once more when the balancer has gone, so not held weakly; nothing of the users' is in it.
    #[cfg(feature = "metrics")]
    requests: OnceLock<Arc<dyn Reckoning>>,
}

/// What became of a balancer's requests.
#[cfg(feature = "metrics")]
pub(crate) trait Reckoning: Send + Sync {
    /// How many had each fate so far, and how long they took if that is measured.
    fn read(&self) -> ([u64; FATES], Filled);
}

/// What keeps something of its own beside a set, such as a table to pick from.
pub(crate) trait Upkeep: Send + Sync {
    /// The set may have changed, or the time has come that this returned. Called by the set's
    /// janitor, without a lock.
    fn upkeep(&self, now: Instant) -> Option<Instant>;

    /// Those that are called; `None` for all that may be.
    fn called(&self) -> Option<HashSet<Generation>> {
        None
    }

    /// Calls whose policy found no open instance.
    #[cfg(feature = "metrics")]
    fn scans(&self) -> u64;
}

/// A maker, as far as it probes.
pub(crate) trait Prober: Send + Sync {
    fn probe(&self, instance: &Instance) -> Option<Probing>;
}

pub(crate) type Probing = BoxFuture<'static, Result<(), String>>;

impl<M: MakeEndpoint> Prober for M {
    fn probe(&self, instance: &Instance) -> Option<Probing> {
        MakeEndpoint::probe(self, instance)
    }
}

impl<S> Helpers<S> {
    pub(super) const fn new() -> Self {
        Self {
            upkeep: OnceLock::new(),
            prober: OnceLock::new(),
            maker: OnceLock::new(),
            health_check: OnceLock::new(),
            #[cfg(feature = "metrics")]
            requests: OnceLock::new(),
        }
    }

    /// Has it told of changes.
    pub(super) fn keep_up(&self, upkeep: Weak<dyn Upkeep>) {
        let _ = self.upkeep.set(upkeep);
    }

    /// Has instances probed by it, if it can, and services made by it off the way of calls.
    pub(super) fn make_by<M: MakeEndpoint<Service = S>>(&self, make: &Arc<M>) {
        let prober: Weak<M> = Arc::downgrade(make);
        let _ = self.prober.set(prober);
        let maker: Weak<M> = Arc::downgrade(make);
        let _ = self.maker.set(maker);
    }

    /// Has instances asked whether they are well.
    pub(super) fn check_by(&self, check: &Arc<HealthCheck>) {
        let _ = self.health_check.set(Arc::downgrade(check));
    }

    /// Whether they are.
    pub(super) fn has_health_check(&self) -> bool {
        self.health_check.get().is_some()
    }

    /// How they are, if they are.
    pub(super) fn health_check(&self) -> Option<Arc<HealthCheck>> {
        self.health_check.get().and_then(Weak::upgrade)
    }

    /// Has its requests told.
    #[cfg(feature = "metrics")]
    pub(super) fn reckon(&self, requests: Arc<dyn Reckoning>) {
        let _ = self.requests.set(requests);
    }

    /// Nothing, where nobody counts them.
    #[cfg(feature = "metrics")]
    pub(super) fn requests(&self) -> ([u64; FATES], Filled) {
        let requests = self.requests.get();
        requests.map(|requests| requests.read()).unwrap_or_default()
    }

    pub(super) fn upkeep(&self) -> Option<Arc<dyn Upkeep>> {
        self.upkeep.get().and_then(Weak::upgrade)
    }

    pub(super) fn prober(&self) -> Option<Arc<dyn Prober>> {
        self.prober.get().and_then(Weak::upgrade)
    }

    pub(super) fn maker(&self) -> Option<Arc<dyn MakeEndpoint<Service = S>>> {
        self.maker.get().and_then(Weak::upgrade)
    }
}

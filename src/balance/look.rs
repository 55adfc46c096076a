//! What the status page sees of a balancer.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use crate::{
    balance::{Balance, BalanceCounters, BalanceExplanation, Policy, core::Core, explain},
    directory::{self, Finding, Generation, Subscription},
    endpoint,
    model::Instance,
};

/// A balancer as one looks at it who does not call. Reads what is published and takes no lock that a pick or
/// a push waits for, so the two may be a moment apart.
pub(crate) trait Looked: Send + Sync {
    /// What it follows. To be held for no longer than a look.
    fn subscription(&self) -> &Subscription;

    /// What happened in it so far.
    fn counters(&self) -> BalanceCounters;

    /// Rises whenever it may have changed who can be called.
    fn version(&self) -> u64;

    /// Shows each instance that was callable as its table was made, and still is.
    fn each(&self, visit: &mut dyn FnMut(Glimpse<'_>));

    /// Why it picks an instance of which the registry's part is known.
    fn explain_found(&self, registry: directory::SubscriptionExplanation) -> BalanceExplanation;
}

/// One instance of a balancer at one moment.
pub(crate) struct Glimpse<'a> {
    pub(crate) generation: Generation,
    /// Whether it gets no calls, and why.
    pub(crate) out: Option<Out>,
    pub(crate) calls: u64,
    pub(crate) failures: u64,
    pub(crate) in_flight: u64,
    /// How long calls take, if that is measured.
    pub(crate) took: Option<Duration>,
    /// The instance, made when it is asked for.
    pub(crate) instance: &'a dyn Fn() -> Arc<Instance>,
}

/// Why a callable instance gets no calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Out {
    /// It lost a connection, and a dial is to tell what that means.
    Suspect,
    /// No connection could be had.
    Ejected,
    /// It answered badly, or lost what it was given, too often.
    Outlier,
    /// Its health check refuses it.
    Refused,
    /// Making its service panicked.
    Unusable,
}

impl<S, P, R, C, V, K> Balance<S, P, R, C, V, K>
where
    S: Send + Sync + 'static,
    P: Policy,
    R: Send + Sync + 'static,
    C: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// What there is to be seen of it, for as long as it lives.
    pub(crate) fn looked(&self) -> Weak<dyn Looked> {
        let core: Weak<Core<S, P, R, C, V>> = Arc::downgrade(self.core());
        core
    }
}

impl<S, P, R, C, V> Looked for Core<S, P, R, C, V>
where
    S: Send + Sync + 'static,
    P: Policy,
    R: Send + Sync + 'static,
    C: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    fn subscription(&self) -> &Subscription {
        self.shared.subscription()
    }

    fn counters(&self) -> BalanceCounters {
        Self::counters(self)
    }

    fn version(&self) -> u64 {
        self.set().version()
    }

    fn each(&self, visit: &mut dyn FnMut(Glimpse<'_>)) {
        let table = self.table.load();
        let Some(table) = table.get() else {
            return;
        };
        for endpoint in table.roster.endpoints() {
            let gate = endpoint.gate.state();
            if gate.is_evicted() || gate.is_closed() {
                continue; // the next table is without it
            }
            let out = match gate {
                gate if gate.is_unusable() => Some(Out::Unusable),
                gate if gate.is_suspect() => Some(Out::Suspect),
                gate if gate.is_refused() => Some(Out::Refused),
                gate if gate.is_ejected() => Some(match endpoint.standing() {
                    endpoint::Standing::Outlier => Out::Outlier,
                    _ => Out::Ejected,
                }),
                _ => None,
            };
            let [calls, failures] = endpoint.calls();
            visit(Glimpse {
                generation: endpoint.generation(),
                out,
                calls,
                failures,
                in_flight: gate.in_flight(),
                took: endpoint.took(),
                instance: &|| endpoint.instance(),
            });
        }
    }

    fn explain_found(&self, registry: directory::SubscriptionExplanation) -> BalanceExplanation {
        let table = self.table.load();
        let endpoint = match (table.get(), &registry.finding) {
            (Some(table), Finding::Listed { generation, .. }) => {
                let mut endpoints = table.roster.endpoints().iter();
                endpoints.find(|e| e.generation() == *generation).cloned()
            }
            _ => None,
        };
        explain::explain_with(self, registry, endpoint)
    }
}

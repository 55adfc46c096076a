use std::{fmt, sync::Arc, time::Duration};

use crate::{
    directory::{self, Subscription},
    endpoint::{self, EndpointSet},
    model::Address,
};

/// What a balancer did so far, beside what it should.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Picks of a policy that named an instance that does not exist.
    pub picks_out_of_range: u64,
    /// Panics of the policy.
    pub policy_panics: u64,
    /// Calls whose policy found no open instance, so that the next open one was looked for.
    pub scans: u64,
    /// Calls that were let in to an instance after its eviction: 0, by the gates.
    pub calls_after_evict: u64,
    /// Times that an instance was ejected, since it could not be reached.
    pub ejections: u64,
    /// Times that an ejected instance was reached again.
    pub restorations: u64,
}

/// Why a balancer picks an instance or does not. Displays as a sentence.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Explanation {
    /// What the registry has to do with it.
    pub registry: directory::Explanation,
    /// Whether this balancer picks it.
    pub verdict: Pickable,
    /// Its share of the weights of all that can be picked, from 0 to 1; 0 if it cannot.
    pub share: f64,
    /// What it is doing, if this balancer has looked at it.
    pub activity: Option<Activity>,
}

/// Whether a balancer picks an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pickable {
    /// It does.
    Yes,
    /// The registry's list does not let it.
    NotCallable,
    /// Its connection failed. It gets no call until a probe succeeds.
    #[non_exhaustive]
    Ejected {
        /// When the next probe is due; `None` while one is on offer or on its way.
        probe_in: Option<Duration>,
    },
    /// Making its service panicked.
    #[non_exhaustive]
    Unusable {
        /// What the panic said.
        reason: Arc<str>,
    },
}

/// What one instance is doing for one balancer, since this presence of it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Activity {
    /// Calls that were let in.
    pub calls: u64,
    /// How many of them failed.
    pub failures: u64,
    /// Calls that were let in and have not ended.
    pub in_flight: u64,
    /// Calls that wait for its service to be made or to become ready, and may yet go elsewhere.
    pub waiting: u64,
}

pub(super) fn explain<S>(
    subscription: &Subscription,
    set: &EndpointSet<S>,
    address: &Address,
) -> Explanation {
    let registry = subscription.explain(address);
    let endpoint = set.find_endpoint(address);
    let snapshot = subscription.snapshot();
    let callable = registry.is_callable();
    let mut verdict = if callable {
        Pickable::Yes
    } else {
        Pickable::NotCallable
    };
    if let (true, Some(endpoint)) = (callable, &endpoint) {
        let gate = endpoint.gate.state();
        if let (true, Some(reason)) = (gate.is_unusable(), endpoint.slot.unusable()) {
            verdict = Pickable::Unusable { reason };
        } else if gate.is_ejected() {
            let due = endpoint.ejection.due();
            let now = endpoint::now();
            verdict = Pickable::Ejected {
                probe_in: due.map(|due| due.saturating_duration_since(now)),
            };
        } else if !gate.is_open() {
            verdict = Pickable::NotCallable; // its closing is just being published
        }
    }
    let share = if verdict == Pickable::Yes {
        let view = set.view();
        let able = snapshot.callable().filter(|entry| !view.is_out(entry));
        let total: f64 = able.map(|entry| entry.instance().weight().get()).sum();
        let own = snapshot.find(address);
        own.map_or(0.0, |entry| entry.instance().weight().get() / total)
    } else {
        0.0
    };
    Explanation {
        registry,
        verdict,
        share,
        activity: endpoint.map(|endpoint| {
            let [calls, failures] = endpoint.calls();
            Activity {
                calls,
                failures,
                in_flight: endpoint.gate.state().in_flight(),
                waiting: endpoint.waiting(),
            }
        }),
    }
}

impl Explanation {
    /// Whether this balancer picks it.
    pub fn is_pickable(&self) -> bool {
        self.verdict == Pickable::Yes
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.verdict {
            Pickable::Yes => write!(f, "picked, {:.1} % of the weight", self.share * 100.0)?,
            Pickable::NotCallable => f.write_str("not picked")?,
            Pickable::Ejected { probe_in: None } => {
                f.write_str("not picked: it could not be reached, and a probe is on its way")?;
            }
            Pickable::Ejected {
                probe_in: Some(due),
            } => write!(
                f,
                "not picked: it could not be reached; next probe in {:.1} s",
                due.as_secs_f64()
            )?,
            Pickable::Unusable { reason } => {
                write!(f, "not picked: making its service panicked: {reason}")?;
            }
        }
        if let Some(activity) = &self.activity {
            write!(
                f,
                "; {} calls, {} failed, {} in flight, {} waiting",
                activity.calls, activity.failures, activity.in_flight, activity.waiting
            )?;
        }
        write!(f, "; {}", self.registry)
    }
}

//! One instance as a consumer holds it: who may call it, who does, and how.
//!
//! `EndpointSet` is what a balancer holds of one service. It follows the directory's snapshots,
//! closes the gate of what left and never opens one for what a newer snapshot does not call
//! callable. `Call` takes one request through it: pick, admission, `Service::call` and first
//! poll happen in one poll of its future, so that nothing can come in between unseen.

mod abort;
mod admission;
#[cfg(feature = "testing")]
mod bare;
mod call;
mod ejection;
mod error;
mod follow;
mod gate;
mod hub;
mod janitor;
mod latency;
mod legacy;
mod look;
mod make;
mod outliers;
mod pick;
mod probes;
mod progress;
mod reach;
mod roster;
mod rules;
mod set;
mod shared;
mod slot;
#[cfg(feature = "metrics")]
mod tell;
mod view;
mod waiter;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use self::{ejection::Ejection, gate::Gate, hub::Hub, latency::Latency, slot::Slot};
use tokio::time::Instant;

use crate::{
    directory::{Entry, Generation},
    model::{Address, Instance},
    sync::{Published, Wakers},
};

#[cfg(feature = "testing")]
#[doc(hidden)]
pub use self::bare::Bare;
#[cfg(feature = "testing")]
pub(crate) use self::pick::Any;
pub use self::{
    admission::InFlight,
    error::CallError,
    make::MakeEndpoint,
    rules::{
        Classify, Judge, NeverRecover, Outcome, Recover, Recovered, Unclassified, Verdict,
        WithOutcomes,
    },
};
pub(crate) use self::{
    admission::{Admitted, Place},
    call::Call,
    ejection::now,
    latency::{Timing, Usual},
    outliers::Outliers,
    pick::{OwnFirst, Pick, Picked, Tried},
    progress::Progress,
    roster::Roster,
    set::{EndpointSet, Upkeep},
    shared::Shared,
    waiter::Waiter,
};

/// One generation of one instance, as one consumer holds it.
///
/// In this order, so that what calls write lies beside the `Arc`'s counts, in a line or two; not
/// aligned, since that would give the counts a line of their own, one more to miss. What calls only
/// read keeps the next endpoint's, which is a whole line away, from being written beside this one's.
#[repr(C)]
pub(crate) struct Endpoint<S> {
    // What a pick reads and a call writes, in one line.
    pub(crate) gate: Gate,
    /// Calls that were let in so far, in the lower 48 bits; how many bad answers there were in a
    /// row, if answers count, in the others.
    calls: AtomicU64,
    /// The bits of an `f64`.
    weight: AtomicU64,
    generation: Generation,
    /// Calls that wait for the service to be made or to become ready; not admitted.
    waiting: AtomicU32,
    /// How many of the calls failed.
    failures: AtomicU32,
    // What is mostly read.
    pub(crate) slot: Slot<S>,
    instance: Published<Instance>,
    hub: Arc<Hub>,
    pub(crate) ejection: Ejection,
    wakers: Wakers,
    latency: Latency,
}

impl<S> Endpoint<S> {
    /// An endpoint of an instance of the newest snapshot, open if that calls it callable.
    pub(crate) fn new(entry: &Entry, hub: Arc<Hub>) -> Self {
        let weight = entry.instance().weight().get();
        Self {
            gate: Gate::new(entry.standing().is_callable()),
            waiting: AtomicU32::new(0),
            weight: AtomicU64::new(weight.to_bits()),
            generation: entry.generation(),
            instance: Published::new(Arc::clone(entry.instance())),
            hub,
            slot: Slot::new(),
            ejection: Ejection::default(),
            wakers: Wakers::default(),
            latency: Latency::default(),
            calls: AtomicU64::new(0),
            failures: AtomicU32::new(0),
        }
    }

    /// Takes over attributes that change in place.
    pub(crate) fn update(&self, instance: &Arc<Instance>) {
        let weight = instance.weight().get();
        self.weight.store(weight.to_bits(), Ordering::Relaxed);
        self.instance.store(Arc::clone(instance));
        if self.slot.retry() {
            self.gate.usable();
        }
    }

    /// Which presence of the instance this is.
    #[inline]
    pub(crate) const fn generation(&self) -> Generation {
        self.generation
    }

    /// The instance as last listed.
    pub(crate) fn instance(&self) -> Arc<Instance> {
        let instance = self.instance.load_full();
        instance.expect("an endpoint is made with its instance, which is only ever replaced")
    }

    /// The instance's address.
    pub(crate) fn address(&self) -> Address {
        self.instance().address().clone()
    }

    /// Calls in flight and waiting, per weight; infinite at weight 0.
    #[inline]
    pub(crate) fn load(&self) -> f64 {
        let weight = self.weight();
        let calls = self.gate.state().in_flight() + self.waiting();
        if weight > 0.0 {
            calls as f64 / weight
        } else {
            f64::INFINITY
        }
    }

    /// Its weight, as last listed.
    #[inline]
    pub(crate) fn weight(&self) -> f64 {
        f64::from_bits(self.weight.load(Ordering::Relaxed))
    }

    /// The latency to expect in seconds; 0 if calls are not timed.
    pub(crate) fn latency(&self, now: Instant) -> f64 {
        let timing = self.hub.timing.get();
        timing.map_or(0.0, |timing| self.latency.expected(now, timing))
    }

    /// Calls that were let in so far, and how many of them failed.
    pub(crate) fn calls(&self) -> [u64; 2] {
        [
            self.calls.load(Ordering::Relaxed) & (STREAK - 1),
            u64::from(self.failures.load(Ordering::Relaxed)),
        ]
    }

    /// How many calls wait for the service, not admitted.
    #[inline]
    pub(crate) fn waiting(&self) -> u64 {
        u64::from(self.waiting.load(Ordering::Relaxed))
    }

    /// The tasks that wait for a change of this endpoint.
    pub(crate) const fn wakers(&self) -> &Wakers {
        &self.wakers
    }
}

/// One bad answer in a row, in the word of calls.
const STREAK: u64 = 1 << 48;

impl<S> fmt::Debug for Endpoint<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("address", &self.address())
            .field("generation", &self.generation)
            .field("gate", &self.gate)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod size {
    use super::*;

    #[test]
    fn an_endpoint_stays_within_its_memory() {
        assert!(
            size_of::<Endpoint<()>>() <= 128,
            "{}",
            size_of::<Endpoint<()>>()
        );
    }
}

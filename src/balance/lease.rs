use std::{
    fmt, mem,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::{
    balance::{Policy, choose::Stripe, requests::Began},
    endpoint::{Admitted, Endpoint, Fate, NeverRecover, Outcome, Verdict},
    model::{Address, Instance, Metadata},
};

/// Leave to make one call to one instance, from [`Picker::pick`](crate::balance::Picker::pick).
///
/// The call counts as in flight at the instance until this is dropped: keep it until the answer is
/// read, its body included. The instance was callable when it was picked; a lease that is kept back
/// is a call in flight that may outlive the instance, which [`is_evicted`](Self::is_evicted) tells,
/// and keeps its picker and the subscription alive.
///
/// Say how it went with [`succeeded`](Self::succeeded) or [`failed`](Self::failed); the first
/// report counts. Dropped without one it counts as a call that was given up
/// ([`Outcome::Abandoned`]), which says nothing about the instance
/// unless it took long. Latencies, for [`PeakEwma`](crate::balance::PeakEwma), are from the pick to
/// the failure's report or the drop.
///
/// Example: [a picker](crate::balance::Picker)
pub struct Lease {
    instance: Arc<Instance>,
    admitted: Admitted<Outside>,
    judge: Arc<dyn Judge>,
    /// Whether it counts against the limit of calls in flight.
    counted: bool,
    reported: bool,
    began: Began,
}

/// What an instance of a [`Picker`](crate::balance::Picker) is called with: nothing of ours.
#[derive(Clone, Debug)]
pub(super) struct Outside;

/// The balancer that a lease reports to.
trait Judge: Send + Sync {
    fn answered(&self, endpoint: &Arc<Endpoint<Outside>>, probe: bool, outcome: Outcome);
    fn failed(&self, endpoint: &Arc<Endpoint<Outside>>, call: (bool, u32), verdict: &Verdict);
    fn given_up(&self, endpoint: &Arc<Endpoint<Outside>>, age: Duration);
    /// What became of the call is known.
    fn ended(&self, fate: Fate, began: Began);
    /// A call that counts against the limit has ended.
    fn exit(&self);
}

impl Lease {
    pub(super) fn new<P: Policy>(
        mut admitted: Admitted<Outside>,
        judge: Arc<Stripe<Outside, P, NeverRecover, (), ()>>,
        counted: bool,
        began: Began,
    ) -> Self {
        admitted.begin_waiting();
        Self {
            instance: admitted.endpoint().instance(),
            admitted,
            judge,
            counted,
            reported: false,
            began,
        }
    }

    /// Whom to call: `ip:port`, which is what a URL takes.
    pub fn address(&self) -> &Address {
        self.instance.address()
    }

    /// The instance's metadata when it was picked.
    pub fn metadata(&self) -> &Metadata {
        self.instance.metadata()
    }

    /// The instance as it was listed when it was picked.
    pub const fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// Whether the instance has left the registry since.
    pub fn is_evicted(&self) -> bool {
        self.admitted.endpoint().gate.state().is_evicted()
    }

    /// The instance answered.
    pub fn succeeded(&mut self) {
        if !self.report() {
            self.admitted.observe_usual();
            self.admitted.leave_room();
            let probe = self.admitted.judged();
            self.judge
                .answered(self.admitted.endpoint(), probe, Outcome::Success);
            self.judge.ended(Fate::Ok, self.began);
        }
    }

    /// The call failed. [`Verdict::Unreachable`] says that no connection could be had: the instance
    /// gets no call for 1 s, then 2 s and so on up to 30 s, and comes back by a single call that
    /// succeeds. Pick again, and it will be another. [`Verdict::Lost`] says that the connection
    /// broke: the next call finds out whether there is another. [`Verdict::Reachable`] says that it
    /// answered badly, which counts if [`Outliers`](crate::balance::Outliers) do.
    pub fn failed(&mut self, verdict: Verdict) {
        if self.report() {
            return;
        }
        let call = (self.admitted.judged(), self.admitted.number());
        self.admitted.failed();
        let endpoint = self.admitted.endpoint();
        self.judge.failed(endpoint, call, &verdict);
        self.judge.ended(Fate::of_verdict(&verdict), self.began);
    }

    /// The instance said that it has too much to do: it gets fewer calls at once, where
    /// [`AdaptiveConcurrency`](crate::balance::AdaptiveConcurrency) is set. An answer otherwise, which says
    /// nothing of how well it does.
    pub fn overloaded(&mut self) {
        if !self.report() {
            self.admitted.refused();
            let probe = self.admitted.judged();
            self.judge
                .answered(self.admitted.endpoint(), probe, Outcome::Overloaded);
        }
    }

    /// Whether it was reported before.
    const fn report(&mut self) -> bool {
        mem::replace(&mut self.reported, true)
    }
}

impl<P: Policy> Judge for Stripe<Outside, P, NeverRecover, (), ()> {
    fn answered(&self, endpoint: &Arc<Endpoint<Outside>>, probe: bool, outcome: Outcome) {
        self.0.set().answered(endpoint, probe, outcome);
    }

    fn failed(&self, endpoint: &Arc<Endpoint<Outside>>, call: (bool, u32), verdict: &Verdict) {
        let shared = &self.0.shared;
        shared.judged(endpoint, call, verdict, Outcome::Failure);
    }

    fn given_up(&self, endpoint: &Arc<Endpoint<Outside>>, age: Duration) {
        let set = self.0.set();
        if set.settings().outcomes().is_some() {
            set.given_up(endpoint, age);
        }
    }

    fn ended(&self, fate: Fate, began: Began) {
        self.0.requests.end(fate, began);
    }

    fn exit(&self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let (false, Some(age)) = (self.reported, self.admitted.age()) {
            self.judge.given_up(self.admitted.endpoint(), age);
            self.admitted.given_up();
        }
        if !self.reported {
            self.judge.ended(Fate::Aborted, self.began);
        }
        if self.counted {
            self.judge.exit();
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("address", self.address())
            .field("reported", &self.reported)
            .finish_non_exhaustive()
    }
}

use std::{sync::Arc, time::Duration};

use crate::{
    directory::Generation,
    endpoint::{
        clock,
        health::machine::{Answer, Effect, Event, Standing},
        hub::Reports,
        member::Endpoint,
        rules::Outcome,
        set::EndpointSet,
    },
    logs,
    model::Address,
};

/// What calls and probes find out about instances.
impl<S> EndpointSet<S> {
    /// No connection to the instance could be had, or it fell silent. `probe` says whether its probe
    /// found that.
    pub(crate) fn unreachable(&self, endpoint: &Arc<Endpoint<S>>, probe: bool, reason: &str) {
        if probe {
            self.tell_probe_failed(endpoint, reason);
        }
        self.note(endpoint, Event::Unreachable { probe }, reason);
        self.refused(endpoint, reason);
    }

    /// A connection ended with this call of the instance's on it.
    pub(crate) fn lost(&self, endpoint: &Arc<Endpoint<S>>, probe: bool, number: u32, reason: &str) {
        let turn = endpoint.turn(number);
        self.note_loss(endpoint, Event::Lost { probe, turn }, reason);
    }

    fn note_loss(&self, endpoint: &Arc<Endpoint<S>>, event: Event, reason: &str) {
        let effect = self.note(endpoint, event, reason);
        if effect.too_many_lost {
            self.condemn(endpoint, true, "it loses call after call");
        }
    }

    /// The instance has answered. `probe` says whether that was its probe.
    #[inline]
    pub(crate) fn answered(&self, endpoint: &Arc<Endpoint<S>>, probe: bool, outcome: Outcome) {
        match outcome {
            Outcome::Ignored | Outcome::Overloaded if !probe && !endpoint.is_answer_news() => {}
            Outcome::Success if !probe && !endpoint.is_answer_news() => self.count(endpoint, true),
            _ => self.judge(endpoint, probe, outcome, true),
        }
    }

    /// Counts an outcome, if rates are looked at.
    #[inline]
    fn count(&self, endpoint: &Endpoint<S>, good: bool) {
        if self.hub.settings.looks_at_rates() {
            endpoint.count_outcome(good);
        }
    }

    /// The call failed, and the instance could be reached.
    pub(crate) fn failed(&self, endpoint: &Arc<Endpoint<S>>, probe: bool, outcome: Outcome) {
        // Who is late has not answered.
        let has_answered = matches!(
            outcome,
            Outcome::Success | Outcome::Ignored | Outcome::Overloaded
        );
        self.judge(endpoint, probe, outcome, has_answered);
        if has_answered {
            endpoint.completed(); // nothing follows
        }
    }

    /// A try was out of time, and nothing has answered it: who is late has not answered.
    pub(crate) fn late(&self, endpoint: &Arc<Endpoint<S>>, probe: bool) {
        if probe {
            let reason = "its probe, a call, was out of time (per_try_timeout)";
            self.tell_probe_failed(endpoint, reason);
            match self.note(endpoint, Event::ProbeLate, reason).to {
                Standing::Outlier => return self.hub.notify_janitor(), // it is to be probed again
                Standing::Ejected => self.refused(endpoint, reason),
                Standing::Suspect | Standing::Open => {}
            }
        }
        self.judge(endpoint, false, Outcome::Failure, false);
    }

    /// Its caller gave a call up, so long after it had begun.
    pub(crate) fn given_up(&self, endpoint: &Arc<Endpoint<S>>, age: Duration) {
        self.judge(endpoint, false, Outcome::Abandoned(age), false);
    }

    /// A deadline that is ours passed before the instance answered.
    pub(crate) fn overdue(&self, endpoint: &Arc<Endpoint<S>>) {
        self.judge(endpoint, false, Outcome::Failure, false);
    }

    /// The maker's own probe has ended.
    pub(super) fn probed(&self, endpoint: &Arc<Endpoint<S>>, ended: Result<(), String>) {
        match ended {
            Ok(()) => {
                self.note(endpoint, Event::ProbeSucceeded, "");
            }
            Err(reason) => {
                self.tell_probe_failed(endpoint, &reason);
                self.note(endpoint, Event::ProbeFailed, &reason);
                self.refused(endpoint, &reason);
                if let Some(marks) = self.hub.marks.get() {
                    let now = clock::now().into_std();
                    marks.unreachable(&endpoint.address(), endpoint.generation(), now);
                }
            }
        }
    }

    /// Time has passed.
    pub(super) fn age(&self, endpoint: &Arc<Endpoint<S>>) {
        let awaited = || endpoint.health.read(|health| health.is_awaited());
        let was_awaited = awaited();
        let reason = "its probe, a call, took too long (probe_timeout)";
        self.note(endpoint, Event::Time, reason);
        if was_awaited && !awaited() {
            self.tell_probe_failed(endpoint, reason);
            self.refused(endpoint, reason);
        }
    }

    #[cold]
    fn judge(&self, endpoint: &Arc<Endpoint<S>>, probe: bool, outcome: Outcome, answer: bool) {
        let (how, bad) = match outcome {
            Outcome::Success => (Answer::Well, false),
            Outcome::Failure => (Answer::Badly, true),
            Outcome::Abandoned(age) => (Answer::Somehow, endpoint.is_overdue(age)),
            Outcome::Ignored | Outcome::Overloaded => (Answer::Somehow, false),
        };
        if probe || (answer && endpoint.awaits_answer()) {
            let effect = self.note(endpoint, Event::Answered { probe, how }, "");
            if probe && effect.to == Standing::Outlier {
                self.hub.notify_janitor(); // it is to be probed again
                return;
            }
        }
        let Some(rules) = self.hub.settings.outcomes() else {
            return;
        };
        let gate = endpoint.gate.state();
        if how == Answer::Well || bad {
            self.count(endpoint, !bad);
        }
        if how == Answer::Well {
            endpoint.end_streak();
        } else if bad
            && rules.consecutive > 0
            && !gate.is_ejected()
            && !gate.is_evicted()
            && endpoint.lengthen_streak() >= u64::from(rules.consecutive)
        {
            // Also if it may not be ejected: to ask that of the whole set at each call is dear.
            endpoint.end_streak();
            self.condemn(endpoint, false, "it answers badly");
        }
    }

    /// Takes note of what happened, for this reason, and of what it means for others.
    fn note(&self, endpoint: &Arc<Endpoint<S>>, event: Event, reason: &str) -> Effect {
        let effect = endpoint.note(event, clock::now());
        if effect.from != effect.to && !endpoint.gate.state().is_evicted() {
            self.follow(endpoint, effect, reason);
        }
        effect
    }

    fn follow(&self, endpoint: &Arc<Endpoint<S>>, effect: Effect, reason: &str) {
        {
            let mut state = self.lock();
            state.note_ailing(endpoint, effect.to != Standing::Open);
            if effect.to == Standing::Open
                && effect.from == Standing::Ejected
                && state.is_alone(endpoint)
            {
                // Whatever it was that made all of them unreachable is over.
                for other in &state.ailing {
                    let _ = other.note(Event::OtherReached, clock::now());
                }
            }
        }
        let service = self.service();
        let was_out = matches!(effect.from, Standing::Ejected | Standing::Outlier);
        match effect.to {
            Standing::Ejected => {
                if !was_out {
                    self.hub.count_ejection();
                }
                logs::of_service!(
                    info, BALANCE, self.client(), service,
                    instance = %endpoint.address(),
                    cause = reason,
                    "an instance cannot be reached: ejected, it gets no call until a probe succeeds"
                );
            }
            Standing::Open if was_out => {
                self.hub.count_restoration();
                logs::of_service!(
                    info, BALANCE, self.client(), service,
                    instance = %endpoint.address(),
                    "an ejected instance was reached: restored"
                );
            }
            Standing::Suspect => logs::of_service!(
                debug, BALANCE, self.client(), service,
                instance = %endpoint.address(),
                cause = reason,
                "an instance lost a connection with a call on it: a dial is to tell what that means"
            ),
            Standing::Open => logs::of_service!(
                debug, BALANCE, self.client(), service,
                instance = %endpoint.address(),
                "the instance that lost a connection can be reached"
            ),
            Standing::Outlier => {} // said where it is decided
        }
        self.announce(endpoint);
        match effect.to {
            Standing::Open => self.waiters.wake_all(),
            Standing::Ejected => {
                self.lift_outliers(|_| true);
            }
            Standing::Suspect | Standing::Outlier => {}
        }
    }

    /// A dial failed. Calls that wait are told once there is no other to wait for.
    fn refused(&self, endpoint: &Arc<Endpoint<S>>, reason: &str) {
        if endpoint.gate.state().is_evicted() {
            return;
        }
        let over = {
            let mut state = self.lock();
            if !state.ailing.is_empty() {
                let told = format!("instance {}: {reason}", endpoint.address());
                state.last_error = Some(told.into());
            }
            !state.awaits_probe()
        };
        if over {
            self.waiters.wake_all();
        }
        self.hub.notify_janitor();
    }
}

impl<S: Send + Sync> Reports for EndpointSet<S> {
    fn lost(&self, instance: &Address, generation: Generation, number: u32, reason: &str) {
        let endpoint = self.find_endpoint(instance);
        let endpoint = endpoint.filter(|endpoint| endpoint.generation() == generation);
        if let Some(endpoint) = endpoint {
            let turn = endpoint.turn(number);
            self.note_loss(&endpoint, Event::BrokeOff { turn }, reason);
        }
    }

    fn probe_given_up(&self) {
        self.waiters.wake_all();
    }
}

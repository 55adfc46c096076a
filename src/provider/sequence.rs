//! The life of a provider as a machine without I/O: what follows what, and until when.
//!
//! ```text
//!  Idle ─► Asking ─► Checking ─► Delaying ─► Registering ◄─► Retrying
//!            │           │           │            │              │
//!            │ signal: nobody knows of it         ▼   signal     │
//!            │           │           │         Online ──► Deregistering ◄─┘
//!            ▼           ▼           ▼                        │ acknowledged, failed, or too late
//!         Draining ◄─────────────────────── Lingering ◄───────┘
//!            │   quiet, too long, another signal, or nobody listens
//!            ▼
//!          Over    nothing in flight, or too long: what is left is cut
//! ```

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::timing::{CHECK_INTERVAL, FIRST_RETRY, LAST_RETRY, LONGEST, Timing, UNCONFIRMED};

/// What is to be done, in this order, one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Action {
    /// Ask whether the provider is ready; ends in [`Sequence::handle_ready`].
    AskReady,
    /// See whether the announced address answers; ends in [`Sequence::handle_checked`].
    CheckAddress,
    /// Ends in [`Sequence::handle_registered`].
    Register,
    /// Say from now on that the provider is not ready.
    NotReady,
    /// Ends in [`Sequence::handle_deregistered`], or in nothing.
    Deregister,
    /// Responses carry the mark from now on.
    Mark,
    StopListening,
    /// End what is in flight.
    Cut,
    Exit,
}

/// How a deregistration ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deregistered {
    /// The registry said that it does not list us.
    Acknowledged,
    /// Nothing was registered, so nobody can know of us.
    Nothing,
    /// The registry may list us for as long as it takes it to notice.
    Unconfirmed,
}

/// What is known of the calls.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Calls {
    pub(super) last: Option<Instant>,
    /// The median time between two.
    pub(super) interval: Option<Duration>,
    pub(super) in_flight: usize,
}

/// When the steps of going offline were reached.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Milestones {
    pub(super) signal: Option<Instant>,
    pub(super) deregistered: Option<(Deregistered, Instant)>,
    /// Responses carry the mark.
    pub(super) marked: Option<Instant>,
    pub(super) stopped: Option<Instant>,
    pub(super) over: Option<Instant>,
    /// A second signal ended the waiting.
    pub(super) hastened: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Idle,
    /// `next`: when to ask again; `None` while the answer is awaited.
    Asking {
        next: Option<Instant>,
    },
    Checking {
        since: Instant,
        next: Option<Instant>,
    },
    Delaying {
        until: Instant,
    },
    Registering,
    Retrying {
        at: Instant,
    },
    Online,
    Deregistering {
        until: Instant,
    },
    Lingering {
        least: Instant,
        most: Instant,
        next: Instant,
    },
    Draining {
        until: Instant,
    },
    Over,
}

#[derive(Debug)]
pub(super) struct Sequence {
    timing: Timing,
    asks: bool,
    checks: bool,
    state: State,
    actions: VecDeque<Action>,
    milestones: Milestones,
    retry: Duration,
    /// A registration was begun, so the registry may list us.
    began: bool,
    /// It was online once, so that callers may know of it.
    was_online: bool,
    listening: bool,
    /// Somebody looks out for the news that we are gone.
    awaited: bool,
}

impl Sequence {
    /// `asks`: there is somebody to ask for readiness; `checks`: the address is to be looked at.
    pub(super) fn new(timing: Timing, asks: bool, checks: bool) -> Self {
        Self {
            timing,
            asks,
            checks,
            state: State::Idle,
            actions: VecDeque::new(),
            milestones: Milestones::default(),
            retry: FIRST_RETRY,
            began: false,
            was_online: false,
            listening: true,
            awaited: false,
        }
    }

    pub(super) const fn state(&self) -> State {
        self.state
    }

    pub(super) const fn milestones(&self) -> Milestones {
        self.milestones
    }

    /// Whether it leaves, or has left.
    pub(super) const fn is_leaving(&self) -> bool {
        self.milestones.signal.is_some()
    }

    /// When what is in flight is cut, once it listens no more.
    pub(super) fn cut_at(&self) -> Option<Instant> {
        let stopped = self.milestones.stopped?;
        Some(after(stopped, self.timing.drain_timeout))
    }

    /// What is to be done next.
    pub(super) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub(super) const fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Idle | State::Registering | State::Online | State::Over => None,
            State::Asking { next } | State::Checking { next, .. } => next,
            State::Delaying { until: at }
            | State::Retrying { at }
            | State::Deregistering { until: at }
            | State::Lingering { next: at, .. }
            | State::Draining { until: at } => Some(at),
        }
    }

    /// Somebody wants it online.
    pub(super) fn go_online(&mut self, now: Instant) {
        if self.state != State::Idle {
            return;
        }
        if self.asks {
            self.ask();
        } else {
            self.look_at_address(now);
        }
    }

    pub(super) fn handle_ready(&mut self, ready: bool, now: Instant) {
        if !matches!(self.state, State::Asking { next: None }) {
            return;
        }
        if ready {
            self.look_at_address(now);
        } else {
            let next = Some(after(now, self.timing.ready_interval));
            self.state = State::Asking { next };
        }
    }

    pub(super) fn handle_checked(&mut self, answers: bool, now: Instant) {
        let State::Checking { since, next: None } = self.state else {
            return;
        };
        if answers {
            self.delay(now);
        } else {
            let next = Some(after(now, CHECK_INTERVAL));
            self.state = State::Checking { since, next };
        }
    }

    pub(super) fn handle_registered(&mut self, done: bool, now: Instant) {
        if self.state != State::Registering {
            return;
        }
        if done {
            self.state = State::Online;
            self.was_online = true;
            self.retry = FIRST_RETRY;
        } else {
            let at = after(now, self.retry);
            self.state = State::Retrying { at };
            self.retry = (self.retry * 2).min(LAST_RETRY);
        }
    }

    /// It is to leave; told again, at once.
    pub(super) fn handle_signal(&mut self, now: Instant, calls: Calls) {
        match self.state {
            State::Deregistering { .. } | State::Lingering { .. } => {
                self.milestones.hastened = true;
                self.stop_listening(now, calls);
            }
            State::Draining { .. } | State::Over => {}
            _ => self.leave(now, calls),
        }
    }

    pub(super) fn handle_deregistered(&mut self, how: Deregistered, now: Instant, calls: Calls) {
        match self.state {
            State::Deregistering { .. } => self.linger(how, now, calls),
            // Better late than never: the news travels from now on. Told twice, it does from the first.
            State::Lingering { least, most, next }
                if how == Deregistered::Acknowledged && !self.is_acknowledged() =>
            {
                self.milestones.deregistered = Some((how, now));
                let least = least.min(after(now, self.news()));
                let next = next.min(least);
                self.state = State::Lingering { least, most, next };
            }
            _ => {}
        }
    }

    /// Somebody will tell when a caller has heard that we are gone
    /// ([`handle_heard`](Self::handle_heard)): it lingers until then, if it may.
    pub(super) const fn await_news(&mut self) {
        self.awaited = true;
    }

    /// A caller has heard that we are gone; others may need as long again.
    pub(super) fn handle_heard(&mut self, now: Instant, calls: Calls) {
        if !std::mem::take(&mut self.awaited) {
            return;
        }
        if let State::Lingering { most, .. } = self.state
            && let Some((Deregistered::Acknowledged, at)) = self.milestones.deregistered
        {
            let took = now
                .saturating_duration_since(at)
                .max(self.timing.push_delay);
            let least = after(at, took.saturating_mul(2));
            self.go_on_lingering(least, most, now, calls);
        }
    }

    /// From the registry's word to the last caller's knowing.
    fn news(&self) -> Duration {
        match self.awaited {
            true => LONGEST,
            false => self.timing.push_delay.saturating_mul(2),
        }
    }

    /// Nobody listens any more, whyever.
    pub(super) fn handle_stopped(&mut self, now: Instant, calls: Calls) {
        self.listening = false;
        match self.state {
            State::Deregistering { .. } | State::Over => {}
            State::Lingering { .. } => self.stop_listening(now, calls),
            // Nothing can come any more, and what is in flight has no connection.
            State::Draining { .. } => self.end(now),
            _ => self.leave(now, calls),
        }
    }

    /// A call ended, and none is in flight.
    pub(super) fn handle_idle(&mut self, now: Instant) {
        if matches!(self.state, State::Draining { .. }) {
            self.end(now);
        }
    }

    /// Time passed.
    pub(super) fn handle_timeout(&mut self, now: Instant, calls: Calls) {
        if self.poll_timeout().is_none_or(|at| at > now) {
            return;
        }
        match self.state {
            State::Idle | State::Registering | State::Online | State::Over => {}
            State::Asking { .. } => self.ask(),
            State::Checking { since, .. } => self.check(since),
            State::Delaying { .. } | State::Retrying { .. } => self.register(),
            State::Deregistering { .. } => self.linger(Deregistered::Unconfirmed, now, calls),
            State::Lingering { least, most, .. } => self.go_on_lingering(least, most, now, calls),
            State::Draining { .. } => {
                self.actions.push_back(Action::Cut);
                self.end(now);
            }
        }
    }

    /// Whether a registration was confirmed, so that callers may know of it.
    pub(super) const fn was_online(&self) -> bool {
        self.was_online
    }

    /// Whether the registry said that it does not list us.
    pub(super) fn is_acknowledged(&self) -> bool {
        let how = self.milestones.deregistered.map(|(how, _)| how);
        how == Some(Deregistered::Acknowledged)
    }

    fn ask(&mut self) {
        self.state = State::Asking { next: None };
        self.actions.push_back(Action::AskReady);
    }

    fn look_at_address(&mut self, now: Instant) {
        if self.checks {
            self.check(now);
        } else {
            self.delay(now);
        }
    }

    fn check(&mut self, since: Instant) {
        self.state = State::Checking { since, next: None };
        self.actions.push_back(Action::CheckAddress);
    }

    fn delay(&mut self, now: Instant) {
        if self.timing.delay.is_zero() {
            self.register();
        } else {
            let until = after(now, self.timing.delay);
            self.state = State::Delaying { until };
        }
    }

    fn register(&mut self) {
        self.began = true;
        self.state = State::Registering;
        self.actions.push_back(Action::Register);
    }

    fn leave(&mut self, now: Instant, calls: Calls) {
        self.milestones.signal = Some(now);
        // What was to be done for going online is not to be done any more.
        self.actions.clear();
        self.actions.push_back(Action::NotReady);
        if self.began {
            self.actions.push_back(Action::Deregister);
            let until = after(now, self.timing.deregister_timeout);
            self.state = State::Deregistering { until };
        } else {
            self.linger(Deregistered::Nothing, now, calls);
        }
    }

    fn linger(&mut self, how: Deregistered, now: Instant, calls: Calls) {
        // Somebody else withdrew it: callers have yet to hear of that all the same.
        let how = match how {
            Deregistered::Nothing if self.was_online => Deregistered::Acknowledged,
            how => how,
        };
        self.milestones.deregistered = Some((how, now));
        self.mark(now);
        let least = match how {
            Deregistered::Acknowledged => self.news(),
            Deregistered::Nothing => Duration::ZERO,
            Deregistered::Unconfirmed => UNCONFIRMED,
        };
        // Nobody can be served, or nobody was ever given the address.
        if !self.listening || how == Deregistered::Nothing {
            return self.stop_listening(now, calls);
        }
        let (least, most) = (after(now, least), after(now, self.timing.max_linger));
        self.go_on_lingering(least, most, now, calls);
    }

    fn go_on_lingering(&mut self, least: Instant, most: Instant, now: Instant, calls: Calls) {
        let interval = calls.interval.unwrap_or_default().min(LONGEST);
        let quiet = calls.last.map_or(least, |last| after(last, interval * 2));
        let next = least.max(quiet).min(most);
        if next <= now {
            self.stop_listening(now, calls);
        } else {
            self.state = State::Lingering { least, most, next };
        }
    }

    fn mark(&mut self, now: Instant) {
        if self.milestones.marked.is_none() {
            self.milestones.marked = Some(now);
            self.actions.push_back(Action::Mark);
        }
    }

    fn stop_listening(&mut self, now: Instant, calls: Calls) {
        self.mark(now);
        self.milestones.stopped = Some(now);
        self.actions.push_back(Action::StopListening);
        if calls.in_flight == 0 {
            self.end(now);
        } else {
            let until = after(now, self.timing.drain_timeout);
            self.state = State::Draining { until };
        }
    }

    fn end(&mut self, now: Instant) {
        self.milestones.over = Some(now);
        self.state = State::Over;
        self.actions.push_back(Action::Exit);
    }
}

fn after(now: Instant, time: Duration) -> Instant {
    now + time.min(LONGEST)
}

//! The sequence in virtual time, over every order of its events.

use std::time::{Duration, Instant};

use super::{
    sequence::{Action, Calls, Deregistered, Sequence, State},
    timing::Timing,
};

#[expect(
    clippy::disallowed_methods,
    reason = "some instant to count virtual time from"
)]
fn start() -> Instant {
    Instant::now()
}

const MS: fn(u64) -> Duration = Duration::from_millis;

/// What may happen to it, whenever.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Event {
    Ready(bool),
    Checked(bool),
    Registered(bool),
    Signal,
    Deregistered(Deregistered),
    /// A call comes, and stays.
    Call,
    /// The last one ends.
    Idle,
    Stopped,
    /// So much time passes, and all that falls due in it.
    Time(u64),
}

const EVENTS: [Event; 15] = [
    Event::Ready(true),
    Event::Ready(false),
    Event::Checked(true),
    Event::Checked(false),
    Event::Registered(true),
    Event::Registered(false),
    Event::Signal,
    Event::Deregistered(Deregistered::Acknowledged),
    Event::Deregistered(Deregistered::Nothing),
    Event::Deregistered(Deregistered::Unconfirmed),
    Event::Call,
    Event::Idle,
    Event::Stopped,
    Event::Time(700),
    Event::Time(4_000),
];

/// A sequence, the calls about it, and what it has done.
struct World {
    sequence: Sequence,
    timing: Timing,
    now: Instant,
    calls: Calls,
    done: Vec<(Action, Instant)>,
    signals: u32,
    stopped: bool,
}

impl World {
    fn new(asks: bool, checks: bool) -> Self {
        let timing = Timing::default();
        let mut world = Self {
            sequence: Sequence::new(timing.clone(), asks, checks),
            timing,
            now: start(),
            calls: Calls::default(),
            done: Vec::new(),
            signals: 0,
            stopped: false,
        };
        world.sequence.go_online(world.now);
        world.look();
        world
    }

    fn happen(&mut self, event: Event) {
        let (now, calls) = (self.now, self.calls);
        match event {
            Event::Ready(ready) => self.sequence.handle_ready(ready, now),
            Event::Checked(answers) => self.sequence.handle_checked(answers, now),
            Event::Registered(done) => self.sequence.handle_registered(done, now),
            Event::Signal => {
                self.signals += 1;
                self.sequence.handle_signal(now, calls);
            }
            Event::Deregistered(how) => self.sequence.handle_deregistered(how, now, calls),
            Event::Call => {
                self.calls.interval = self.calls.last.map(|last| now - last);
                self.calls.last = Some(now);
                self.calls.in_flight += 1;
            }
            Event::Idle => {
                self.calls.in_flight = 0;
                self.sequence.handle_idle(now);
            }
            Event::Stopped => {
                self.stopped = true;
                self.sequence.handle_stopped(now, calls);
            }
            Event::Time(ms) => self.pass(MS(ms)),
        }
        self.look();
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        for step in 0.. {
            assert!(step < 1_000, "a timer that never runs out");
            match self.sequence.poll_timeout().filter(|at| *at <= until) {
                Some(at) => {
                    self.now = self.now.max(at);
                    self.sequence.handle_timeout(self.now, self.calls);
                    self.look();
                }
                None => break,
            }
        }
        self.now = until;
    }

    /// Takes what is to be done, and holds it against what was done before.
    fn look(&mut self) {
        while let Some(action) = self.sequence.poll_action() {
            self.check(action);
            self.done.push((action, self.now));
        }
        let milestones = self.sequence.milestones();
        let state = self.sequence.state();
        // Nothing of the way out waits for something that may never come.
        let waits = matches!(
            state,
            State::Deregistering { .. } | State::Lingering { .. } | State::Draining { .. }
        );
        assert_eq!(
            waits,
            self.sequence.poll_timeout().is_some() && milestones.signal.is_some()
        );
        assert_eq!(milestones.signal.is_some(), self.sequence.is_leaving());
        assert_eq!(milestones.over.is_some(), state == State::Over);
    }

    fn at(&self, wanted: Action) -> Option<Instant> {
        let found = self.done.iter().find(|(action, _)| *action == wanted);
        found.map(|(_, at)| *at)
    }

    fn check(&self, action: Action) {
        let online = action <= Action::Register;
        if !online {
            // In this order, and once.
            for (before, _) in &self.done {
                assert!(*before < action, "{action:?} after {:?}", self.done);
            }
        }
        let leaving = self.at(Action::NotReady).is_some();
        assert!(!(online && leaving), "{action:?} after {:?}", self.done);
        match action {
            Action::Deregister => assert!(self.at(Action::Register).is_some()),
            Action::Mark => assert!(leaving),
            Action::StopListening => self.may_stop(),
            Action::Cut => {
                let stopped = self.at(Action::StopListening).unwrap();
                assert!(self.now >= stopped + self.timing.drain_timeout);
                assert!(self.calls.in_flight > 0);
            }
            Action::Exit => {
                assert!(self.at(Action::StopListening).is_some());
                let done = self.calls.in_flight == 0 || self.at(Action::Cut).is_some();
                assert!(done || self.stopped, "{:?}", self.done);
            }
            _ => {}
        }
    }

    /// Nobody stops listening while somebody may not have heard, unless told so or for too long.
    fn may_stop(&self) {
        let (how, at) = self.sequence.milestones().deregistered.unzip();
        let Some((how, at)) = how.zip(at) else {
            assert!(self.signals > 1 || self.stopped, "{:?}", self.done);
            return;
        };
        let told = self.sequence.milestones().hastened || self.stopped;
        let marked = self.sequence.milestones().marked.unwrap();
        let long = self.now >= marked + self.timing.max_linger;
        let heard = match how {
            Deregistered::Nothing => true,
            Deregistered::Acknowledged => {
                let travelled = self.now >= at + self.timing.push_delay * 2;
                let interval = self.calls.interval.unwrap_or_default();
                let quiet = self
                    .calls
                    .last
                    .is_none_or(|last| self.now >= last + interval * 2);
                travelled && quiet
            }
            Deregistered::Unconfirmed => false,
        };
        assert!(told || long || heard, "{how:?}, {:?}", self.done);
    }

    /// From wherever it is, a signal leads to the exit in bounded time, with nothing else happening.
    fn leads_out(&mut self) {
        if !self.sequence.is_leaving() {
            self.happen(Event::Signal);
        }
        let limits = &self.timing;
        let all = limits.deregister_timeout + limits.max_linger + limits.drain_timeout;
        self.pass(all);
        assert_eq!(self.sequence.state(), State::Over, "{:?}", self.done);
        let began = self.at(Action::Register).is_some();
        assert_eq!(
            began,
            self.at(Action::Deregister).is_some(),
            "{:?}",
            self.done
        );
        for action in [Action::Mark, Action::StopListening, Action::Exit] {
            assert!(self.at(action).is_some(), "{action:?} is missing");
        }
    }
}

/// Every order of every `length` events, from a start that `prefix` leads to.
fn every_order(prefix: &[Event], length: u32, asks: bool, checks: bool) {
    let all = EVENTS.len().pow(length);
    for number in 0..all {
        let mut world = World::new(asks, checks);
        let mut rest = number;
        let told = (0..length).map(|_| {
            let event = EVENTS[rest % EVENTS.len()];
            rest /= EVENTS.len();
            event
        });
        for event in prefix.iter().copied().chain(told) {
            world.happen(event);
        }
        world.leads_out();
    }
}

#[test]
fn every_order_from_the_start() {
    every_order(&[], 4, true, true);
    every_order(&[], 4, false, false);
}

#[test]
fn every_order_while_online() {
    every_order(&[Event::Registered(true)], 4, false, false);
}

#[test]
fn every_order_while_it_leaves() {
    let leaving = [Event::Registered(true), Event::Call, Event::Signal];
    every_order(&leaving, 4, false, false);
}

#[test]
fn every_order_while_it_lingers_and_drains() {
    let acknowledged = Event::Deregistered(Deregistered::Acknowledged);
    let lingering = [
        Event::Registered(true),
        Event::Signal,
        acknowledged,
        Event::Call,
    ];
    every_order(&lingering, 4, false, false);
    every_order(
        &[
            Event::Registered(true),
            Event::Signal,
            Event::Call,
            Event::Signal,
        ],
        3,
        false,
        false,
    );
}

/// Online, with calls that come every 10 ms until the signal.
fn busy() -> World {
    let mut world = World::new(false, false);
    world.happen(Event::Registered(true));
    world.calls = Calls {
        last: Some(world.now),
        interval: Some(MS(10)),
        in_flight: 0,
    };
    world.happen(Event::Signal);
    world
}

fn stopped_after(world: &World) -> Duration {
    let marked = world.at(Action::Mark).unwrap();
    world.at(Action::StopListening).unwrap() - marked
}

#[test]
fn at_rest_it_lingers_for_twice_the_push_delay() {
    let mut world = busy();
    world.happen(Event::Deregistered(Deregistered::Acknowledged));
    world.pass(MS(20_000));
    assert_eq!(stopped_after(&world), MS(1_200));
    assert_eq!(world.at(Action::Exit), world.at(Action::StopListening));
}

#[test]
fn news_that_is_looked_out_for_is_waited_for_twice() {
    let heard = |after: Duration| {
        let mut world = busy();
        world.sequence.await_news();
        world.happen(Event::Deregistered(Deregistered::Acknowledged));
        world.pass(after);
        world.sequence.handle_heard(world.now, world.calls);
        world.look();
        world.pass(MS(20_000));
        stopped_after(&world)
    };
    assert_eq!(heard(MS(2_000)), MS(4_000));
    assert_eq!(heard(MS(100)), MS(1_200), "never shorter than it is told");
    assert_eq!(heard(MS(8_000)), MS(10_000), "nor longer");
    assert_eq!(heard(MS(15_000)), MS(10_000));
    // Heard before the registry's own word: nothing is left to be waited for.
    let mut world = busy();
    world.sequence.await_news();
    world.sequence.handle_heard(world.now, world.calls);
    world.happen(Event::Deregistered(Deregistered::Acknowledged));
    world.pass(MS(20_000));
    assert_eq!(stopped_after(&world), MS(1_200));
}

#[test]
fn callers_that_still_call_are_waited_for() {
    let mut world = busy();
    world.happen(Event::Deregistered(Deregistered::Acknowledged));
    for _ in 0..300 {
        world.pass(MS(10));
        world.calls.last = Some(world.now);
    }
    world.pass(MS(20_000));
    // The last came after 3 s; two of their intervals later nobody calls any more.
    assert_eq!(stopped_after(&world), MS(3_020));
    let mut world = busy();
    world.happen(Event::Deregistered(Deregistered::Acknowledged));
    for _ in 0..2_000 {
        world.pass(MS(10));
        world.calls.last = Some(world.now);
    }
    assert_eq!(stopped_after(&world), MS(10_000));
}

#[test]
fn a_frozen_registry_holds_up_nothing() {
    let mut world = busy();
    world.pass(MS(30_000));
    let signal = world.at(Action::NotReady).unwrap();
    assert_eq!(world.at(Action::Mark).unwrap() - signal, MS(3_000));
    assert_eq!(stopped_after(&world), MS(10_000)); // of the 30 s that a registry may need
}

#[test]
fn an_answer_that_comes_late_shortens_the_linger() {
    let mut world = busy();
    world.pass(MS(5_000));
    world.happen(Event::Deregistered(Deregistered::Acknowledged));
    world.pass(MS(20_000));
    assert_eq!(stopped_after(&world), MS(2_000) + MS(1_200));
}

#[test]
fn a_second_signal_leaves_the_drain() {
    let mut world = busy();
    world.calls.in_flight = 1;
    world.happen(Event::Signal);
    assert_eq!(stopped_after(&world), MS(0));
    world.happen(Event::Signal); // a third changes nothing
    world.pass(MS(20_000));
    let stopped = world.at(Action::StopListening).unwrap();
    assert_eq!(world.at(Action::Cut).unwrap() - stopped, MS(15_000));
}

#[test]
fn who_was_never_registered_leaves_at_once() {
    let mut world = World::new(true, true);
    world.happen(Event::Signal);
    assert_eq!(world.at(Action::Deregister), None);
    assert_eq!(world.at(Action::Exit), world.at(Action::NotReady));
}

#[test]
fn a_delay_lies_between_ready_and_the_registration() {
    let timing = Timing {
        delay: MS(500),
        ..Timing::default()
    };
    let now = start();
    let mut sequence = Sequence::new(timing.clone(), true, true);
    sequence.go_online(now);
    assert_eq!(sequence.poll_action(), Some(Action::AskReady));
    sequence.handle_ready(true, now);
    assert_eq!(sequence.poll_action(), Some(Action::CheckAddress));
    let checked = now + MS(70);
    sequence.handle_checked(true, checked);
    assert_eq!(sequence.poll_action(), None);
    assert_eq!(sequence.poll_timeout(), Some(checked + MS(500)));
    sequence.handle_timeout(checked + MS(499), Calls::default());
    assert_eq!(sequence.poll_action(), None);
    sequence.handle_timeout(checked + MS(500), Calls::default());
    assert_eq!(sequence.poll_action(), Some(Action::Register));
    // A signal in it ends it: nobody knows of it.
    let mut sequence = Sequence::new(timing, false, false);
    sequence.go_online(now);
    assert!(matches!(sequence.state(), State::Delaying { .. }));
    sequence.handle_signal(now, Calls::default());
    assert_eq!(sequence.state(), State::Over);
}

#[test]
fn a_registry_that_refuses_is_asked_less_and_less() {
    let mut world = World::new(false, false);
    for _ in 0..8 {
        world.happen(Event::Registered(false));
        world.pass(MS(31_000));
    }
    let asked: Vec<Instant> = world.done.iter().map(|(_, at)| *at).collect();
    let first = asked[1] - asked[0];
    assert_eq!((first, asked.len()), (MS(1_000), 9));
    // What was wrong is mended; the next start is quick again.
    world.happen(Event::Registered(true));
    assert_eq!(world.sequence.state(), State::Online);
}

/// Somebody else withdrew what is registered: callers have yet to hear of that.
#[test]
fn who_was_online_lingers_though_nothing_is_registered_any_more() {
    let mut world = World::new(false, false);
    world.happen(Event::Registered(true));
    world.happen(Event::Signal);
    world.happen(Event::Deregistered(Deregistered::Nothing));
    let state = world.sequence.state();
    assert!(matches!(state, State::Lingering { .. }), "{state:?}");
    let how = world.sequence.milestones().deregistered;
    assert_eq!(how.map(|(how, _)| how), Some(Deregistered::Acknowledged));
}

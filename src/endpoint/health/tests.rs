use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use super::{
    machine::{Answer, Event, Health, Prospect, Standing},
    rules::{HealthRules, Outliers},
};

/// One instance, in virtual time, and what must hold of it whatever happens.
#[derive(Clone)]
struct World {
    health: Health,
    now: Instant,
    /// When a dial last failed.
    failed: Option<Instant>,
    /// Whether it was unreachable since the last answer that counts.
    unreachable: bool,
}

const RULES: HealthRules = HealthRules::new();
const OUTLIERS: Outliers = Outliers::new();

const EVENTS: [Event; 14] = [
    Event::Unreachable { probe: false },
    Event::Unreachable { probe: true },
    Event::Lost { probe: false },
    Event::Lost { probe: true },
    Event::Answered {
        probe: false,
        how: Answer::Well,
    },
    Event::Answered {
        probe: true,
        how: Answer::Well,
    },
    Event::Condemned { for_losses: true },
    Event::Pardoned,
    Event::Asked { since: None },
    Event::ProbeOffered,
    Event::ProbeTaken,
    Event::ProbeBegan,
    Event::ProbeSucceeded,
    Event::ProbeFailed,
];

impl World {
    fn new() -> Self {
        Self {
            health: Health::default(),
            now: crate::endpoint::clock::now(),
            failed: None,
            unreachable: false,
        }
    }

    /// Lets some time pass, and then something happen.
    fn step(&mut self, after: Duration, event: Event) {
        self.now += after;
        self.happens(Event::Time);
        self.happens(event);
    }

    fn happens(&mut self, event: Event) {
        let before = self.health.clone();
        let wanted = before.wants_probe(self.now);
        let effect = self.health.apply(event, self.now, &RULES, &OUTLIERS);
        let standing = self.health.standing();
        assert_eq!((effect.from, effect.to), (before.standing(), standing));
        let said = || format!("{event:?}: {before:?} to {:?}", self.health);
        match event {
            Event::Lost { .. } => assert!(
                standing != Standing::Ejected || before.standing() == Standing::Ejected,
                "a lost call ejects nobody: {}",
                said()
            ),
            Event::Unreachable { .. } => {
                assert_eq!(standing, Standing::Ejected, "{}", said());
                self.failed = Some(self.now);
                self.unreachable = true;
            }
            Event::Asked { since } if before.standing() == Standing::Ejected => {
                let fresh = self
                    .failed
                    .is_some_and(|at| self.now - at < RULES.redial_after);
                let prospect = before.prospect(self.now, since, &RULES);
                assert_eq!(prospect == Prospect::Refused, fresh, "{}", said());
                assert!(
                    fresh || self.health.is_awaited(),
                    "a dial is joined: {}",
                    said()
                );
            }
            Event::ProbeBegan | Event::ProbeOffered if !wanted => {
                assert_eq!(before, self.health, "one at a time: {}", said());
            }
            Event::Answered { probe: true, .. } if before != self.health => {
                self.unreachable &= standing != Standing::Open;
            }
            Event::Answered { .. } if standing == Standing::Open => self.unreachable = false,
            _ => {}
        }
        if standing == Standing::Ejected && before.standing() != Standing::Ejected {
            self.unreachable = true;
        }
        if event == Event::ProbeFailed && before.is_awaited() {
            self.failed = Some(self.now);
        }
        if event == Event::Time && before.is_awaited() && !self.health.is_awaited() {
            self.failed = Some(self.now);
        }
        if self.unreachable && standing == Standing::Open {
            assert!(self.health.is_on_probation(), "until an answer: {}", said());
            assert!(self.health.awaits_answer(), "{}", said());
        }
        if standing == Standing::Outlier && before.standing() != Standing::Outlier {
            assert!(matches!(event, Event::Condemned { .. }), "{}", said());
        }
        if standing == Standing::Open {
            assert!(!self.health.wants_probe(self.now) && !self.health.is_awaited());
        }
        if event == Event::Time && before.is_spotless() {
            assert_eq!(before, self.health);
        }
    }

    /// Whatever state it is in: it is found out again, and an answer makes it whole.
    fn recovers(mut self) {
        for _ in 0..8 {
            self.now += Duration::from_secs(301);
            self.happens(Event::Time);
            if self.health.wants_probe(self.now) {
                self.happens(Event::ProbeOffered);
            }
            self.happens(Event::ProbeSucceeded); // one that was out ends
            self.happens(Event::ProbeTaken);
            for probe in [true, false] {
                self.happens(Event::Answered {
                    probe,
                    how: Answer::Well,
                });
            }
            if self.health.standing() == Standing::Open {
                assert!(!self.health.is_on_probation() && !self.health.awaits_answer());
                return;
            }
        }
        panic!("it never comes back: {:?}", self.health);
    }
}

#[test]
fn every_sequence_of_five_events_keeps_the_rules() {
    fn further(world: &World, depth: usize) {
        if depth == 0 {
            return;
        }
        for event in EVENTS {
            let mut next = world.clone();
            next.step(Duration::from_millis(100), event);
            further(&next, depth - 1);
        }
    }
    further(&World::new(), 5);
}

#[test]
fn every_sequence_of_six_calls_and_dials_keeps_the_rules_and_recovers() {
    const SOME: [usize; 8] = [0, 2, 4, 6, 8, 9, 11, 13];
    fn further(world: &World, depth: usize) {
        if depth == 0 {
            return world.clone().recovers();
        }
        for at in SOME {
            let mut next = world.clone();
            next.step(Duration::from_millis(260), EVENTS[at]);
            further(&next, depth - 1);
        }
    }
    further(&World::new(), 6);
}

proptest! {
    #[test]
    fn longer_sequences_at_any_times_do_too(
        steps in prop::collection::vec((0..EVENTS.len(), 0_u64..40_000), 0..80)
    ) {
        let mut world = World::new();
        for (at, ms) in steps {
            world.step(Duration::from_millis(ms), EVENTS[at]);
        }
        world.recovers();
    }
}

fn at(ms: u64, start: Instant) -> Instant {
    start + Duration::from_millis(ms)
}

#[test]
fn rests_double_and_a_dial_that_succeeds_does_not_end_that() {
    let mut world = World::new();
    world.happens(Event::Unreachable { probe: false });
    for rest in [1, 2, 4, 8, 16, 30, 30] {
        assert_eq!(
            world.health.probe_due(),
            Some(world.now + Duration::from_secs(rest))
        );
        world.now += Duration::from_secs(rest);
        world.happens(Event::ProbeBegan);
        // It accepts, and cannot be had a moment later: as if the dial had failed.
        world.happens(Event::ProbeSucceeded);
        assert!(world.health.is_on_probation());
        world.happens(Event::Unreachable { probe: false });
    }
    world.now += Duration::from_secs(30);
    world.happens(Event::ProbeBegan);
    world.happens(Event::ProbeSucceeded);
    world.happens(Event::Answered {
        probe: false,
        how: Answer::Somehow,
    });
    assert!(!world.health.is_on_probation());
    world.happens(Event::Unreachable { probe: false });
    assert_eq!(
        world.health.probe_due(),
        Some(world.now + Duration::from_secs(1)),
        "an answer does"
    );
}

#[test]
fn five_calls_lost_in_a_row_are_too_many_and_an_answer_between_begins_anew() {
    let mut health = Health::default();
    let start = crate::endpoint::clock::now();
    let lose = |health: &mut Health| {
        let lost = health.apply(Event::Lost { probe: false }, start, &RULES, &OUTLIERS);
        // A dial that succeeds is no answer.
        for event in [Event::ProbeBegan, Event::ProbeSucceeded] {
            let _ = health.apply(event, start, &RULES, &OUTLIERS);
        }
        lost.too_many_lost
    };
    let lost: Vec<bool> = (0..5).map(|_| lose(&mut health)).collect();
    assert_eq!(lost, [false, false, false, false, true]);
    for _ in 0..20 {
        assert!(!lose(&mut health));
        let answered = Event::Answered {
            probe: false,
            how: Answer::Badly,
        };
        let _ = health.apply(answered, start, &RULES, &OUTLIERS);
    }
}

#[test]
fn who_asks_is_refused_for_250_ms_after_a_dial_that_failed() {
    let start = crate::endpoint::clock::now();
    let mut health = Health::default();
    let _ = health.apply(
        Event::Unreachable { probe: false },
        start,
        &RULES,
        &OUTLIERS,
    );
    for (ms, refused) in [(0, true), (249, true), (250, false), (900, false)] {
        let prospect = health.prospect(at(ms, start), None, &RULES);
        assert_eq!(prospect == Prospect::Refused, refused, "{ms}");
    }
    // Who has waited since before the dial failed has had the answer.
    let prospect = health.prospect(at(900, start), Some(start), &RULES);
    assert_eq!(prospect, Prospect::Refused);
}

//! What single rules say, at their edges.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    machine::{Answer, Event, Health, Prospect},
    sequences::{OUTLIERS, RULES, World},
};

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
        for event in [answered, Event::Completed] {
            let _ = health.apply(event, start, &RULES, &OUTLIERS);
        }
    }
}

/// The head of a response is an answer, unless its body breaks off.
#[test]
fn five_responses_that_break_off_in_a_row_are_too_many_and_a_whole_one_between_begins_anew() {
    let mut health = Health::default();
    let start = crate::endpoint::clock::now();
    let happens = |health: &mut Health, event| {
        let effect = health.apply(event, start, &RULES, &OUTLIERS);
        effect.too_many_lost
    };
    let head = Event::Answered {
        probe: false,
        how: Answer::Well,
    };
    let breaks_off = |health: &mut Health| {
        happens(health, head);
        happens(health, Event::BrokeOff)
    };
    let lost: Vec<bool> = (0..6).map(|_| breaks_off(&mut health)).collect();
    assert_eq!(lost, [false, false, false, false, true, false]);
    for _ in 0..20 {
        assert!(!breaks_off(&mut health) && !breaks_off(&mut health));
        happens(&mut health, head);
        happens(&mut health, Event::Completed);
    }
    // Among those that were lost before their answer they count as one of them.
    let mut health = Health::default();
    let lost = [
        happens(&mut health, Event::Lost { probe: false }),
        breaks_off(&mut health),
        happens(&mut health, Event::Lost { probe: false }),
        breaks_off(&mut health),
        happens(&mut health, Event::Lost { probe: false }),
    ];
    assert_eq!(lost, [false, false, false, false, true]);
}

/// Of calls that are made at once the heads come between each other's ends.
#[test]
fn responses_that_break_off_are_counted_however_many_are_open_at_once() {
    let start = crate::endpoint::clock::now();
    for at_once in 1..=8 {
        let mut health = Health::default();
        let mut happens = |event| {
            let effect = health.apply(event, start, &RULES, &OUTLIERS);
            effect.too_many_lost
        };
        let head = Event::Answered {
            probe: false,
            how: Answer::Well,
        };
        for _ in 0..at_once {
            happens(head);
        }
        let mut lost = 1;
        while !happens(Event::BrokeOff) {
            lost += 1;
            assert!(lost <= 5, "{at_once} at once");
            happens(head);
        }
        assert_eq!(lost, 5, "{at_once} at once");
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

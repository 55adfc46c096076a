//! What single rules say, at their edges.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    machine::{Answer, Event, Health, Prospect, Turn},
    sequences::{LATER, OUTLIERS, RULES, TOGETHER, World},
};

const fn loses(turn: Turn) -> Event {
    Event::Lost { probe: false, turn }
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
        let lost = health.apply(loses(LATER), start, &RULES, &OUTLIERS);
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
        happens(health, Event::BrokeOff { turn: LATER })
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
        happens(&mut health, loses(LATER)),
        breaks_off(&mut health),
        happens(&mut health, loses(LATER)),
        breaks_off(&mut health),
        happens(&mut health, loses(LATER)),
    ];
    assert_eq!(lost, [false, false, false, false, true]);
}

/// A process that dies loses all that it holds, however many connections that is on: that happened once.
#[test]
fn calls_that_were_under_way_together_are_lost_once() {
    let start = crate::endpoint::clock::now();
    let mut health = Health::default();
    let happens = |health: &mut Health, event| {
        let effect = health.apply(event, start, &RULES, &OUTLIERS);
        effect.too_many_lost
    };
    // 1,000 calls before and after the number begins anew.
    let mut of = u32::MAX - 500;
    for round in 1..=5_u32 {
        let first = of;
        of = of.wrapping_add(1_000);
        let mut lost_too_many = false;
        for call in 0..1_000 {
            let number = first.wrapping_add(call);
            let turn = Turn { number, of };
            let event = match call % 2 {
                0 => loses(turn),
                _ => Event::BrokeOff { turn },
            };
            // Between them a dial finds that there is somebody.
            for event in [Event::ProbeBegan, Event::ProbeSucceeded] {
                let _ = happens(&mut health, event);
            }
            lost_too_many |= happens(&mut health, event);
        }
        assert_eq!(lost_too_many, round == 5, "in round {round}");
    }
    // With an answer between, each is the first.
    for _ in 0..20 {
        assert!(!happens(&mut health, loses(TOGETHER)));
        assert!(!happens(&mut health, Event::Completed));
    }
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
        while !happens(Event::BrokeOff { turn: LATER }) {
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

/// A machine that was suspended: all that was due is due, once, and nothing counts as having happened meanwhile.
#[test]
fn a_clock_that_jumps_ends_rests_and_counts_for_nothing() {
    let well = Event::Answered {
        probe: true,
        how: Answer::Well,
    };
    for jump in [60, 3_600, 86_400, 365 * 86_400] {
        let jump = Duration::from_secs(jump);
        for out_before in [
            &[loses(LATER)][..],
            &[Event::Unreachable { probe: false }],
            &[Event::Condemned { for_losses: false }],
            &[Event::Condemned { for_losses: true }],
        ] {
            let mut world = World::new();
            for event in out_before {
                world.happens(*event);
            }
            world.now += jump;
            world.happens(Event::Time);
            assert!(world.health.wants_probe(world.now), "{out_before:?}");
            // The call that is its probe may be what the clock jumps over, too.
            world.happens(Event::ProbeOffered);
            world.happens(Event::ProbeTaken);
            world.now += jump;
            world.happens(Event::Time);
            if let Some(due) = world.health.probe_due() {
                let rest = due - world.now;
                assert!(rest <= Duration::from_secs(2), "{out_before:?}: {rest:?}");
                world.now = due;
                world.happens(Event::ProbeOffered);
                world.happens(Event::ProbeTaken);
            }
            world.happens(well);
            world.happens(Event::Completed);
            assert!(!world.health.is_on_probation(), "{out_before:?}");
            // What it was out for before is forgotten by then: it rests as after the first time.
            world.now += jump;
            world.happens(Event::Condemned { for_losses: false });
            let rest = world.health.probe_due().map(|due| due - world.now);
            assert_eq!(rest, Some(OUTLIERS.base), "{out_before:?}");
        }
    }
    // Back, which a monotonic clock does not go: a rest ends when it would have.
    let start = crate::endpoint::clock::now();
    let mut health = Health::default();
    let event = Event::Unreachable { probe: false };
    let _ = health.apply(event, at(10_000, start), &RULES, &OUTLIERS);
    let _ = health.apply(Event::Time, start, &RULES, &OUTLIERS);
    assert!(!health.wants_probe(start) && health.wants_probe(at(11_000, start)));
}

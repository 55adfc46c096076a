//! Losing the registry never loses the instances (R2, R3, R4; G7).

use std::time::Duration;

use super::support::{Recorder, Script, a, addresses, all, at, callable, drain, removed};
use crate::directory::{
    ChangeKind, MassDrop, OnAllUnhealthy, Options, Origin, RemovalCause, Status,
};

fn held(script: &Script) -> usize {
    let snapshot = script.sub.snapshot();
    let held = snapshot.entries().iter().filter(|entry| entry.is_held());
    held.count()
}

#[test]
fn r3_the_last_known_set_serves_while_disconnected() {
    let mut script = Script::listing(all([1, 2]));
    let lost = script.now;
    script.writer.handle_disconnected(lost);
    script.pass(100_000.0);
    assert_eq!(script.callable(), addresses([1, 2]));
    assert_eq!(script.sub.status(), Status::Stale { since: lost });
    script.writer.handle_connected(script.now);
    assert_eq!(
        script.sub.status(),
        Status::Stale { since: lost },
        "no list yet"
    );
    script.first(all([1, 2]));
    assert_eq!(script.sub.status(), Status::Fresh);
    assert_eq!(script.sub.revision().get(), 1, "and nobody flapped");
}

#[test]
fn r2_what_left_during_the_outage_is_removed_and_nothing_flaps() {
    let mut script = Script::listing(all(1..=10));
    let recorder = script.sub.attach(Recorder::new);
    script.reconnect(30.0).first(all(3..=11));
    assert_eq!(script.callable(), addresses(1..=11), "held for a moment");
    assert_eq!(script.sub.status(), Status::Held { instances: 2 });
    script.pass(2.9);
    assert_eq!(script.callable(), addresses(1..=11));
    script.pass(0.2);
    assert_eq!(script.callable(), addresses(3..=11), "2 of 10 are 20 %");
    assert_eq!(recorder.take_transitions().len(), 3);
    assert_eq!(held(&script), 0);
    let counters = script.writer.counters();
    assert_eq!((counters.held, counters.collapses), (2, 0));
    assert_eq!(
        counters.collapses_obeyed, 0,
        "few that left are no collapse"
    );
}

#[test]
fn r4_one_missing_of_two_is_held_for_a_moment_and_keeps_its_generation() {
    // As measured on a registry that restarted: one of two registered again 2.9 s later.
    let mut script = Script::listing(all([1, 2]));
    let recorder = script.sub.attach(Recorder::new);
    let generation = script.generation(1);
    script.reconnect(1.0).first(all([2]));
    assert_eq!(script.callable(), addresses([1, 2]));
    script.pass(2.9);
    assert_eq!(script.callable(), addresses([1, 2]));
    script.push(all([1, 2]));
    assert_eq!(script.sub.status(), Status::Fresh);
    script.pass(100.0);
    assert_eq!(script.callable(), addresses([1, 2]));
    assert_eq!(script.generation(1), generation);
    assert_eq!(recorder.take_transitions(), [], "evicted for 0 ms");
}

#[test]
fn r4_the_few_that_are_held_leave_at_once_when_their_connection_fails() {
    let mut script = Script::listing(all([1, 2]));
    script.reconnect(1.0).first(all([2]));
    let (generation, now) = (script.generation(1), script.now);
    script.writer.report_unreachable(&at(1), generation, now);
    assert_eq!(script.callable(), addresses([2]));
    assert_eq!(script.writer.poll_timeout(), None);
}

#[test]
fn r4_each_growth_starts_the_moment_anew_and_the_registry_is_asked_half_way() {
    let mut script = Script::listing(all(1..=10));
    script.reconnect(1.0).first(all(3..=10));
    script.pass(1.4);
    assert!(!script.writer.take_read_wanted());
    script.pass(0.2);
    assert!(script.writer.take_read_wanted());
    script.push(all(2..=10));
    script.pass(2.9);
    assert_eq!(script.callable(), addresses(1..=10));
    script.pass(0.2);
    assert_eq!(script.callable(), addresses(2..=10));
}

#[test]
fn the_few_that_are_held_stay_for_longer_when_nobody_else_is_left() {
    // Seed 1300 of the simulation: the other one is taken out by its operator meanwhile.
    let mut script = Script::listing(all([1, 2]));
    script.reconnect(1.0).first(all([2]));
    script.after(1.0).push(vec![a(2).with_weight(0.0)]);
    script.pass(10.0);
    assert_eq!(script.callable(), addresses([1]));
    script.push(vec![a(1), a(2).with_weight(0.0)]);
    assert_eq!(script.sub.status(), Status::Fresh);
    let mut script = Script::listing(all([1, 2]));
    script.reconnect(1.0).first(all([2]));
    script.after(1.0).push(all([]));
    script.pass(58.9);
    assert_eq!(script.callable(), addresses([1]));
    script.pass(0.2);
    assert_eq!(script.callable(), [], "a minute after the first answer");
}

#[test]
fn the_moment_is_an_option_and_zero_believes_at_once() {
    let mut script = Script::with(Options::default().believed_hold(Duration::ZERO));
    script.push(all([1, 2]));
    script.after(5.0).reconnect(1.0).first(all([2]));
    assert_eq!(script.callable(), addresses([2]));
    let mut script = Script::with(Options::default().believed_hold(Duration::from_secs(10)));
    script.push(all([1, 2]));
    script.after(5.0).reconnect(1.0).first(all([2]));
    script.pass(9.9);
    assert_eq!(script.callable(), addresses([1, 2]));
    script.pass(0.2);
    assert_eq!(script.callable(), addresses([2]));
}

#[test]
fn a_list_of_a_former_connection_does_not_count() {
    let mut script = Script::new();
    let now = script.now;
    let list = |n: &[u16]| crate::model::Listing::new(all(n.iter().copied()));
    let writer = &mut script.writer;
    writer.handle_connection(7, now);
    writer.apply_from(7, list(&[1, 2, 3]), Origin::FirstAnswer, now);
    writer.apply_from(7, list(&[1, 2, 3, 4]), Origin::Push, now);
    // A list says where it is from, whether the connection was told before or not.
    writer.apply_from(9, list(&[]), Origin::Push, now);
    assert_eq!(script.sub.status(), Status::Held { instances: 4 });
    script.writer.apply_from(7, list(&[]), Origin::Push, now);
    script.writer.apply_from(9, list(&[1]), Origin::Push, now);
    assert_eq!(script.sub.status(), Status::Held { instances: 3 });
    assert_eq!(script.callable(), addresses(1..=4));
}

#[test]
fn r4_more_than_a_fifth_missing_is_held() {
    let mut script = Script::listing(all(1..=10));
    let recorder = script.sub.attach(Recorder::new);
    let mut changes = script.sub.changes();
    drain(&mut changes);
    script.reconnect(1.0).first(all(4..=10));
    assert_eq!(script.callable(), addresses(1..=10));
    assert_eq!(script.sub.status(), Status::Held { instances: 3 });
    assert_eq!(
        recorder.take_transitions(),
        [],
        "gates stay, with their history"
    );
    let seen = drain(&mut changes);
    assert_eq!(seen.len(), 3);
    assert!(
        seen.iter()
            .all(|change| change.held && change.kind == ChangeKind::Updated)
    );
    assert!(script.explain(1).contains("held by the collapse guard"));
    let counters = script.writer.counters();
    assert_eq!((counters.held, counters.collapses), (3, 1));
}

#[test]
fn r4_a_restarted_registry_empties_nobody() {
    // As measured: an empty first answer, an empty push, then the providers one by one.
    let mut script = Script::listing(all([1, 2, 3]));
    let recorder = script.sub.attach(Recorder::new);
    script.reconnect(15.0).first(all([]));
    script.after(0.6).push(all([]));
    assert_eq!(script.callable(), addresses([1, 2, 3]));
    script.after(1.0).push(all([2]));
    script.after(1.4).push(all([2, 1]));
    assert_eq!(script.sub.status(), Status::Held { instances: 1 });
    script.after(1.1).push(all([1, 2, 3]));
    assert_eq!(script.sub.status(), Status::Fresh);
    assert_eq!(recorder.take_transitions(), []);
    assert_eq!(script.writer.poll_timeout(), None);
}

#[test]
fn what_a_lagging_answer_may_not_bring_back_does_not_count_as_remaining() {
    // 1 left by a push. A server that just restarted lists it again, and not 2, which serves on.
    let mut script = Script::listing(all([1, 2]));
    script.push(all([2]));
    script.reconnect(0.5).first(all([1]));
    assert_eq!(script.callable(), addresses([2]));
    assert_eq!(script.sub.status(), Status::Held { instances: 1 });
    // The push that follows decides about 1, and 2 registers again.
    script.after(0.6).push(all([1]));
    script.after(1.0).push(all([1, 2]));
    assert_eq!(script.callable(), addresses([1, 2]));
    assert_eq!(script.sub.status(), Status::Fresh);
}

#[test]
fn r4_the_last_departure_during_an_outage_shows_after_a_minute() {
    let mut script = Script::listing(all([1]));
    let mut changes = script.sub.changes();
    drain(&mut changes);
    script.reconnect(5.0).first(all([]));
    script.pass(59.9);
    assert_eq!(script.callable(), addresses([1]));
    script.pass(0.2);
    assert_eq!(script.callable(), []);
    assert_eq!(
        removed(&drain(&mut changes)),
        [(at(1), RemovalCause::HoldEnded)]
    );
    assert_eq!(script.writer.counters().collapses_obeyed, 1);
    let text = script.explain(1);
    assert!(
        text.contains("no longer held") && text.contains("last listed 70.0 s"),
        "{text}"
    );
    assert_eq!(script.writer.poll_timeout(), None);
}

#[test]
fn r4_each_growth_starts_the_minute_anew_up_to_three_minutes() {
    let mut script = Script::listing(all(1..=10));
    script.reconnect(1.0).first(all([]));
    let began = script.now;
    for n in 1..=3 {
        script.pass(50.0).push(all(1..=n));
        assert_eq!(script.callable().len(), 10, "growing");
    }
    script.pass(29.0);
    assert_eq!(script.callable().len(), 10);
    script.pass(1.1);
    assert_eq!(script.now.duration_since(began).as_secs(), 180);
    assert_eq!(script.callable(), addresses(1..=3));
}

#[test]
fn r4_a_list_that_does_not_grow_starts_nothing_anew() {
    let mut script = Script::listing(all(1..=10));
    script.reconnect(1.0).first(all([1, 2]));
    script.pass(50.0).push(all([1, 3])); // one came, one went: not longer
    assert_eq!(script.callable(), addresses([1].into_iter().chain(3..=10)));
    script.pass(10.1);
    assert_eq!(script.callable(), addresses([1, 3]));
}

#[test]
fn r4_another_reconnect_starts_the_minute_anew_but_not_the_limit() {
    let mut script = Script::listing(all([1, 2, 3]));
    script.reconnect(1.0).first(all([]));
    for _ in 0..3 {
        script.pass(49.0).reconnect(1.0).first(all([]));
        assert_eq!(script.callable().len(), 3);
    }
    script.pass(29.9);
    assert_eq!(script.callable().len(), 3);
    script.pass(0.2);
    assert_eq!(script.callable(), []);
}

#[test]
fn r4_no_hold_ends_by_time_while_disconnected() {
    let mut script = Script::listing(all([1, 2, 3]));
    script.reconnect(1.0).first(all([]));
    script.pass(10.0);
    script.writer.handle_disconnected(script.now);
    script.pass(1000.0);
    script.writer.handle_timeout(script.now); // a driver that was late to hear of the loss
    assert_eq!(
        script.callable().len(),
        3,
        "G7: the last set serves without limit"
    );
    script.writer.handle_connected(script.now);
    script.pass(5.0);
    assert_eq!(
        script.callable().len(),
        3,
        "not before the registry answers"
    );
    script.first(all([2]));
    assert_eq!(
        script.callable(),
        addresses([2]),
        "then the three minutes have long passed"
    );
}

#[test]
fn r4_seen_on_this_connection_and_then_missing_is_a_real_removal() {
    let mut script = Script::listing(all([1, 2, 3]));
    script.reconnect(1.0).first(all([]));
    script.after(1.0).push(all([1, 2]));
    script.after(1.0).push(all([2]));
    assert_eq!(script.callable(), addresses([2, 3]));
    assert_eq!(script.sub.status(), Status::Held { instances: 1 });
}

#[test]
fn r4_a_hold_ends_when_a_connection_to_the_instance_fails() {
    let mut script = Script::listing(all([1, 2, 3]));
    script.reconnect(1.0).first(all([]));
    let mut changes = script.sub.changes();
    drain(&mut changes);
    let (generation, now) = (script.generation(1), script.now);
    script.writer.report_unreachable(&at(1), generation, now);
    assert_eq!(script.callable(), addresses([2, 3]));
    assert_eq!(
        removed(&drain(&mut changes)),
        [(at(1), RemovalCause::HoldEnded)]
    );
    // Nobody else is touched, nor is one that is listed, nor another generation.
    script.push(all([2]));
    let generation = script.generation(2);
    script.sub.report_unreachable(&at(2), generation, now);
    script.sub.report_unreachable(&at(3), generation, now);
    assert_eq!(script.callable(), addresses([2, 3]));
    let generation = script.generation(3);
    script.sub.report_unreachable(&at(3), generation, now);
    assert_eq!(script.callable(), addresses([2]));
    // Listed again, it is new.
    script.push(all([1, 2]));
    assert!(script.generation(1) > generation);
}

#[test]
fn r4_only_what_was_callable_is_held() {
    let mut script = Script::listing(all([]));
    script.push(vec![
        a(1),
        a(2),
        a(3).with_weight(0.0),
        a(4).with_healthy(false),
    ]);
    script.after(5.0).reconnect(1.0).first(all([]));
    assert_eq!(script.callable(), addresses([1, 2]));
    assert_eq!(script.sub.snapshot().entries().len(), 2);
}

#[test]
fn r4_a_first_answer_in_which_nobody_is_callable_is_no_remainder() {
    let mut script = Script::listing(all([1, 2]));
    script.reconnect(1.0).first(vec![a(2).with_weight(0.0)]);
    // 1 of 2 missing would be believed, but nothing callable would remain.
    assert_eq!(script.callable(), addresses([1]));
    assert_eq!(held(&script), 1);
    let mut script = Script::with(Options::default().on_all_unhealthy(OnAllUnhealthy::FailFast));
    script.push(all([1, 2]));
    script
        .after(5.0)
        .reconnect(1.0)
        .first(vec![a(2).with_healthy(false)]);
    assert_eq!(script.callable(), addresses([1]));
}

#[test]
fn outside_of_a_reconnect_a_list_is_obeyed_at_once() {
    let mut script = Script::listing(all(1..=10));
    script.push(all([1]));
    assert_eq!(script.callable(), addresses([1]));
    script.push(all([]));
    assert_eq!(script.callable(), []);
    assert_eq!(script.writer.counters().held, 0);
}

#[test]
fn the_first_connection_is_no_reconnect() {
    let mut script = Script::new();
    script.writer.handle_disconnected(script.now); // a first attempt failed
    script.writer.handle_connected(script.now);
    script.first(all([1, 2]));
    script.push(all([]));
    assert_eq!(script.callable(), []);
}

#[test]
fn a_push_that_comes_before_the_first_answer_is_guarded_as_well() {
    let mut script = Script::listing(all([1, 2, 3]));
    script.reconnect(1.0).push(all([]));
    assert_eq!(script.callable(), addresses([1, 2, 3]));
}

#[test]
fn a_connection_reset_is_a_reconnect_without_a_gap() {
    let mut script = Script::listing(all([1, 2, 3]));
    script.writer.handle_connected(script.now);
    let moved = Status::Stale { since: script.now };
    assert_eq!(script.sub.status(), moved, "the new one has not answered");
    script.pass(1_000.0);
    assert_eq!(script.sub.status(), moved, "and may refuse every subscribe");
    assert_eq!(script.callable(), addresses([1, 2, 3]));
    script.first(all([]));
    assert_eq!(script.sub.status(), Status::Held { instances: 3 });
    script.push(all([1, 2, 3]));
    assert_eq!(script.sub.status(), Status::Fresh);
}

#[test]
fn a_guard_against_mass_drops_is_opt_in() {
    let guard = MassDrop {
        share: 0.5,
        minimum: 3,
        hold: Duration::from_secs(20),
    };
    let mut script = Script::with(Options::default().mass_drop(guard));
    script.push(all(1..=4));
    script.push(all(3..=4));
    assert_eq!(
        script.callable(),
        addresses([3, 4]),
        "fewer than the minimum"
    );
    script.push(all(1..=10));
    script.push(all(1..=2));
    assert_eq!(script.callable(), addresses(1..=10));
    script.pass(19.0).push(all(1..=2));
    assert_eq!(
        script.callable(),
        addresses(1..=10),
        "the same list again is nothing new"
    );
    script.pass(1.1);
    assert_eq!(script.callable(), addresses(1..=2));
}

#[test]
fn held_instances_are_held_in_every_selection() {
    let hz = |n| a(n).with_cluster("HZ");
    let mut script = Script::listing(vec![hz(1), hz(2), a(3)]);
    let view = script.sub.only_cluster("HZ");
    script.reconnect(1.0).first(vec![a(3)]);
    assert_eq!(callable(&view), addresses([1, 2]));
    script.pass(60.1);
    assert_eq!(callable(&view), []);
}

#[test]
fn times_without_end_are_taken_as_such() {
    let mut script = Script::with(Options {
        hold: Duration::MAX,
        hold_limit: Duration::MAX,
        unknown_while_empty: Duration::MAX,
        ..Options::default()
    });
    script.first(all([]));
    script.push(all([1]));
    script.after(5.0).reconnect(1.0).first(all([]));
    assert_eq!(script.writer.poll_timeout(), None);
    script.pass(1e6);
    script.writer.handle_timeout(script.now);
    assert_eq!(script.callable(), addresses([1]));
}

#[test]
fn r4_the_registry_is_asked_once_shortly_before_a_hold_ends() {
    let mut script = Script::listing(all(1..=10));
    script.reconnect(1.0).first(all(5..=10));
    script.pass(53.9);
    assert!(!script.writer.take_read_wanted());
    script.pass(0.2);
    assert!(script.writer.take_read_wanted());
    assert!(!script.writer.take_read_wanted(), "once");
    // The answer shows that the pushes of their return were lost.
    script.read(all(1..=10));
    assert_eq!(script.sub.status(), Status::Fresh);
    script.pass(100.0);
    assert_eq!(script.callable(), addresses(1..=10));
    assert!(!script.writer.take_read_wanted());
}

#[test]
fn r4_a_hold_that_grows_is_asked_about_before_its_new_end() {
    let mut script = Script::listing(all(1..=10));
    script.reconnect(1.0).first(all(5..=10));
    script.pass(55.0);
    assert!(script.writer.take_read_wanted());
    script.read(all(4..=10));
    script.pass(50.0);
    assert!(!script.writer.take_read_wanted());
    script.pass(5.0);
    assert!(script.writer.take_read_wanted());
    script.read(all(4..=10));
    script.pass(6.0);
    assert_eq!(
        script.callable(),
        addresses(4..=10),
        "and obeyed in the end"
    );
}

#[test]
fn r4_holds_that_end_soon_after_each_other_are_asked_about_in_their_time() {
    let mut script = Script::listing(all(1..=10));
    script.reconnect(1.0).first(all(5..=10));
    for _ in 0..3 {
        script.reconnect(2.0).first(all([10])); // 5 to 9 begin later
        script.pass(50.0);
    }
    script.reconnect(2.0).first(all([10])); // 158 s after the beginning of the first
    script.pass(16.5); // `pass` fails if the writer is due again at once
    assert!(script.writer.take_read_wanted());
    script.pass(1.0);
    assert!(!script.writer.take_read_wanted());
    script.pass(1.0);
    assert!(script.writer.take_read_wanted(), "the second ones");
    script.pass(4.0);
    assert_eq!(script.callable(), addresses(5..=10));
    script.pass(2.0);
    assert_eq!(script.callable(), addresses([10]));
}

/// It lists whom nobody knows, and none of those that live.
#[test]
fn r4_a_first_answer_that_lies_evicts_nobody_and_the_next_push_decides() {
    let mut script = Script::listing(all(1..=3));
    let before = script.generation(1);
    script.reconnect(1.0).first(all(7..=9));
    assert_eq!(script.callable(), addresses([1, 2, 3, 7, 8, 9]));
    script.after(0.6).push(all(1..=3));
    assert_eq!(script.callable(), addresses(1..=3));
    assert_eq!(script.generation(1), before, "it was there throughout");
    assert_eq!(script.sub.status(), Status::Fresh);
    // Everybody is unhealthy, disabled or without weight in it.
    script.reconnect(1.0).first(vec![
        a(1).with_weight(0.0),
        a(2).with_enabled(false),
        a(3).with_healthy(false),
    ]);
    script.after(0.6).push(all(1..=3));
    assert_eq!(script.callable(), addresses(1..=3));
    assert_eq!(script.generation(1), before);
}

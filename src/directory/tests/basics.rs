//! Lists, snapshots and changes on an intact connection (D1 to D6, D9, D13, D15).

use std::{sync::Arc, task::Poll, time::Duration};

use super::support::{
    Recorder, Script, a, addresses, all, at, callable, drain, fold, meta, now_or_never, poll,
    removed, start,
};
use crate::{
    directory::{ChangeKind, Origin, RemovalCause, Revision, Standing, Status, TransitionKind},
    model::{Instance, Listing, Rejected},
};

#[test]
fn d1_the_first_answer_is_the_initial_set() {
    let mut script = Script::new();
    assert_eq!(script.sub.status(), Status::Unknown);
    assert!(!script.sub.snapshot().is_known());
    assert!(now_or_never(script.sub.ready()).is_pending());
    let revision = script.first(all([1, 2]));
    assert_eq!(revision, Revision(1));
    assert_eq!(script.callable(), addresses([1, 2]));
    assert_eq!(now_or_never(script.sub.ready()), Poll::Ready(Ok(())));
    assert_eq!(script.sub.status(), Status::Fresh);
}

#[test]
fn d2_pushes_add_remove_and_modify() {
    let mut script = Script::listing(all([1, 2]));
    let mut changes = script.sub.changes();
    assert_eq!(drain(&mut changes).len(), 2);
    script.push(vec![a(3), a(2).with_cluster("HZ")]);
    let seen = drain(&mut changes);
    assert_eq!(removed(&seen[..1]), [(at(1), RemovalCause::GoneFromList)]);
    assert_eq!(
        seen[1..]
            .iter()
            .map(|c| (c.instance.address().clone(), c.kind))
            .collect::<Vec<_>>(),
        [(at(2), ChangeKind::Updated), (at(3), ChangeKind::Added)]
    );
    assert!(seen.iter().all(|change| change.revision == Revision(2)));
    assert!(
        seen.iter()
            .all(|change| change.received_at == Some(script.now))
    );
}

#[test]
fn d3_the_last_instance_can_leave() {
    let mut script = Script::listing(all([1]));
    script.push(Vec::new());
    assert!(script.sub.snapshot().is_known());
    assert_eq!(script.sub.snapshot().entries().len(), 0);
    assert!(
        script.explain(1).contains("lists it no longer"),
        "{}",
        script.explain(1)
    );
}

#[test]
fn d5_a_weight_change_is_in_place() {
    let mut script = Script::listing(all([1, 2]));
    let generation = script.generation(1);
    let mut changes = script.sub.changes();
    drain(&mut changes);
    script.push(vec![a(1).with_weight(5.0), a(2)]);
    assert_eq!(script.generation(1), generation);
    let seen = drain(&mut changes);
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].kind, ChangeKind::Updated);
    assert_eq!(seen[0].instance.weight().get(), 5.0);
}

#[test]
fn d12_two_services_share_nothing() {
    let mut one = Script::listing(all([1]));
    let two = Script::listing(all([2]));
    one.push(all([1, 3]));
    assert_eq!(two.callable(), addresses([2]));
    assert_eq!(two.sub.revision(), Revision(1));
}

#[test]
fn d13_a_late_subscriber_gets_the_current_set() {
    let mut script = Script::listing(all([1, 2]));
    script.push(all([2, 3]));
    let late = script.writer.subscribe();
    assert_eq!(callable(&late), addresses([2, 3]));
    let seen = drain(&mut late.changes());
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|change| change.kind == ChangeKind::Added));
}

#[test]
fn d15_an_unknown_service_is_empty_and_may_appear_later() {
    let mut script = Script::new();
    script.writer.handle_connected(script.now);
    script.first(Vec::new());
    assert_eq!(now_or_never(script.sub.ready()), Poll::Ready(Ok(())));
    assert!(
        !script.sub.snapshot().is_known(),
        "a registry that just started says so, too"
    );
    script.after(0.6).push(Vec::new());
    assert!(!script.sub.snapshot().is_known());
    script.pass(3.0);
    assert!(script.sub.snapshot().is_known());
    let revision = script.sub.revision();
    script.push(all([1]));
    assert_eq!(script.callable(), addresses([1]));
    assert!(script.sub.revision() > revision);
}

#[test]
fn nor_does_an_empty_push_that_overtook_the_first_answer_mean_that_there_is_nobody() {
    let mut script = Script::new();
    script.writer.handle_connected(script.now);
    script.push(Vec::new());
    assert!(!script.sub.snapshot().is_known());
    script.pass(3.0);
    assert!(script.sub.snapshot().is_known());
}

#[test]
fn a_first_answer_that_was_empty_counts_as_unknown_only_until_an_instance_comes() {
    let mut script = Script::new();
    script.first(Vec::new());
    script.after(1.0).push(all([1]));
    assert!(script.sub.snapshot().is_known());
    assert_eq!(script.writer.poll_timeout(), None);
    script.push(Vec::new());
    assert!(script.sub.snapshot().is_known());
}

#[test]
fn an_identical_list_in_another_order_is_no_revision_and_wakes_nobody() {
    let mut script = Script::listing(all(1..50));
    let snapshot = script.sub.snapshot();
    let recorder = script.sub.attach(Recorder::new);
    let mut changes = script.sub.changes();
    drain(&mut changes);
    let mut waiting = Box::pin(script.sub.applied(Revision(99)));
    assert!(now_or_never(waiting.as_mut()).is_pending());
    let unchanged = script.writer.counters().unchanged;
    script.writer.publish((1..50).rev().map(a), script.now);
    assert!(Arc::ptr_eq(&snapshot, &script.sub.snapshot()));
    assert!(recorder.take_calls().is_empty());
    assert!(poll(&mut changes).is_pending());
    assert_eq!(script.writer.counters().unchanged, unchanged + 1);
    assert_eq!(
        script.sub.age(script.now),
        Some(Duration::ZERO),
        "but it was heard"
    );
}

#[test]
fn what_did_not_change_is_shared_between_snapshots() {
    let mut script = Script::listing(all(1..10));
    let before = script.sub.snapshot();
    script.push(all(2..10));
    let after = script.sub.snapshot();
    for entry in after.entries() {
        let old = before.find(entry.instance().address()).unwrap();
        assert!(Arc::ptr_eq(old.instance(), entry.instance()));
        assert_eq!(old.generation(), entry.generation());
    }
}

#[test]
fn a_host_that_cannot_be_used_is_left_out_and_the_rest_is_applied() {
    let mut script = Script::listing(all(1..=1000));
    let list = Listing::new(all(1..=998))
        .with_rejected(vec![Rejected::new(at(999).to_string(), "port is a string")]);
    script.apply(list, Origin::Push);
    assert_eq!(script.callable().len(), 998);
    assert!(
        script
            .explain(999)
            .contains("cannot be used: port is a string"),
        "{}",
        script.explain(999)
    );
    assert!(script.explain(1000).contains("lists it no longer"));
    assert_eq!(script.writer.counters().hosts_rejected, 1);
}

#[test]
fn a_list_with_no_usable_host_keeps_the_former_set() {
    let mut script = Script::listing(all([1, 2]));
    let bad = Listing::new([]).with_rejected(vec![Rejected::new("?", "no port")]);
    script.apply(bad, Origin::Push);
    assert_eq!(script.callable(), addresses([1, 2]));
    assert_eq!(script.sub.status(), Status::Undecodable);
    script.push(all([2]));
    assert_eq!(script.sub.status(), Status::Fresh);
    script.writer.handle_undecodable("truncated", script.now);
    assert_eq!(script.sub.status(), Status::Undecodable);
    assert_eq!(script.callable(), addresses([2]));
    assert_eq!(script.writer.counters().undecodable, 2);
}

#[test]
fn a_change_stream_begins_when_it_is_made_not_when_it_is_polled() {
    let mut script = Script::listing(all([1, 2]));
    let mut changes = script.sub.changes();
    script.push(all([2]));
    let seen = drain(&mut changes);
    assert_eq!(seen.len(), 3);
    assert_eq!(removed(&seen), [(at(1), RemovalCause::GoneFromList)]);
}

#[test]
fn a_slow_reader_sees_the_difference_not_the_way() {
    let mut script = Script::listing(all([1, 2]));
    let mut changes = script.sub.changes();
    drain(&mut changes);
    for n in 0..1000 {
        script.push(all([1, 3 + n]));
    }
    let seen = drain(&mut changes);
    assert_eq!(removed(&seen), [(at(2), RemovalCause::GoneFromList)]);
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[1].instance.address(), &at(1002));
}

#[test]
fn a_change_stream_ends_with_shutdown_and_the_last_set_serves() {
    let script = Script::listing(all([1, 2]));
    let Script { writer, sub, .. } = script;
    let mut changes = sub.changes();
    let mut set = Default::default();
    fold(&mut set, &drain(&mut changes));
    writer.close();
    let seen = drain(&mut changes);
    assert_eq!(
        removed(&seen),
        [
            (at(1), RemovalCause::Shutdown),
            (at(2), RemovalCause::Shutdown)
        ]
    );
    fold(&mut set, &seen);
    assert!(set.is_empty());
    assert!(matches!(poll(&mut changes), Poll::Ready(None)));
    assert_eq!(callable(&sub), addresses([1, 2]));
    assert_eq!(sub.status(), Status::Closed);
}

#[test]
fn a_fixed_set_serves_without_a_registry() {
    let sub = crate::directory::Subscription::fixed([a(1), a(2).with_weight(0.0)]);
    assert!(sub.snapshot().is_known());
    assert_eq!(callable(&sub), addresses([1]));
    assert_eq!(sub.status(), Status::Fresh);
    assert_eq!(sub.revision(), Revision(1));
    assert_eq!(now_or_never(sub.ready()), Poll::Ready(Ok(())));
    assert_eq!(sub.age(start()), None);
}

#[test]
fn an_explanation_says_when_a_departed_instance_was_last_listed() {
    let mut script = Script::listing(all([1, 2]));
    script.push(all([1, 2])); // last listed now
    script.after(7.0).push(all([2]));
    script.after(3.0).push(all([2]));
    let text = script.explain(1);
    assert!(text.contains("last listed 10.0 s before"), "{text}");
    assert!(script.explain(2).contains("callable"));
    assert!(script.explain(3).contains("not listed, nor was it"));
    script.after(600.0).push(all([2]));
    assert!(
        script.explain(1).contains("not listed, nor was it"),
        "{}",
        script.explain(1)
    );
}

#[test]
fn no_more_than_64_departures_are_remembered() {
    let mut script = Script::listing(all(1..=100));
    script.push(all([100]));
    let remembered = (1..=99).filter(|n| script.explain(*n).contains("gone"));
    assert_eq!(remembered.count(), 64);
}

#[test]
fn a_lower_stamp_is_applied_and_counted() {
    let mut script = Script::listing(all([1, 2]));
    let stamped = |instances, stamp| Listing::new(instances).with_stamp(stamp);
    script.apply(stamped(all([1, 2]), 5_000_000), Origin::Push);
    // O1, as the design replaces it: the server's clock steps back an hour.
    script.apply(stamped(all([1]), 1_400_000), Origin::Push);
    assert_eq!(script.callable(), addresses([1]));
    assert_eq!(script.writer.counters().older_stamps, 1);
    // O2: an equal stamp is applied, too.
    script.apply(stamped(all([1, 3]), 1_400_000), Origin::Push);
    assert_eq!(script.callable(), addresses([1, 3]));
    // O3: another connection, another node's clock.
    script.reconnect(1.0);
    script.apply(stamped(all([1, 3]), 7), Origin::FirstAnswer);
    script.after(5.0);
    script.apply(stamped(all([3]), 8), Origin::Push);
    assert_eq!(script.callable(), addresses([3]));
    assert_eq!(script.writer.counters().older_stamps, 1);
}

#[test]
fn an_entry_says_why_it_is_not_callable() {
    let mut script = Script::listing(all([1]));
    script.push(vec![
        a(1),
        a(2).with_weight(0.0),
        a(3).with_enabled(false),
        a(4).with_healthy(false),
    ]);
    let snapshot = script.sub.snapshot();
    let standing = |n| snapshot.find(&at(n)).unwrap().standing();
    assert_eq!(standing(1), Standing::Callable);
    assert_eq!(standing(2), Standing::WeightZero);
    assert_eq!(standing(3), Standing::Disabled);
    assert_eq!(standing(4), Standing::Unhealthy);
    assert!(script.explain(2).contains("its weight is 0"));
}

#[test]
fn metadata_changes_in_place() {
    let mut script = Script::listing(vec![a(1).with_metadata(meta(&[("zone", "a")]))]);
    let recorder = script.sub.attach(Recorder::new);
    script.push(vec![a(1).with_metadata(meta(&[("zone", "b")]))]);
    assert_eq!(
        recorder.take_transitions(),
        [(at(1), TransitionKind::Updated)]
    );
}

#[test]
fn instances_without_a_cluster_of_their_own_share_its_name() {
    let named = |n: u16| Instance::new(at(n)).with_cluster(String::from("HZ"));
    let script = Script::listing((1..=3).map(named).collect());
    let snapshot = script.sub.snapshot();
    let cluster = snapshot.entries()[0].instance().cluster();
    assert!(
        snapshot
            .entries()
            .iter()
            .all(|e| Arc::ptr_eq(e.instance().cluster(), cluster))
    );
}

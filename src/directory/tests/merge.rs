//! Several subscriptions as one.

use std::{
    sync::{Arc, Mutex},
    task::Poll,
};

use super::support::{
    Recorder, Script, a, addresses, all, at, callable, drain, key, meta, now_or_never, poll,
    removed,
};
use crate::{
    directory::{
        Attached, ChangeKind, Consumer, Finding, OnAllUnhealthy, Options, RemovalCause, Revision,
        Snapshot, Standing, Status, Subscription, Transition, channel,
    },
    model::{Address, Origin, ServiceKey},
};

fn merged(sources: &[(&Script, u8)]) -> Subscription {
    Subscription::merge(sources.iter().map(|(script, tier)| (&script.sub, *tier)))
}

fn weight(sub: &Subscription, n: u16) -> f64 {
    let snapshot = sub.snapshot();
    snapshot.find(&at(n)).unwrap().instance().weight().get()
}

fn tier(sub: &Subscription, n: u16) -> u8 {
    let snapshot = sub.snapshot();
    let entry = snapshot.find(&at(n)).unwrap();
    entry.instance().source().unwrap().tier()
}

#[test]
fn it_shows_what_all_sources_list_each_instance_with_its_source() {
    let mut near = Script::listing(all([1, 2]));
    let far = Script::listing(all([2, 3]));
    let both = merged(&[(&far, 1), (&near, 0)]);
    assert_eq!(callable(&both), addresses([1, 2, 3]));
    assert_eq!([tier(&both, 1), tier(&both, 2), tier(&both, 3)], [0, 0, 1]);
    near.after(1.0).push(all([2, 4]));
    assert_eq!(callable(&both), addresses([2, 3, 4]));
}

#[test]
fn an_address_is_one_endpoint_while_either_lists_it() {
    let mut near = Script::listing(vec![a(1).with_weight(2.0)]);
    let mut far = Script::listing(vec![a(1).with_weight(5.0)]);
    let both = merged(&[(&near, 0), (&far, 1)]);
    let generation = both.snapshot().find(&at(1)).unwrap().generation();
    let mut changes = both.changes();
    assert_eq!(drain(&mut changes).len(), 1);
    assert_eq!((weight(&both, 1), tier(&both, 1)), (2.0, 0));
    near.after(1.0).push(all([]));
    assert_eq!((weight(&both, 1), tier(&both, 1)), (5.0, 1));
    assert_eq!(drain(&mut changes)[0].kind, ChangeKind::Updated);
    near.after(1.0).push(vec![a(1).with_weight(3.0)]);
    assert_eq!((weight(&both, 1), tier(&both, 1)), (3.0, 0));
    near.after(1.0).push(all([]));
    far.after(1.0).push(vec![a(1).with_weight(7.0)]);
    assert_eq!(weight(&both, 1), 7.0);
    let seen = both.snapshot().find(&at(1)).unwrap().generation();
    assert_eq!(seen, generation, "it never was absent");
    drain(&mut changes);
    far.after(1.0).push(all([]));
    assert_eq!(
        removed(&drain(&mut changes)),
        [(at(1), RemovalCause::GoneFromList)]
    );
    far.after(1.0).push(all([1]));
    let again = both.snapshot().find(&at(1)).unwrap().generation();
    assert_ne!(again, generation);
}

#[test]
fn a_restart_is_one_when_the_source_that_counts_says_so() {
    let born = |time: &str| a(1).with_metadata(meta(&[("startTime", time)]));
    let mut near = Script::listing(vec![born("1")]);
    let mut far = Script::listing(vec![born("1")]);
    let both = merged(&[(&near, 0), (&far, 0)]);
    let generation = || both.snapshot().find(&at(1)).unwrap().generation();
    let first = generation();
    far.after(1.0).push(vec![born("2")]);
    assert_eq!(generation(), first);
    near.after(1.0).push(vec![born("2")]);
    let second = generation();
    assert_ne!(second, first);
    // Two registries may each be told another time of the same start.
    far.after(1.0).push(vec![born("2.1")]);
    near.after(1.0).push(all([]));
    assert_eq!(generation(), second);
}

#[test]
fn what_the_last_source_drops_is_shut_before_its_writer_returns() {
    let mut near = Script::listing(all([1, 2]));
    let mut far = Script::listing(all([1, 2]));
    let both = merged(&[(&near, 0), (&far, 1)]);
    let gates: Attached<Recorder> = both.attach(Recorder::new);
    let open = || gates.open().into_iter().map(|(a, _)| a).collect::<Vec<_>>();
    near.after(1.0).push(all([2]));
    assert_eq!(open(), addresses([1, 2]));
    gates.take_calls();
    far.after(1.0).push(all([2]));
    assert_eq!(open(), addresses([2]));
    let calls = gates.take_calls();
    assert_eq!(calls.len(), 3, "close, reopen, wake: {calls:?}");
}

/// What a merged set shows as one of its sources is about to publish.
struct Witness(Subscription, Mutex<Vec<Vec<Address>>>);

impl Consumer for Witness {
    fn close(&self, _: &Arc<Snapshot>, _: &[Transition]) {
        self.1.lock().unwrap().push(callable(&self.0));
    }

    fn reopen(&self, _: &Arc<Snapshot>, _: &[Transition]) {}

    fn wake(&self) {}

    fn quiet(&self) -> Revision {
        Revision(u64::MAX)
    }
}

#[test]
fn the_merged_set_is_never_behind_what_a_source_has_published() {
    let mut near = Script::listing(all([1, 2]));
    let far = Script::listing(all([3]));
    let both = merged(&[(&near, 0), (&far, 1)]);
    let witness: Attached<Witness> = near
        .sub
        .attach(|_, _| Arc::new(Witness(both, Mutex::default())));
    near.after(1.0).push(all([2, 4]));
    near.after(1.0).push(all([]));
    let seen = witness.1.lock().unwrap();
    assert_eq!(*seen, [addresses([2, 3, 4]), addresses([3])]);
}

#[test]
fn a_source_is_applied_when_the_merged_set_s_consumers_are_quiet() {
    let mut near = Script::listing(all([1, 2]));
    let far = Script::listing(all([3]));
    let both = merged(&[(&near, 0), (&far, 0)]);
    let gates: Attached<Recorder> = both.attach(Recorder::new);
    let before = near.sub.applied_revision();
    assert_eq!(before, near.sub.revision());
    gates.state.lock().unwrap().prompt = false;
    let revision = near.after(1.0).push(all([2]));
    assert!(both.applied_revision() < both.revision());
    assert_eq!(near.sub.applied_revision(), before);
    assert_eq!(far.sub.applied_revision(), far.sub.revision());
    let mut applied = Box::pin(near.sub.applied(revision));
    let cx = &mut std::task::Context::from_waker(std::task::Waker::noop());
    assert!(applied.as_mut().poll(cx).is_pending());
    let rung = near.sub.handle.shared.changed.rung();
    let mut rung = Box::pin(rung);
    rung.as_mut().enable();
    gates.become_quiet(both.revision());
    assert!(
        rung.as_mut().poll(cx).is_ready(),
        "the source's waiters look"
    );
    assert_eq!(near.sub.applied_revision(), revision);
    assert!(applied.as_mut().poll(cx).is_ready());
}

#[test]
fn it_is_known_once_somebody_may_be_called_or_all_have_answered() {
    let (mut near, mut far) = (Script::new(), Script::new());
    let both = merged(&[(&near, 0), (&far, 1)]);
    assert_eq!(both.status(), Status::Unknown);
    assert_eq!(both.revision(), Revision::default());
    assert!(now_or_never(both.ready()).is_pending());
    far.writer.handle_connected(far.now);
    far.first(all([]));
    assert!(
        now_or_never(both.ready()).is_pending(),
        "the other may have some"
    );
    far.pass(4.0);
    assert!(far.sub.snapshot().is_known() && !both.snapshot().is_known());
    far.push(all([3]));
    assert!(both.snapshot().is_known());
    assert_eq!(now_or_never(both.ready()), Poll::Ready(Ok(())));
    assert_eq!(
        both.status(),
        Status::Unknown,
        "of one nothing is known yet"
    );
    near.writer.handle_connected(near.now);
    near.first(all([]));
    assert_eq!(both.status(), Status::Fresh);
    assert_eq!(callable(&both), addresses([3]));
}

/// While a service moves: the registry that it moves to has not answered yet, and lists it.
#[test]
fn who_is_not_listed_is_gone_once_every_source_has_answered() {
    let old = Script::listing(all([1]));
    let (mut new, closed) = (Script::new(), Script::new());
    let inner = merged(&[(&new, 0), (&closed, 0)]);
    let both = Subscription::merge([(&old.sub, 0), (&inner, 1)]);
    let (second, third) = (at(2), at(3));
    let mut gone = Box::pin(both.wait_gone(&second));
    assert!(
        now_or_never(gone.as_mut()).is_pending(),
        "two have not answered"
    );
    new.first(all([2]));
    assert!(
        now_or_never(gone.as_mut()).is_pending(),
        "it is listed, and another has not answered"
    );
    let mut never = Box::pin(both.wait_gone(&third));
    assert!(now_or_never(never.as_mut()).is_pending());
    let mut rung = Box::pin(both.handle.shared.changed.rung());
    rung.as_mut().enable();
    closed.writer.close();
    assert!(now_or_never(rung).is_ready(), "who waits for it looks");
    assert_eq!(now_or_never(never.as_mut()), Poll::Ready(Ok(())));
    assert!(now_or_never(gone.as_mut()).is_pending());
    new.after(1.0).push(all([]));
    assert_eq!(now_or_never(gone.as_mut()), Poll::Ready(Ok(())));
    // Who is there is there whoever has not answered.
    let half = merged(&[(&old, 0), (&Script::new(), 0)]);
    let listed = |snapshot: &Snapshot| snapshot.find(&at(1)).is_some();
    assert!(now_or_never(half.wait_until(listed)).is_ready());
}

#[test]
fn all_empty_is_known_to_be_empty() {
    let (mut near, mut far) = (Script::new(), Script::new());
    let both = merged(&[(&near, 0), (&far, 1)]);
    for script in [&mut near, &mut far] {
        script.writer.handle_connected(script.now);
        script.first(all([]));
    }
    assert_eq!(now_or_never(both.ready()), Poll::Ready(Ok(())));
    assert!(
        !both.snapshot().is_known(),
        "a registry that just started says so too"
    );
    near.pass(3.1);
    assert!(!both.snapshot().is_known());
    far.pass(3.1);
    assert!(both.snapshot().is_known() && both.snapshot().entries().is_empty());
}

#[test]
fn a_source_that_is_away_keeps_its_last_set_and_its_coming_back_is_guarded() {
    let mut near = Script::listing(all([1, 2, 3]));
    let far = Script::listing(all([4]));
    let both = merged(&[(&near, 0), (&far, 0)]);
    let mut seen = both.status_changes();
    assert_eq!(now_or_never(seen.next()), Poll::Ready(Some(Status::Fresh)));
    assert!(now_or_never(seen.next()).is_pending());
    let shared = Arc::clone(&both.handle.shared);
    let mut rung = Box::pin(shared.changed.rung());
    rung.as_mut().enable();
    near.writer.handle_disconnected(near.now);
    assert!(now_or_never(rung).is_ready(), "who waits for it looks");
    near.pass(10_000.0);
    let told = now_or_never(seen.next());
    assert!(
        matches!(told, Poll::Ready(Some(Status::Stale { .. }))),
        "{told:?}"
    );
    assert_eq!(callable(&both), addresses([1, 2, 3, 4]));
    near.writer.handle_connected(near.now);
    near.first(all([]));
    assert_eq!(both.status(), Status::Held { instances: 3 });
    assert!(both.snapshot().find(&at(1)).unwrap().is_held());
    near.pass(61.0);
    assert_eq!(callable(&both), addresses([4]));
    assert_eq!(both.status(), Status::Fresh);
    assert_eq!(both.counters().collapses_obeyed, 1);
}

#[test]
fn one_that_lists_it_goes_before_one_that_merely_holds_it() {
    let mut near = Script::listing(vec![a(1).with_weight(2.0), a(2)]);
    let mut far = Script::listing(vec![a(1).with_weight(5.0)]);
    let both = merged(&[(&near, 0), (&far, 1)]);
    near.reconnect(1.0).first(all([]));
    assert_eq!((weight(&both, 1), tier(&both, 1)), (5.0, 1));
    assert!(!both.snapshot().find(&at(1)).unwrap().is_held());
    far.after(1.0).push(vec![a(1).with_enabled(false)]);
    let standing = both.snapshot().find(&at(1)).unwrap().standing();
    assert_eq!(
        standing,
        Standing::Disabled,
        "the one registry that knows it is obeyed"
    );
}

#[test]
fn a_closed_source_keeps_its_last_set_and_the_merged_one_ends_with_the_last() {
    let near = Script::listing(all([1]));
    let far = Script::listing(all([2]));
    let both = merged(&[(&near, 0), (&far, 0)]);
    let mut changes = both.changes();
    drain(&mut changes);
    near.writer.close();
    assert_eq!(callable(&both), addresses([1, 2]));
    assert_eq!(both.status(), Status::Fresh);
    assert!(poll(&mut changes).is_pending());
    far.writer.close();
    assert_eq!(both.status(), Status::Closed);
    assert_eq!(callable(&both), addresses([1, 2]));
    let causes = [
        (at(1), RemovalCause::Shutdown),
        (at(2), RemovalCause::Shutdown),
    ];
    assert_eq!(removed(&drain(&mut changes)), causes);
    assert_eq!(poll(&mut changes).map(|_| ()), Poll::Ready(()));
}

#[test]
fn sources_that_end_unheard_make_nobody_wait() {
    let (near, far) = (Script::new(), Script::new());
    let both = merged(&[(&near, 0), (&far, 1)]);
    let mut ready = Box::pin(both.ready());
    let cx = &mut std::task::Context::from_waker(std::task::Waker::noop());
    near.writer.close();
    assert!(ready.as_mut().poll(cx).is_pending());
    far.writer.close();
    let Poll::Ready(Err(error)) = ready.as_mut().poll(cx) else {
        panic!("waits on");
    };
    assert!(error.to_string().contains("closed before"), "{error}");
    assert!(both.snapshot().ended);
}

#[test]
fn an_answer_that_cannot_be_read_is_told_when_nobody_has_a_better_one() {
    let (mut near, mut far) = (Script::new(), Script::new());
    let both = merged(&[(&near, 0), (&far, 1)]);
    near.writer.handle_undecodable("not JSON", near.now);
    assert!(now_or_never(both.ready()).is_pending());
    far.writer.handle_undecodable("torn", far.now);
    let Poll::Ready(Err(error)) = now_or_never(both.ready()) else {
        panic!("waits on");
    };
    assert!(error.to_string().contains("not JSON"), "{error}");
    far.push(all([1]));
    assert_eq!(now_or_never(both.ready()), Poll::Ready(Ok(())));
}

#[test]
fn of_no_source_it_is_empty_and_closed() {
    let none = Subscription::merge([] as [(Subscription, u8); 0]);
    assert!(none.snapshot().is_known() && none.snapshot().entries().is_empty());
    assert_eq!(none.status(), Status::Closed);
    assert_eq!(now_or_never(none.ready()), Poll::Ready(Ok(())));
    assert!(matches!(poll(&mut none.changes()), Poll::Ready(None)));
    assert_eq!(none.named(), None);
    none.explain(&at(1)).to_string();
}

#[test]
fn the_same_source_twice_is_one_in_the_lower_tier() {
    let mut near = Script::listing(all([1]));
    let far = Script::listing(all([1, 2]));
    let both = merged(&[(&near, 3), (&far, 2), (&near, 1)]);
    assert_eq!(both.tiers(), [1, 2]);
    assert_eq!((tier(&both, 1), tier(&both, 2)), (1, 2));
    near.after(1.0).push(all([]));
    assert_eq!(tier(&both, 1), 2);
}

#[test]
fn health_is_judged_over_the_whole() {
    let ill = |n| a(n).with_healthy(false);
    let mut near = Script::listing(vec![ill(1)]);
    let mut far = Script::listing(vec![ill(2)]);
    assert_eq!(near.callable(), addresses([1]), "it has nobody else");
    let both = merged(&[(&near, 0), (&far, 1)]);
    assert_eq!(callable(&both), addresses([1, 2]));
    far.after(1.0).push(vec![a(2)]);
    assert_eq!(callable(&both), addresses([2]));
    near.after(1.0).push(vec![a(1)]);
    assert_eq!(callable(&both), addresses([1, 2]));
    let strict = Options::default().on_all_unhealthy(OnAllUnhealthy::FailFast);
    let mut strict = Script::with(strict);
    strict.push(vec![ill(7)]);
    let two = merged(&[(&strict, 0), (&near, 1)]);
    near.after(1.0).push(vec![ill(1)]);
    assert!(callable(&two).is_empty(), "by the rules of the first");
}

#[test]
fn a_selection_of_a_source_and_of_the_whole_both_hold() {
    let hz = |n| a(n).with_cluster("HZ");
    let mut near = Script::listing(vec![hz(1), a(2)]);
    let far = Script::listing(vec![hz(3), a(4)]);
    let part = near.sub.only_cluster("HZ");
    let both = Subscription::merge([(&part, 0), (&far.sub, 0)]);
    assert_eq!(callable(&both), addresses([1, 3, 4]));
    assert!(both.snapshot().find(&at(2)).is_none());
    let only = both.only_cluster("HZ");
    assert_eq!(callable(&only), addresses([1, 3]));
    near.after(1.0).push(vec![a(1), hz(2)]);
    assert_eq!(callable(&both), addresses([2, 3, 4]));
    assert_eq!(callable(&only), addresses([2, 3]));
}

#[test]
fn what_providers_and_connections_say_reaches_every_source_that_lists_it() {
    let born = |n: u16, time: &str| a(n).with_metadata(meta(&[("startTime", time)]));
    let list = vec![born(1, "1"), born(2, "1")];
    let mut near = Script::listing(list.clone());
    let mut far = Script::listing(list);
    let both = merged(&[(&near, 0), (&far, 1)]);
    let generation = |n| both.snapshot().find(&at(n)).unwrap().generation();
    both.marks().going_offline(&at(1), generation(1), near.now);
    for sub in [&near.sub, &far.sub, &both] {
        let standing = sub.snapshot().find(&at(1)).unwrap().standing();
        assert_eq!(standing, Standing::GoingOffline);
    }
    near.after(1.0).push(vec![born(2, "1")]);
    assert_eq!(callable(&both), addresses([2]), "it goes for all of them");
    // Only who is the same process.
    far.after(1.0).push(vec![born(1, "1"), born(2, "2")]);
    both.marks().going_offline(&at(2), generation(2), near.now);
    assert_eq!(near.callable(), []);
    assert_eq!(far.callable(), addresses([2]));

    let mut near = Script::listing(all([1, 2]));
    let far = Script::listing(all([2]));
    let both = merged(&[(&near, 0), (&far, 1)]);
    near.reconnect(1.0).first(all([]));
    assert_eq!(callable(&both), addresses([1, 2]));
    let held = both.snapshot().find(&at(1)).unwrap().generation();
    both.report_unreachable(&at(1), held, near.now);
    assert_eq!(callable(&both), addresses([2]));
    assert_eq!(near.callable(), addresses([2]), "held there yet");
}

/// The registry of the last one is away, and another has others.
#[test]
fn the_last_one_of_a_source_that_is_away_may_go_while_another_source_has_somebody() {
    let mut near = Script::listing(all([1]));
    let mut far = Script::listing(all([2, 3]));
    let inner = merged(&[(&near, 0)]);
    let both = Subscription::merge([(&inner, 0), (&far.sub, 0)]);
    near.writer.handle_disconnected(near.now);
    let mark = |n| {
        let generation = both.snapshot().find(&at(n)).unwrap().generation();
        both.marks().going_offline(&at(n), generation, far.now);
    };
    mark(1);
    assert_eq!(callable(&both), addresses([2, 3]));
    near.after(1.0).pass(60.0);
    assert_eq!(callable(&both), addresses([1, 2, 3]), "a mark lapses");
    far.after(62.0).push(all([]));
    assert_eq!(callable(&both), addresses([1]));
    let generation = both.snapshot().find(&at(1)).unwrap().generation();
    both.marks().going_offline(&at(1), generation, far.now);
    assert_eq!(callable(&both), addresses([1]), "better than nobody");
}

#[test]
fn it_explains_source_and_tier() {
    let mut near = Script::listing(all([1, 2]));
    let far = Script::listing(all([2]));
    let both = merged(&[(&near, 0), (&far, 1)]);
    near.after(1.0).push(all([2]));
    near.after(2.0).push(all([2, 3]));
    let gone = both.explain(&at(1));
    assert!(matches!(gone.finding, Finding::Gone { .. }), "{gone}");
    let text = gone.to_string();
    assert!(
        text.contains("(tier 0): gone: the registry lists it no longer"),
        "{text}"
    );
    assert!(text.contains("(tier 1): not listed"), "{text}");
    let there = both.explain(&at(2)).to_string();
    assert!(
        there.contains("; from DEFAULT_GROUP@@orders in namespace public (tier 0)"),
        "{there}"
    );
    assert!(there.contains("(tier 1): callable; weight 1"), "{there}");
}

#[test]
fn hints_say_whose_they_are() {
    let near = Script::new();
    let dev = ServiceKey::new("dev", "G@@orders".parse().unwrap()).unwrap();
    let (_writer, far) = channel(dev, Options::default());
    let both = Subscription::merge([(&near.sub, 0), (&far, 1)]);
    assert_eq!(both.hint(), None);
    far.set_hint("access is denied");
    let hint = both.hint().unwrap();
    assert_eq!(
        &*hint,
        "G@@orders in namespace dev (tier 1): access is denied"
    );
    assert_eq!(both.key(), near.sub.key());
}

/// Says so when it is dropped.
struct Lease(Arc<Mutex<Vec<&'static str>>>, &'static str);

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.lock().unwrap().push(self.1);
    }
}

#[test]
fn it_holds_its_sources_and_nothing_is_left_of_it() {
    let ended: Arc<Mutex<Vec<&'static str>>> = Arc::default();
    let lease = |name| Arc::new(Lease(Arc::clone(&ended), name));
    let (mut near, far) = (Script::listing(all([1])), Script::listing(all([2])));
    let shared = Arc::clone(&near.sub.handle.shared);
    let idle = Arc::strong_count(&shared);
    let both = Subscription::merge([
        (near.sub.clone().with_lease(lease("near")), 0),
        (far.sub.with_lease(lease("far")), 1),
    ]);
    let clone = both.only_cluster("DEFAULT");
    let changes = clone.changes();
    let gates: Attached<Recorder> = both.attach(Recorder::new);
    let marks = both.marks();
    let merged = Arc::downgrade(&both.handle.shared);
    drop((both, clone, gates));
    assert!(
        ended.lock().unwrap().is_empty(),
        "a stream of changes holds them"
    );
    assert_eq!(shared.root.consumers().len(), 1);
    drop(changes);
    assert_eq!(*ended.lock().unwrap(), ["near", "far"]);
    assert!(shared.root.consumers().is_empty());
    drop(marks);
    assert!(merged.upgrade().is_none());
    near.after(1.0).push(all([]));
    assert_eq!(Arc::strong_count(&shared), idle);
}

#[test]
fn merged_sets_can_be_merged() {
    let mut near = Script::listing(all([1]));
    let far = Script::listing(all([2]));
    let inner = merged(&[(&near, 7), (&far, 9)]);
    let other = Subscription::fixed([a(3)]);
    let outer = Subscription::merge([(&inner, 0), (&other, 1)]);
    assert_eq!(callable(&outer), addresses([1, 2, 3]));
    assert_eq!(
        [tier(&outer, 1), tier(&outer, 2), tier(&outer, 3)],
        [0, 0, 1]
    );
    let gates: Attached<Recorder> = outer.attach(Recorder::new);
    gates.state.lock().unwrap().prompt = false;
    let revision = near.after(1.0).push(all([4]));
    assert_eq!(callable(&outer), addresses([2, 3, 4]));
    assert!(near.sub.applied_revision() < revision);
    gates.become_quiet(outer.revision());
    assert_eq!(near.sub.applied_revision(), revision);
}

#[test]
fn what_is_old_is_told_by_the_oldest() {
    let mut near = Script::listing(all([1]));
    let mut far = Script::listing(all([2]));
    let both = merged(&[(&near, 0), (&far, 1)]);
    far.after(7.0).push(all([2]));
    let now = far.now.max(near.now);
    assert!(both.age(now).unwrap().as_secs() >= 5);
    near.after(3.0).push(all([1]));
    assert_eq!(both.origin(), Some(Origin::Push));
    assert_eq!(both.key(), &key());
    let lists = near.sub.counters().lists + far.sub.counters().lists;
    assert_eq!(both.counters().lists, lists);
}

#[test]
fn two_parts_of_one_service_count_once() {
    let mut near = Script::listing(all([1, 2, 3]));
    let [x, y] = ["X", "Y"].map(|cluster| near.sub.only_cluster(cluster));
    let both = Subscription::merge([(&x, 0), (&y, 1)]);
    assert_eq!(both.counters(), near.sub.counters());
    near.writer.handle_disconnected(near.now);
    near.pass(1.0);
    near.writer.handle_connected(near.now);
    near.first(all([]));
    assert_eq!(both.status(), near.sub.status());
    assert_eq!(both.status(), Status::Held { instances: 3 });
}

#[test]
fn instances_that_have_not_changed_are_not_made_again() {
    let mut near = Script::listing(all([1, 2]));
    let far = Script::listing(all([3]));
    let both = merged(&[(&near, 0), (&far, 1)]);
    let before = both.snapshot();
    near.after(1.0).push(all([1, 2, 4]));
    let after = both.snapshot();
    let same = |n| {
        let of = |s: &Snapshot| Arc::as_ptr(s.find(&at(n)).unwrap().instance());
        of(&before) == of(&after)
    };
    assert!(same(1) && same(2) && same(3));
    let revision = both.revision();
    near.after(1.0).push(vec![a(4), a(2), a(1)]);
    assert_eq!(both.revision(), revision);
}

//! Consumers: attached under the writer's lock, closed before publication, opened after it; and
//! the lease that everything made of a subscription keeps (D14).

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures_core::Stream;

use super::support::{Recorder, Script, a, addresses, all, at, drain, now_or_never};
use crate::directory::{Revision, Subscription, TransitionKind};

#[test]
fn gates_close_before_publication_and_open_after_it() {
    let mut script = Script::listing(all([1, 2]));
    let recorder = script.sub.attach(Recorder::new);
    *recorder.subscription.lock().unwrap() = Some(script.sub.clone());
    script.push(all([2, 3]));
    assert_eq!(
        recorder.take_calls(),
        ["close 2 at 1", "reopen 2 at 2", "wake"]
    );
    assert_eq!(
        recorder.take_transitions(),
        [
            (at(1), TransitionKind::Evicted),
            (at(3), TransitionKind::Opened)
        ]
    );
    *recorder.subscription.lock().unwrap() = None;
}

#[test]
fn an_instance_that_was_never_callable_is_evicted_all_the_same() {
    let mut script = Script::listing(all([1]));
    let recorder = script.sub.attach(Recorder::new);
    script.push(vec![a(1), a(2).with_weight(0.0)]);
    assert_eq!(recorder.take_transitions(), []);
    script.push(all([1]));
    assert_eq!(
        recorder.take_transitions(),
        [(at(2), TransitionKind::Evicted)]
    );
}

#[test]
fn a_dropped_consumer_is_forgotten() {
    let mut script = Script::listing(all([1]));
    let attached = script.sub.attach(Recorder::new);
    let weak = attached.consumer().weak();
    drop(attached);
    assert!(weak.upgrade().is_none());
    script.push(all([2]));
    assert_eq!(script.sub.applied_revision(), script.sub.revision());
}

#[test]
fn a_revision_is_applied_when_all_consumers_are_quiet() {
    let mut script = Script::listing(all([1, 2]));
    let slow = script.sub.attach(Recorder::new);
    let quick = script.sub.attach(Recorder::new);
    slow.state.lock().unwrap().prompt = false;
    assert_eq!(script.sub.applied_revision(), Revision(1));
    let revision = script.push(all([2]));
    assert_eq!(script.sub.applied_revision(), Revision(1));
    assert_eq!(script.sub.revision(), revision);
    let mut applied = Box::pin(script.sub.applied(revision));
    assert!(now_or_never(applied.as_mut()).is_pending());
    quick.become_quiet(revision);
    assert!(now_or_never(applied.as_mut()).is_pending());
    slow.become_quiet(revision);
    assert_eq!(now_or_never(applied.as_mut()), Poll::Ready(Ok(())));
    assert_eq!(script.sub.applied_revision(), revision);
}

#[test]
fn a_consumer_that_is_dropped_holds_nobody_up() {
    let mut script = Script::listing(all([1, 2]));
    let slow = script.sub.attach(Recorder::new);
    slow.state.lock().unwrap().prompt = false;
    let revision = script.push(all([2]));
    assert!(script.sub.applied_revision() < revision);
    drop(slow);
    assert_eq!(script.sub.applied_revision(), revision);
}

#[test]
fn a_view_that_a_revision_does_not_touch_is_up_to_date() {
    let hz = a(1).with_cluster("HZ");
    let mut script = Script::listing(vec![hz.clone(), a(2)]);
    let view = script.sub.only_metadata("no", "body");
    let recorder = view.attach(Recorder::new);
    // An attribute outside of the view's selection changes its entries, hence its snapshot; a
    // hold does not. Either way it is applied.
    let revision = script.push(vec![hz, a(2).with_weight(2.0)]);
    assert_eq!(view.applied_revision(), revision);
    assert!(recorder.take_transitions().is_empty());
}

#[test]
fn applied_of_a_revision_that_will_never_come_is_an_error() {
    let Script { writer, sub, .. } = Script::listing(all([1]));
    let mut applied = Box::pin(sub.applied(Revision(7)));
    assert!(now_or_never(applied.as_mut()).is_pending());
    drop(writer);
    let Poll::Ready(Err(error)) = now_or_never(applied.as_mut()) else {
        panic!("it must not hang");
    };
    assert!(error.to_string().contains("before 7"), "{error}");
}

#[test]
fn d14_the_last_of_all_that_is_made_of_a_subscription_drops_the_lease() {
    let script = Script::listing(all([1]));
    let lease = Arc::new(());
    let leased = |sub: Subscription| sub.with_lease(lease.clone());
    let is_dropped = || Arc::strong_count(&lease) == 1;
    type Use = fn(&Subscription) -> Box<dyn std::any::Any>;
    let uses: [Use; 5] = [
        |sub| Box::new(sub.clone()),
        |sub| Box::new(sub.only_cluster("HZ")),
        |sub| Box::new(sub.changes()),
        |sub| Box::new(sub.only_cluster("HZ").changes()),
        |sub| Box::new(sub.attach(Recorder::new)),
    ];
    for make in uses {
        let sub = leased(script.writer.subscribe());
        let made = make(&sub);
        drop(sub);
        assert!(!is_dropped());
        drop(made);
        assert!(is_dropped());
    }
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn d14_a_dropped_stream_is_woken_no_more_and_another_still_is() {
    let mut script = Script::listing(all([1]));
    let (gone, stays) = (Arc::new(Count::default()), Arc::new(Count::default()));
    let mut one = script.sub.changes();
    let mut two = script.sub.changes();
    for (stream, count) in [(&mut one, &gone), (&mut two, &stays)] {
        drain(stream);
        let waker = Waker::from(Arc::clone(count));
        let polled = std::pin::Pin::new(stream).poll_next(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
    }
    drop(one);
    assert_eq!(Arc::strong_count(&gone), 1, "its waker is let go of");
    script.push(all([1, 2]));
    assert_eq!(gone.0.load(Ordering::SeqCst), 0);
    assert_eq!(stays.0.load(Ordering::SeqCst), 1);
    assert_eq!(drain(&mut two).len(), 1);
}

#[test]
fn a_waker_may_call_back_into_the_directory() {
    struct Nosy(Subscription, AtomicUsize);
    impl Wake for Nosy {
        fn wake(self: Arc<Self>) {
            let changes = drain(&mut self.0.changes()).len();
            self.0.explain(&at(1));
            self.1
                .store(changes + self.0.snapshot().callable_len(), Ordering::SeqCst);
        }
    }
    let mut script = Script::listing(all([1]));
    let nosy = Arc::new(Nosy(script.sub.clone(), AtomicUsize::new(0)));
    let mut changes = script.sub.changes();
    drain(&mut changes);
    let waker = Waker::from(Arc::clone(&nosy));
    let polled = std::pin::Pin::new(&mut changes).poll_next(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    script.push(all([1, 2]));
    assert_eq!(nosy.1.load(Ordering::SeqCst), 4);
    assert_eq!(script.callable(), addresses([1, 2]));
}

#[test]
fn nothing_grows_over_many_pushes() {
    let mut script = Script::listing(all(1..=20));
    let sub = script.sub.clone();
    let mut changes = sub.changes();
    drain(&mut changes);
    for n in 0..20_000_u16 {
        script.after(0.01);
        drop(sub.only_cluster(format!("c{}", n % 7)));
        drop(sub.attach(Recorder::new));
        let gone = n % 20 + 1;
        script.push(all((1..=20).filter(|n| *n != gone)));
    }
    let state = sub.handle.shared.lock();
    assert!(state.derived.len() <= 8, "{}", state.derived.len());
    assert!(state.recent.len() <= 20);
    assert!(state.twins.is_empty());
    drop(state);
    assert!(sub.handle.view.consumers().is_empty());
    assert!(drain(&mut changes).len() <= 40);
}

//! ready, wait_for and what their errors say.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use futures_core::Stream;

use super::support::{Recorder, Script, a, all, at, now_or_never};
use crate::{
    directory::{Origin, ReadyError, Revision, Snapshot, Status},
    model::{Listing, Rejected},
};

#[tokio::test(start_paused = true)]
async fn wait_for_returns_when_enough_are_callable() {
    let mut script = Script::new();
    let sub = script.sub.clone();
    let wait = async move { sub.wait_for(2, Duration::from_secs(5)).await };
    let feed = async {
        tokio::task::yield_now().await;
        script.first(vec![a(1), a(2).with_weight(0.0)]);
        tokio::task::yield_now().await;
        script.push(all([1, 2]));
    };
    let (snapshot, ()) = tokio::join!(wait, feed);
    assert_eq!(snapshot.unwrap().callable_len(), 2);
}

#[tokio::test(start_paused = true)]
async fn wait_for_says_how_many_there_are_and_why_others_are_not_callable() {
    let mut script = Script::new();
    let sick = (10..20).map(|n| a(n).with_healthy(false));
    script.push(
        [a(1), a(2).with_weight(0.0)]
            .into_iter()
            .chain(sick)
            .collect(),
    );
    let error = script
        .sub
        .wait_for(2, Duration::from_secs(5))
        .await
        .unwrap_err();
    assert_eq!(error.callable(), 1);
    assert_eq!(
        error.to_string(),
        "DEFAULT_GROUP@@orders in namespace public has 1 callable of the 2 instances waited for; not \
         10.0.0.2:8080: its weight is 0, 10.0.0.10:8080: unhealthy, 10.0.0.11:8080: unhealthy, \
         10.0.0.12:8080: unhealthy, 10.0.0.13:8080: unhealthy and 6 more"
    );
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_when_the_subscription_closes() {
    let Script { writer, sub, .. } = Script::new();
    let close = async {
        tokio::task::yield_now().await;
        writer.close();
    };
    let (ready, enough, ()) = tokio::join!(
        sub.ready(),
        sub.wait_for(1, Duration::from_secs(3600)),
        close
    );
    assert!(matches!(ready, Err(ReadyError::Closed { .. })));
    let error = enough.unwrap_err();
    assert!(error.is_closed());
    assert!(error.to_string().contains("has ended"), "{error}");
}

#[test]
fn wait_until_asks_of_what_is_there_and_of_each_that_follows() {
    let mut script = Script::new();
    let sub = script.sub.clone();
    let mut empty = Box::pin(sub.wait_until(|snapshot| snapshot.entries().is_empty()));
    assert!(
        now_or_never(empty.as_mut()).is_pending(),
        "nothing is known"
    );
    script.first(Vec::new());
    let Poll::Ready(Ok(found)) = now_or_never(empty.as_mut()) else {
        panic!("the registry says that it is empty");
    };
    assert!(found.revision() > Revision::default());

    let (listed, heavy) = (at(1), a(1).with_weight(5.0));
    let weight = |snapshot: &Snapshot| Some(snapshot.find(&listed)?.instance().weight().get());
    let mut wanted = Box::pin(sub.wait_until(|snapshot| weight(snapshot) == Some(5.0)));
    script.push(all([1]));
    assert!(now_or_never(wanted.as_mut()).is_pending());
    script.push(vec![heavy]);
    assert!(now_or_never(wanted.as_mut()).is_ready());

    let mut never = Box::pin(sub.wait_until(|_| false));
    assert!(now_or_never(never.as_mut()).is_pending());
    drop(script);
    let Poll::Ready(Err(error)) = now_or_never(never.as_mut()) else {
        panic!("it must not hang");
    };
    assert!(error.to_string().contains("was closed"), "{error}");
}

#[test]
fn an_instance_is_gone_when_nobody_enters_it_any_more() {
    let mut script = Script::listing(all([1, 2]));
    let slow = script.sub.attach(Recorder::new);
    let sub = script.sub.clone();
    let (first, stranger) = (at(1), at(9));
    assert!(now_or_never(Box::pin(sub.wait_gone(&stranger)).as_mut()).is_ready());
    let mut gone = Box::pin(sub.wait_gone(&first));
    assert!(now_or_never(gone.as_mut()).is_pending());
    slow.state.lock().unwrap().prompt = false;
    let revision = script.push(vec![a(1).with_enabled(false), a(2)]);
    assert!(
        now_or_never(gone.as_mut()).is_pending(),
        "calls may be on their way in"
    );
    slow.become_quiet(revision);
    assert_eq!(now_or_never(gone.as_mut()), Poll::Ready(Ok(())));

    let second = at(2);
    let mut stays = Box::pin(sub.wait_gone(&second));
    assert!(now_or_never(stays.as_mut()).is_pending());
    drop(script);
    assert!(matches!(now_or_never(stays.as_mut()), Poll::Ready(Err(_))));
}

#[tokio::test(start_paused = true)]
async fn ready_tells_of_an_answer_that_cannot_be_used() {
    let mut script = Script::new();
    let bad = Listing::new([]).with_rejected(vec![Rejected::new("?", "no port")]);
    script.apply(bad, Origin::FirstAnswer);
    let error = script.sub.ready().await.unwrap_err();
    assert!(error.to_string().contains("none of its 1 hosts"), "{error}");
    script.push(all([1]));
    assert_eq!(script.sub.ready().await, Ok(()));
}

#[test]
fn what_waits_can_move_between_threads() {
    fn check<T: Send>(value: T) -> T {
        value
    }
    let script = Script::new();
    let sub = check(script.sub.clone());
    drop(check(sub.ready()));
    drop(check(sub.applied(sub.revision())));
    drop(check(sub.wait_for(1, Duration::ZERO)));
    drop(check(sub.wait_until(|_| true)));
    let address = at(1);
    drop(check(sub.wait_gone(&address)));
    let mut changes = check(sub.changes());
    drop(check(changes.next()));
    drop(check(script.writer));
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
    }
}

#[test]
fn a_status_that_changes_without_the_set_wakes_who_watches_it() {
    let mut script = Script::listing(all([1]));
    let mut status = script.sub.status_changes();
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut poll = || Pin::new(&mut status).poll_next(&mut Context::from_waker(&waker));
    assert_eq!(poll(), Poll::Ready(Some(Status::Fresh)));
    for said in [Status::Undecodable, Status::Fresh] {
        assert_eq!(poll(), Poll::Pending);
        woken.0.store(false, SeqCst);
        if said == Status::Fresh {
            script.push(all([1]));
        } else {
            script.writer.handle_undecodable("rubbish", script.now);
        }
        assert!(woken.0.load(SeqCst), "nobody told of {said:?}");
        assert_eq!(poll(), Poll::Ready(Some(said)));
    }
    assert_eq!(script.sub.revision().get(), 1);
}

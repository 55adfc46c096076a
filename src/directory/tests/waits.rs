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

use super::support::{Script, a, all};
use crate::{
    directory::{Origin, ReadyError, Status},
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

//! What becomes of a try's answer when the next one has to wait, in virtual time: answers that hold the room that
//! is waited for, and waits that come to nothing.

#![allow(
    clippy::disallowed_methods,
    reason = "a test owns its tasks and its clock"
)]

mod discover_support;

use std::{
    future::pending,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use discover_support::instance;
use futures_util::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::{Service, ServiceExt, load::CompleteOnResponse};
use tower_nacos::{
    Balance, Instance, Subscription,
    balance::{BalanceBuilder, WeightedRoundRobin},
    endpoint::{NeverRecover, Replaying, Verdict, WithAgain},
    retry::{Again, Hedge, Retry},
};

/// A status; as long as it lives its instance has less room.
#[derive(Debug)]
struct Answer(
    u16,
    #[expect(dead_code, reason = "held")] OwnedSemaphorePermit,
);

#[derive(Debug)]
struct Failed(Verdict);

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no connection")
    }
}

impl std::error::Error for Failed {}

/// What the nth try comes to: 0 to nothing ever, 1 to no connection.
type Script = Arc<dyn Fn(usize, u32) -> u16 + Send + Sync>;
type Acquiring = Pin<Box<dyn Future<Output = OwnedSemaphorePermit> + Send>>;

struct One {
    room: Arc<Semaphore>,
    acquiring: Option<Acquiring>,
    permit: Option<OwnedSemaphorePermit>,
    script: Script,
    tries: Arc<Mutex<usize>>,
}

impl Clone for One {
    fn clone(&self) -> Self {
        Self {
            room: Arc::clone(&self.room),
            acquiring: None,
            permit: None,
            script: Arc::clone(&self.script),
            tries: Arc::clone(&self.tries),
        }
    }
}

// Only its owner polls what it waits for.
impl One {
    fn maker(
        room: usize,
        script: impl Fn(usize, u32) -> u16 + Send + Sync + 'static,
    ) -> impl Fn(&Instance) -> Shared + Send + Sync {
        let script: Script = Arc::new(script);
        let tries = Arc::default();
        move |_| {
            Shared(Mutex::new(Self {
                room: Arc::new(Semaphore::new(room)),
                acquiring: None,
                permit: None,
                script: Arc::clone(&script),
                tries: Arc::clone(&tries),
            }))
        }
    }
}

struct Shared(Mutex<One>);

impl Clone for Shared {
    fn clone(&self) -> Self {
        Self(Mutex::new(self.0.lock().unwrap().clone()))
    }
}

impl Service<u32> for Shared {
    type Response = Answer;
    type Error = Failed;
    type Future = BoxFuture<'static, Result<Answer, Failed>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        let one = self.0.get_mut().unwrap();
        if one.permit.is_some() {
            return Poll::Ready(Ok(()));
        }
        let room = Arc::clone(&one.room);
        let acquiring = one
            .acquiring
            .get_or_insert_with(|| Box::pin(async move { room.acquire_owned().await.unwrap() }));
        acquiring.as_mut().poll(cx).map(|permit| {
            one.acquiring = None;
            one.permit = Some(permit);
            Ok(())
        })
    }

    fn call(&mut self, request: u32) -> Self::Future {
        let one = self.0.get_mut().unwrap();
        let permit = one.permit.take().expect("polled until it was ready");
        let number = {
            let mut tries = one.tries.lock().unwrap();
            *tries += 1;
            *tries
        };
        let answer = (one.script)(number, request);
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            match answer {
                0 => pending().await,
                1 => Err(Failed(Verdict::Unreachable("refused".into()))),
                answer => Ok(Answer(answer, permit)),
            }
        })
    }
}

type Builder = BalanceBuilder<
    WeightedRoundRobin,
    Replaying<NeverRecover, fn(&u32) -> Option<u32>>,
    CompleteOnResponse,
    WithAgain<fn(&Failed) -> Verdict, fn(Result<&Answer, &Failed>) -> Again>,
>;

fn again(result: Result<&Answer, &Failed>) -> Again {
    match result {
        Ok(Answer(503, _)) => Again::Yes,
        Ok(Answer(429, _)) => Again::After(Duration::from_secs(3)),
        _ => Again::No,
    }
}

/// Odd requests may be processed once only.
fn replay(request: &u32) -> Option<u32> {
    request.is_multiple_of(2).then_some(*request)
}

fn verdict(failed: &Failed) -> Verdict {
    failed.0.clone()
}

fn builder(instances: usize, retry: Retry) -> Builder {
    let orders = Subscription::fixed((1..=instances).map(|n| instance(&format!("10.0.0.{n}:80"))));
    Balance::builder(&orders)
        .policy(WeightedRoundRobin::new())
        .retry(retry)
        .replay(replay as fn(&u32) -> Option<u32>)
        .classify(verdict as fn(&Failed) -> Verdict)
        .again(again as fn(Result<&Answer, &Failed>) -> Again)
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    let ended = tokio::time::timeout(Duration::from_secs(3_600), what).await;
    ended.expect("it hangs")
}

/// With room for one call the next try waits for what the answer before has; nor do calls wait for each other's.
#[tokio::test(start_paused = true)]
async fn no_try_waits_for_room_that_the_answer_before_it_has() {
    let none_yet = |number, _| if number == 1 { 503 } else { 200 };
    let balance = builder(1, Retry::new()).build(One::maker(1, none_yet));
    assert_eq!(soon(balance.clone().oneshot(2)).await.unwrap().0, 200);
    assert_eq!(balance.counts(), [0; 3]);
    let none_yet = |number, _| if number <= 2 { 503 } else { 200 };
    let balance = builder(2, Retry::new().percent(100)).build(One::maker(1, none_yet));
    let both = [2, 2].map(|request| balance.clone().oneshot(request));
    for answer in soon(futures_util::future::join_all(both)).await {
        assert_eq!(answer.unwrap().0, 200);
    }
    assert_eq!(balance.counts(), [0; 3]);
}

/// A rest that a peer asks for is not begun if the time for tries is over with it.
#[tokio::test(start_paused = true)]
async fn no_rest_ends_when_no_try_begins_any_more() {
    for (within, tries) in [(2, 1), (4, 2)] {
        let script = |_, _| 429;
        let retry = Retry::new()
            .percent(100)
            .within(Duration::from_secs(within));
        let maker = One::maker(9, script);
        let balance = builder(1, retry).build(maker);
        let began = tokio::time::Instant::now();
        assert_eq!(soon(balance.clone().oneshot(2)).await.unwrap().0, 429);
        assert_eq!(balance.counters().retries, tries - 1, "{within} s");
        let took = began.elapsed();
        assert!(took < Duration::from_secs(within), "{within} s: {took:?}");
    }
}

/// When the next try has to wait for the registry or a probe, and may not, the call ends with what came of the
/// try before it.
#[tokio::test(start_paused = true)]
async fn a_wait_that_comes_to_nothing_ends_with_what_there_was() {
    let (half, whole) = (Duration::from_millis(2_500), Duration::from_secs(3));
    for answers in [true, false] {
        let script = move |_, request: u32| match request {
            2 if answers => 429,
            2 => 0,
            _ => 1,
        };
        let balance = builder(1, Retry::new().percent(100))
            .per_try_timeout(whole)
            .max_waiting(0)
            .build(One::maker(9, script));
        let call = tokio::spawn(balance.clone().oneshot(2));
        tokio::time::sleep(half).await;
        // Now there is no connection, and who comes half a second later waits for a probe.
        soon(balance.clone().oneshot(3)).await.unwrap_err();
        match soon(call).await.unwrap() {
            Ok(answer) => assert!(answers && answer.0 == 429),
            Err(error) => assert!(!answers && error.is_try_timed_out(), "{error}"),
        }
        assert_eq!(balance.counts(), [0; 3]);
    }
}

/// A second try that waits for room and comes to nobody was no load: the budget has what was in it.
#[tokio::test(start_paused = true)]
async fn a_second_that_finds_no_room_costs_nothing() {
    let script = |_, request| if request == 2 { 200 } else { 0 };
    let balance = builder(2, Retry::new().percent(0))
        .hedge(Hedge::after(Duration::from_millis(5)))
        .build(One::maker(1, script));
    let full = tokio::spawn(balance.clone().oneshot(3));
    for _ in 0..100 {
        assert_eq!(soon(balance.clone().oneshot(2)).await.unwrap().0, 200);
    }
    let counters = balance.counters();
    assert_eq!((counters.hedges, counters.retries_over_budget), (0, 0));
    full.abort();
    full.await.unwrap_err();
    assert_eq!(balance.counts(), [0; 3]);
}

/// Nor was it a try: the first has all of its own, and no more.
#[tokio::test(start_paused = true)]
async fn a_second_that_finds_no_room_is_no_try() {
    for attempts in [2, 3] {
        let script = move |number, request| match (number, request) {
            (2, 2) => 503,
            (_, 2) => 200,
            _ => 0,
        };
        let retry = Retry::new().percent(100).max_attempts(attempts);
        let balance = builder(2, retry)
            .hedge(Hedge::after(Duration::from_millis(5)))
            .build(One::maker(1, script));
        let full = tokio::spawn(balance.clone().oneshot(3));
        tokio::task::yield_now().await;
        let called = tokio::spawn(balance.clone().oneshot(2));
        tokio::time::sleep(Duration::from_millis(100)).await;
        full.abort();
        assert_eq!(soon(called).await.unwrap().unwrap().0, 200);
        let counters = balance.counters();
        assert_eq!((counters.hedges, counters.retries), (0, 1), "{attempts}");
        assert_eq!(balance.counts(), [0; 3]);
    }
}

/// Nor is an answer held for it, also where a try has an end: a wait for room has none.
#[tokio::test(start_paused = true)]
async fn no_answer_waits_for_a_second_that_finds_no_room() {
    let script = |_, request| if request == 2 { 503 } else { 0 };
    // The second begins in time for that, and no further try of the first.
    let retry = Retry::new().within(Duration::from_millis(10));
    let balance = builder(2, retry)
        .hedge(Hedge::after(Duration::from_millis(5)))
        .per_try_timeout(Duration::from_secs(100 * 3_600))
        .build(One::maker(1, script));
    let full = tokio::spawn(balance.clone().oneshot(3));
    tokio::task::yield_now().await;
    assert_eq!(soon(balance.clone().oneshot(2)).await.unwrap().0, 503);
    assert_eq!(balance.counters().hedges, 0);
    full.abort();
}

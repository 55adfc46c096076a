//! A second try beside the first, in virtual time: who is asked, who wins, what it costs the service.

#![allow(
    clippy::disallowed_methods,
    reason = "a test owns its tasks and its clock"
)]

mod discover_support;

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use discover_support::logs::Logs;
use futures_util::future::BoxFuture;
use tokio::time::Instant;
use tower::{Service, ServiceExt};
use tower_nacos::{
    Balance, Instance, Subscription,
    balance::{BalanceBuilder, WeightedRandom},
    endpoint::{NeverRecover, Replaying, Unclassified, WithAgain},
    retry::{Again, Hedge, Retry},
};

/// How long the nth try takes, and what it comes to.
type Script = Arc<dyn Fn(usize, u32) -> (Duration, u16) + Send + Sync>;

#[derive(Clone)]
struct Instances {
    script: Script,
    tries: Arc<Mutex<Vec<String>>>,
    given_up: Arc<Mutex<Vec<String>>>,
}

#[derive(Clone)]
struct One(String, Instances);

/// Notes a try that is dropped before its answer.
struct Guard(Option<String>, Instances);

impl Guard {
    fn answered(&mut self) {
        self.0 = None;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.1.given_up.lock().unwrap().extend(self.0.take());
    }
}

impl Instances {
    fn new(script: impl Fn(usize, u32) -> (u64, u16) + Send + Sync + 'static) -> Self {
        Self {
            script: Arc::new(move |number, request| {
                let (ms, answer) = script(number, request);
                (Duration::from_millis(ms), answer)
            }),
            tries: Arc::default(),
            given_up: Arc::default(),
        }
    }

    fn maker(&self) -> impl Fn(&Instance) -> One + Send + Sync + use<> {
        let all = self.clone();
        move |instance| One(instance.address().to_string(), all.clone())
    }

    fn tries(&self) -> Vec<String> {
        self.tries.lock().unwrap().clone()
    }

    fn given_up(&self) -> Vec<String> {
        self.given_up.lock().unwrap().clone()
    }
}

impl Service<u32> for One {
    type Response = u16;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<u16, Infallible>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u32) -> Self::Future {
        let number = {
            let mut tries = self.1.tries.lock().unwrap();
            tries.push(self.0.clone());
            tries.len()
        };
        let (takes, answer) = (self.1.script)(number, request);
        let mut guard = Guard(Some(self.0.clone()), self.1.clone());
        Box::pin(async move {
            tokio::time::sleep(takes).await;
            guard.answered();
            Ok(answer)
        })
    }
}

type Twice = Replaying<NeverRecover, fn(&u32) -> Option<u32>>;
type Judge = WithAgain<Unclassified, fn(Result<&u16, &Infallible>) -> Again>;
type Hedged = Balance<One, WeightedRandom, Twice, tower::load::CompleteOnResponse, Judge>;
type Builder = BalanceBuilder<WeightedRandom, Twice, tower::load::CompleteOnResponse, Judge>;

/// Odd requests may be processed once only.
fn replay(request: &u32) -> Option<u32> {
    request.is_multiple_of(2).then_some(*request)
}

fn again(result: Result<&u16, &Infallible>) -> Again {
    match result {
        Ok(503) => Again::Yes,
        _ => Again::No,
    }
}

fn balance(instances: &Instances, count: usize, hedge: Hedge, retry: Retry) -> Hedged {
    builder(count, hedge, retry).build(instances.maker())
}

fn builder(count: usize, hedge: Hedge, retry: Retry) -> Builder {
    let all = (1..=count).map(|n| Instance::parse(&format!("10.0.0.{n}:80")).unwrap());
    Balance::builder(&Subscription::fixed(all))
        .policy(WeightedRandom::default())
        .retry(retry)
        .hedge(hedge)
        .replay(replay as fn(&u32) -> Option<u32>)
        .again(again as fn(Result<&u16, &Infallible>) -> Again)
}

fn at_10_ms() -> Hedge {
    Hedge::after(Duration::from_millis(10))
}

fn enough() -> Retry {
    Retry::new().percent(100)
}

const HOUR: u64 = 3_600_000;

#[tokio::test(start_paused = true)]
async fn the_first_answer_wins_and_the_other_is_given_up() {
    for (first, second, winner) in [(HOUR, 5, 1), (20, HOUR, 0), (12, 5, 0), (20, 5, 1)] {
        for _ in 0..20 {
            let instances = Instances::new(move |number, _| match number {
                1 => (first, 1),
                _ => (second, 2),
            });
            let balance = balance(&instances, 3, at_10_ms(), enough());
            let mut call = Box::pin(balance.clone().call(2));
            let answer = (&mut call).await.unwrap();
            assert_eq!(usize::from(answer), winner + 1);
            let [one, other] = &instances.tries()[..] else {
                panic!("{:?}", instances.tries());
            };
            assert_ne!(one, other);
            // At once, though the call's future is still there.
            let loser = if winner == 0 { other } else { one };
            assert_eq!(instances.given_up(), std::slice::from_ref(loser));
            assert_eq!(balance.counts(), [0; 3]);
            let counters = balance.counters();
            assert_eq!(counters.hedges, 1);
            assert_eq!(counters.hedges_won, winner as u64);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_answered_in_time_has_no_second_nor_who_may_not() {
    let instances = Instances::new(|_, request| (if request == 3 { 100 } else { 9 }, 200));
    let balance = balance(&instances, 3, at_10_ms(), enough());
    for request in [2, 3] {
        let before = instances.tries().len();
        assert_eq!(balance.clone().oneshot(request).await.unwrap(), 200);
        assert_eq!(instances.tries().len(), before + 1, "{request}");
    }
    assert_eq!(balance.counters().hedges, 0);
}

#[tokio::test(start_paused = true)]
async fn a_service_of_one_instance_has_no_second_and_pays_nothing() {
    let instances = Instances::new(|_, _| (50, 200));
    let balance = balance(&instances, 1, at_10_ms(), Retry::new().percent(0));
    for _ in 0..100 {
        assert_eq!(balance.clone().oneshot(2).await.unwrap(), 200);
    }
    let counters = balance.counters();
    assert_eq!((counters.hedges, counters.retries_over_budget), (0, 0));
    assert_eq!(instances.tries().len(), 100);
}

/// A second that fails fast is no answer, whenever the first comes; and if both are none, the first's is.
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_none_yet_does_not_win() {
    for (script, answer, tries) in [
        ([(100, 200), (1, 503)], 200, 2),
        ([(20, 503), (100, 200)], 200, 2),
        ([(20, 503), (100, 503)], 503, 2),
        ([(100, 503), (20, 503)], 503, 2),
    ] {
        let instances = Instances::new(move |number, _| script[number - 1]);
        let two = enough().max_attempts(2);
        let balance = builder(3, at_10_ms(), two)
            .per_try_timeout(Duration::from_secs(1))
            .build(instances.maker());
        assert_eq!(
            balance.clone().oneshot(2).await.unwrap(),
            answer,
            "{script:?}"
        );
        assert_eq!(instances.tries().len(), tries, "{script:?}");
        assert_eq!(balance.counts(), [0; 3]);
    }
}

/// The last answer to the first waits for the second's, but not for ever: that has to have an end.
#[tokio::test(start_paused = true)]
async fn an_answer_is_not_hidden_by_a_second_that_hangs() {
    for limit in [None, Some(Duration::from_secs(1))] {
        let instances = Instances::new(|number, _| [(20, 503), (HOUR, 200)][number - 1]);
        let two = builder(3, at_10_ms(), enough().max_attempts(2));
        let two = match limit {
            Some(limit) => two.per_try_timeout(limit),
            None => two,
        };
        let balance = two.build(instances.maker());
        let began = Instant::now();
        assert_eq!(balance.clone().oneshot(2).await.unwrap(), 503);
        let took = began.elapsed();
        assert!(took < Duration::from_millis(1_020), "{limit:?}: {took:?}");
        assert_eq!(balance.counters().hedges, 1);
        assert_eq!(instances.given_up(), instances.tries()[1..]);
        assert_eq!(balance.counts(), [0; 3]);
    }
}

/// With tries left the first goes on, and not where the second is.
#[tokio::test(start_paused = true)]
async fn a_first_that_fails_goes_on_beside_the_second() {
    for _ in 0..20 {
        let script = [(20, 503), (HOUR, 200), (5, 201)];
        let instances = Instances::new(move |number, _| script[number - 1]);
        let balance = balance(&instances, 3, at_10_ms(), enough());
        assert_eq!(balance.clone().oneshot(2).await.unwrap(), 201);
        let mut tried = instances.tries();
        assert_eq!(instances.given_up(), tried[1..2]);
        tried.sort_unstable();
        tried.dedup();
        assert_eq!(tried.len(), 3, "each at another");
    }
}

#[tokio::test(start_paused = true)]
async fn when_all_is_slow_there_are_a_fifth_more_calls_at_most() {
    for at_once in [1, 100] {
        let instances = Instances::new(|_, _| (1_000, 200));
        let balance = balance(&instances, 5, at_10_ms(), Retry::new());
        for _ in 0..2_000 / at_once {
            let calls = (0..at_once).map(|_| balance.clone().oneshot(2));
            futures_util::future::join_all(calls).await;
        }
        let load = instances.tries().len() as f64 / 2_000.0;
        println!("{at_once} at once: {load:.3} times the load");
        assert!(load <= 1.2 && load > 1.19, "{load}");
        assert_eq!(balance.counts(), [0; 3]);
    }
}

#[tokio::test(start_paused = true)]
async fn it_may_be_dropped_at_any_time() {
    for ms in 0..100 {
        let instances = Instances::new(|number, _| (17, if number % 3 == 0 { 200 } else { 503 }));
        let balance = balance(&instances, 3, at_10_ms(), enough());
        let call = balance.clone().oneshot(2);
        let _ = tokio::time::timeout(Duration::from_millis(ms), call).await;
        assert_eq!(balance.counts(), [0; 3], "after {ms} ms");
    }
}

/// One answer in fifty takes a second, the others 1 to 10 ms: without, with a second try at the 95th percentile,
/// and how many more calls that is.
#[tokio::test(start_paused = true)]
async fn the_tail_is_cut_for_a_few_calls_more() {
    let mut p99 = Vec::new();
    for hedge in [Hedge::after(Duration::from_secs(3_600)), Hedge::at_p95()] {
        let instances = Instances::new(|number, _| match number * 7_919 % 50 {
            0 => (1_000, 200),
            other => (1 + other as u64 % 10, 200),
        });
        let balance = balance(&instances, 3, hedge, Retry::new());
        let mut took = Vec::new();
        for _ in 0..4_000 {
            let began = Instant::now();
            balance.clone().oneshot(2).await.unwrap();
            took.push(began.elapsed());
        }
        took.drain(..1_000);
        took.sort_unstable();
        let load = instances.tries().len() as f64 / 4_000.0;
        println!(
            "{hedge:?}: p50 {:?}, p99 {:?}, {load:.3} times the load",
            took[1_500], took[2_970]
        );
        assert!(load < 1.03, "{load}");
        p99.push(took[2_970]);
    }
    assert!(
        p99[0] >= Duration::from_secs(1) && p99[1] < Duration::from_millis(25),
        "{p99:?}"
    );
}

/// Nobody can have meant that.
#[tokio::test(start_paused = true)]
async fn a_hedge_of_nothing_is_warned_of() {
    let warned = async |replays: bool| {
        let (logs, _guard) = Logs::begin();
        let instances = Instances::new(|_, _| (20, 200));
        let orders = Subscription::fixed([Instance::parse("10.0.0.1:80").unwrap()]);
        let plain = Balance::builder(&orders).hedge(at_10_ms());
        let answered = match replays {
            true => {
                plain
                    .replay(replay)
                    .build(instances.maker())
                    .oneshot(2)
                    .await
            }
            false => plain.build(instances.maker()).oneshot(2).await,
        };
        assert_eq!(answered.unwrap(), 200);
        logs.lines("ignored: a hedge where no request may be processed twice")
            .len()
    };
    assert_eq!((warned(false).await, warned(true).await), (1, 0));
}

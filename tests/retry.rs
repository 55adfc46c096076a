//! What a retry policy does to a service, in virtual time: a service without sockets, whose instances do
//! what the test says.

#![allow(
    clippy::disallowed_methods,
    reason = "a test owns its tasks and its clock"
)]

mod discover_support;

use std::{
    collections::BTreeSet,
    convert::Infallible,
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use discover_support::{instance, now, registry};
use futures_util::future::BoxFuture;
use tokio::time::Instant;
use tower::{Service, ServiceExt};
use tower_nacos::{
    Balance, Instance, Subscription,
    balance::{BalanceBuilder, Outliers, P2c, WeightedRandom, WeightedRoundRobin},
    endpoint::{NeverRecover, Outcome, Replaying, Unclassified, WithAgain},
    retry::{Again, Retry},
};

/// An answer is a number as in HTTP; 0 is none ever.
type Answer = u16;

/// What each try at an instance came to, in the order of coming.
#[derive(Clone)]
struct Instances {
    /// By the number of the try, and the request.
    script: Arc<dyn Fn(usize, u32) -> Answer + Send + Sync>,
    tries: Arc<Mutex<Vec<(String, u32, Instant)>>>,
}

type Said = Result<Answer, Infallible>;

impl Instances {
    fn new(script: impl Fn(usize, u32) -> Answer + Send + Sync + 'static) -> Self {
        Self {
            script: Arc::new(script),
            tries: Arc::default(),
        }
    }

    fn maker(&self) -> impl Fn(&Instance) -> One + Send + Sync + use<> {
        let all = self.clone();
        move |instance| One {
            address: instance.address().to_string(),
            all: all.clone(),
        }
    }

    fn tries(&self) -> usize {
        self.tries.lock().unwrap().len()
    }

    fn addresses(&self) -> Vec<String> {
        let tries = self.tries.lock().unwrap();
        tries.iter().map(|(address, ..)| address.clone()).collect()
    }

    /// The rests between the tries.
    fn rests(&self) -> Vec<Duration> {
        let tries = self.tries.lock().unwrap();
        tries.windows(2).map(|two| two[1].2 - two[0].2).collect()
    }
}

#[derive(Clone)]
struct One {
    address: String,
    all: Instances,
}

impl Service<u32> for One {
    type Response = Answer;
    type Error = Infallible;
    type Future = BoxFuture<'static, Said>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u32) -> Self::Future {
        let number = {
            let mut tries = self.all.tries.lock().unwrap();
            tries.push((self.address.clone(), request, Instant::now()));
            tries.len()
        };
        let answer = (self.all.script)(number, request);
        Box::pin(async move {
            if answer == 0 {
                pending::<()>().await;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok(answer)
        })
    }
}

type Builder<P = P2c> = BalanceBuilder<
    P,
    Replaying<NeverRecover, fn(&u32) -> Option<u32>>,
    tower::load::CompleteOnResponse,
    WithAgain<Unclassified, fn(Result<&Answer, &Infallible>) -> Again>,
>;

/// Odd requests may be processed once only.
fn replay(request: &u32) -> Option<u32> {
    request.is_multiple_of(2).then_some(*request)
}

fn again(result: Result<&Answer, &Infallible>) -> Again {
    match result {
        Ok(503) => Again::Yes,
        Ok(429) => Again::After(Duration::from_secs(3)),
        _ => Again::No,
    }
}

fn builder(orders: &Subscription, retry: Retry) -> Builder<WeightedRoundRobin> {
    Balance::builder(orders)
        .policy(WeightedRoundRobin::new())
        .retry(retry)
        .replay(replay as fn(&u32) -> Option<u32>)
        .again(again as fn(Result<&Answer, &Infallible>) -> Again)
}

fn orders(instances: usize) -> Subscription {
    Subscription::fixed((1..=instances).map(|n| instance(&format!("10.0.0.{n}:80"))))
}

/// A service of which everything fails gets no more than 1.2 times the load that is offered, whatever a
/// single call might have: with each kind of failure, at a rate, in bursts, and one after the other.
#[tokio::test(start_paused = true)]
async fn a_storm_is_a_fifth_at_most() {
    const CALLS: u32 = 5_000;
    // Of a burst each call asks at once, when hardly any has paid in.
    for (what, failure, at_once, least) in [
        ("answers", 503, 1, 1.19),
        ("answers", 503, 50, 1.19),
        ("answers", 503, CALLS, 1.01),
        ("time-outs", 0, 50, 1.19),
        ("time-outs", 0, CALLS, 1.01),
    ] {
        let instances = Instances::new(move |_, _| failure);
        let retry = Retry::new()
            .max_attempts(10)
            .within(Duration::from_secs(3600));
        let balance = builder(&orders(5), retry)
            .per_try_timeout(Duration::from_millis(100))
            .build(instances.maker());
        let mut failed = 0;
        let mut begun = 0;
        while begun < CALLS {
            let calls = (0..at_once).map(|_| balance.clone().oneshot(2));
            for ended in futures_util::future::join_all(calls).await {
                failed += u32::from(ended.is_err() || ended.is_ok_and(|answer| answer == 503));
            }
            begun += at_once;
        }
        assert_eq!(failed, CALLS);
        let load = instances.tries() as f64 / f64::from(CALLS);
        println!("{what}, {at_once} at once: {load:.3} times the load that was offered");
        assert!(load <= 1.2, "{what}, {at_once} at once: {load}");
        assert!(
            load > least,
            "{what}, {at_once} at once: hardly any: {load}"
        );
        let counters = balance.counters();
        assert_eq!(
            counters.retries as usize,
            instances.tries() - CALLS as usize
        );
        assert!(counters.retries_over_budget > 0);
        assert_eq!(balance.counts(), [0; 3]);
    }
}

/// What a call has to lose to the number of its tries.
#[tokio::test(start_paused = true)]
async fn a_call_has_its_number_of_tries_each_at_another_instance() {
    for (attempts, failure) in (0..=6).flat_map(|attempts| [(attempts, 503), (attempts, 0)]) {
        // Chosen at random, so that none goes to another by itself.
        for _ in 0..20 {
            let instances = Instances::new(move |_, _| failure);
            let retry = Retry::new().percent(100).max_attempts(attempts);
            let balance = builder(&orders(4), retry)
                .policy(WeightedRandom::default())
                .per_try_timeout(Duration::from_millis(100))
                .build(instances.maker());
            assert_eq!(balance.oneshot(2).await.is_ok(), failure == 503);
            let tried = instances.addresses();
            assert_eq!(tried.len(), attempts.max(1) as usize);
            let first: BTreeSet<_> = tried.iter().take(4).collect();
            assert_eq!(first.len(), tried.len().min(4), "{tried:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_of_one_instance_has_tries_too() {
    let instances = Instances::new(|number, _| if number < 3 { 503 } else { 200 });
    let balance = builder(&orders(1), Retry::new()).build(instances.maker());
    assert_eq!(balance.oneshot(2).await.unwrap(), 200);
    assert_eq!(instances.tries(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_may_be_processed_once_is() {
    for failure in [503, 0] {
        let instances = Instances::new(move |_, _| failure);
        let balance = builder(&orders(3), Retry::new())
            .per_try_timeout(Duration::from_millis(100))
            .build(instances.maker());
        match balance.oneshot(3).await {
            Ok(answer) => assert_eq!(answer, 503),
            Err(error) => assert!(error.is_try_timed_out(), "{error}"),
        }
        assert_eq!(instances.tries(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_failure_is_the_answer() {
    let instances = Instances::new(|_, _| 500);
    let balance = builder(&orders(3), Retry::new()).build(instances.maker());
    assert_eq!(balance.oneshot(2).await.unwrap(), 500);
    assert_eq!(instances.tries(), 1);
}

/// Full jitter: each rest lies anywhere below its longest, and that doubles.
#[tokio::test(start_paused = true)]
async fn it_rests_a_random_part_of_what_doubles() {
    let longest = [100, 200, 400, 400].map(Duration::from_millis);
    let mut sums = [Duration::ZERO; 4];
    let rounds = 200;
    for seed in 0..rounds {
        let instances = Instances::new(|_, _| 503);
        let retry = Retry::seeded(seed)
            .percent(100)
            .max_attempts(5)
            .initial_backoff(longest[0])
            .max_backoff(longest[3]);
        let balance = builder(&orders(5), retry).build(instances.maker());
        balance.oneshot(2).await.unwrap();
        for (nth, rest) in instances.rests().into_iter().enumerate() {
            // An answer takes 1 ms, a timer up to one more.
            assert!(
                rest <= longest[nth] + Duration::from_millis(2),
                "{nth}: {rest:?}"
            );
            sums[nth] += rest;
        }
    }
    for (nth, sum) in sums.into_iter().enumerate() {
        let mean = sum / rounds as u32;
        let half = longest[nth] / 2;
        assert!(mean.abs_diff(half) < half / 5, "{nth}: {mean:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn it_rests_as_long_as_it_is_asked_to() {
    let instances = Instances::new(|number, _| if number == 1 { 429 } else { 200 });
    let balance = builder(&orders(2), Retry::new()).build(instances.maker());
    assert_eq!(balance.oneshot(2).await.unwrap(), 200);
    let rest = instances.rests()[0];
    let asked = Duration::from_secs(3);
    assert!(
        rest >= asked && rest < asked + Duration::from_millis(5),
        "{rest:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn no_try_begins_too_late() {
    let instances = Instances::new(|_, _| 0);
    let retry = Retry::new()
        .percent(100)
        .max_attempts(10)
        .within(Duration::from_secs(3));
    let balance = builder(&orders(9), retry)
        .per_try_timeout(Duration::from_secs(1))
        .build(instances.maker());
    let error = balance.oneshot(2).await.unwrap_err();
    assert!(error.is_try_timed_out(), "{error}");
    assert_eq!(instances.tries(), 3);
}

/// While it rests its answer is held, for want of a better one; who is evicted meanwhile is not called, and
/// when nobody is left the answer that there was is the answer.
#[tokio::test(start_paused = true)]
async fn in_a_rest_the_answer_is_held_and_what_left_is_not_called() {
    let (mut writer, orders) = registry();
    writer.publish(["10.0.0.1:80", "10.0.0.2:80"].map(instance), now());
    let instances = Instances::new(|_, _| 429);
    let balance = builder(&orders, Retry::new()).build(instances.maker());
    let mut call = tokio::spawn(balance.clone().oneshot(2));
    let second = Duration::from_secs(1);
    assert!(tokio::time::timeout(second, &mut call).await.is_err());
    assert_eq!(balance.counts(), [1, 0, 0]);
    let first = instances.addresses().remove(0);
    let other = ["10.0.0.1:80", "10.0.0.2:80"]
        .into_iter()
        .find(|at| *at != first);
    writer.publish([instance(&first)], now());
    assert_eq!(call.await.unwrap().unwrap(), 429);
    assert!(!instances.addresses().iter().any(|at| Some(&**at) == other));
    // And now nobody.
    let mut call = tokio::spawn(balance.clone().oneshot(2));
    assert!(tokio::time::timeout(second, &mut call).await.is_err());
    assert_eq!(balance.counts(), [1, 0, 0]);
    let before = instances.tries();
    writer.publish([], now());
    assert_eq!(call.await.unwrap().unwrap(), 429);
    assert_eq!(instances.tries(), before);
    assert_eq!(balance.counts(), [0; 3]);
}

/// Whenever it is dropped, nothing of it is left.
#[tokio::test(start_paused = true)]
async fn it_may_be_dropped_at_any_time() {
    for ms in 0..400 {
        let instances = Instances::new(|number, _| if number % 2 == 0 { 503 } else { 0 });
        let balance = builder(&orders(3), Retry::seeded(ms).percent(100).max_attempts(9))
            .per_try_timeout(Duration::from_millis(50))
            .build(instances.maker());
        let call = balance.clone().oneshot(2);
        let _ = tokio::time::timeout(Duration::from_millis(ms), call).await;
        assert_eq!(balance.counts(), [0; 3], "after {ms} ms");
    }
}

/// Without a policy a time-out has another instance, and nothing else is sent again.
#[tokio::test(start_paused = true)]
async fn a_time_out_alone_moves_what_is_late_and_no_more() {
    let instances = Instances::new(|number, _| if number == 1 { 0 } else { 503 });
    let balance = Balance::builder(&orders(3))
        .per_try_timeout(Duration::from_millis(100))
        .replay(|request: &u32| Some(*request))
        .build(instances.maker());
    assert_eq!(balance.clone().oneshot(2).await.unwrap(), 503);
    assert_eq!(instances.tries(), 2);
    let rest = instances.rests()[0];
    assert!(rest <= Duration::from_millis(102), "at once: {rest:?}");
}

/// With one instance of three that fails, calls do not, as long as the budget is enough for that.
#[tokio::test(start_paused = true)]
async fn what_a_few_instances_fail_the_others_do() {
    for (percent, failures) in [(0, 300..=400), (100, 0..=0)] {
        let (bad, all) = ("10.0.0.1:80", orders(3));
        let instances = Instances::new(|_, _| 200);
        let make = {
            let (good, ill) = (instances.maker(), Instances::new(|_, _| 503));
            let ill = ill.maker();
            move |instance: &Instance| match instance.address().to_string() == bad {
                true => ill(instance),
                false => good(instance),
            }
        };
        let balance = builder(&all, Retry::new().percent(percent)).build(make);
        let mut failed = 0;
        for _ in 0..1_000 {
            failed += u32::from(balance.clone().oneshot(2).await.unwrap() != 200);
        }
        assert!(failures.contains(&failed), "{percent} %: {failed}");
    }
}

/// An instance knows how long a try may last, and may fail it the moment before our timer fires: that is no other
/// failure.
#[tokio::test(start_paused = true)]
async fn a_failure_when_the_time_is_over_is_a_late_try() {
    #[derive(Debug)]
    struct Cancelled;
    impl std::fmt::Display for Cancelled {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("cancelled")
        }
    }
    impl std::error::Error for Cancelled {}
    let limit = Duration::from_micros(100_300);
    for (after, late) in [(limit, true), (Duration::from_millis(50), false)] {
        // Not by a timer, which would be as late as ours: time passes, and it is polled.
        let service = tower::service_fn(move |_: u32| async move {
            tokio::time::advance(after).await;
            Err::<u32, _>(Cancelled)
        });
        let balance = Balance::builder(&orders(1))
            .per_try_timeout(limit)
            .build(move |_: &Instance| service);
        let error = balance.clone().oneshot(3).await.unwrap_err();
        assert_eq!(error.is_try_timed_out(), late, "{error}");
        assert_eq!(balance.counters().try_timeouts, u64::from(late));
    }
}

/// tower's own retry layer with three tries, around a balancer without a policy.
#[derive(Clone)]
struct Stock(u32);

impl tower::retry::Policy<u32, Answer, tower_nacos::endpoint::CallError> for Stock {
    type Future = std::future::Ready<()>;

    fn retry(
        &mut self,
        _: &mut u32,
        result: &mut Result<Answer, tower_nacos::endpoint::CallError>,
    ) -> Option<Self::Future> {
        let again = self.0 > 0 && matches!(result, Ok(503));
        self.0 = self.0.saturating_sub(u32::from(again));
        again.then(|| std::future::ready(()))
    }

    fn clone_request(&mut self, request: &u32) -> Option<u32> {
        Some(*request)
    }
}

/// Beside it: what a service of three gets, and how many calls are answered, when one instance fails and when all
/// do. A budget costs answers where a third of all fails for long; that is what ejecting outliers is for.
#[tokio::test(start_paused = true)]
async fn beside_tower_s_own_layer_the_load_is_bounded_and_outliers_do_the_rest() {
    const CALLS: usize = 3_000;
    let [good, bad] = [200, 503].map(|answer| Instances::new(move |_, _| answer));
    let make = |failing: usize| {
        let (good, bad) = (good.maker(), bad.maker());
        move |instance: &Instance| match instance.address().to_string()[7..8].parse::<usize>() {
            Ok(number) if number <= failing => bad(instance),
            _ => good(instance),
        }
    };
    let builder = || Balance::builder(&orders(3)).policy(WeightedRandom::default());
    let outcomes = |result: Result<&Answer, &Infallible>| match result {
        Ok(503) => Outcome::Failure,
        _ => Outcome::Success,
    };
    for failing in [1, 3] {
        let ours = builder()
            .outliers(Outliers::new(), outcomes)
            .retry(Retry::new())
            .replay(replay as fn(&u32) -> Option<u32>)
            .again(again as fn(Result<&Answer, &Infallible>) -> Again)
            .build(make(failing));
        let stock = tower::retry::Retry::new(Stock(2), builder().build(make(failing)));
        let mut results = Vec::new();
        for with_policy in [true, false] {
            let before = good.tries() + bad.tries();
            let mut answered = 0;
            for _ in 0..CALLS {
                let answer = match with_policy {
                    true => ours.clone().oneshot(2).await,
                    false => stock.clone().oneshot(2).await,
                };
                answered += usize::from(answer.unwrap() == 200);
            }
            let load = (good.tries() + bad.tries() - before) as f64 / CALLS as f64;
            results.push((answered as f64 / CALLS as f64, load));
        }
        println!("{failing} of 3 fail, (answered, load): ours and tower's {results:?}");
        let [(answered, load), (answered_by_stock, load_by_stock)] = results[..] else {
            unreachable!("two were counted")
        };
        assert!((1.0..=1.2).contains(&load), "{load}");
        if failing == 1 {
            assert_eq!(answered, 1.0);
            assert!(load < 1.01, "{load}");
            let stock = (0.94..0.98).contains(&answered_by_stock);
            let more = (1.38..1.51).contains(&load_by_stock);
            assert!(stock && more, "{answered_by_stock} at {load_by_stock}");
        } else {
            assert!((2.99..=3.0).contains(&load_by_stock), "{load_by_stock}");
        }
    }
}

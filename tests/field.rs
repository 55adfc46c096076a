//! What callers see of ten instances of which one is slow, one fails and one is overloaded: goodput and
//! the 99th percentile, with outlier detection and without, beside tower's own balancer; and of three that
//! are overloaded, with limits of calls at once and without. Discrete events in virtual time, each caller's the
//! same.
//!
//! `cargo test --test field -- --nocapture` prints the table.

#![allow(
    clippy::disallowed_methods,
    reason = "a test owns its clock and its tasks"
)]

mod discover_support;

use std::{
    collections::HashMap,
    future::Future,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use discover_support::{instance, now, registry};
use futures_util::future::BoxFuture;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tower::{
    BoxError, Service, ServiceExt,
    balance::p2c::Balance as Stock,
    limit::ConcurrencyLimit,
    load::{CompleteOnResponse, PendingRequestsDiscover},
    service_fn,
    util::BoxCloneSyncService,
};
use tower_nacos::{
    Balance, Instance,
    balance::{
        AdaptiveConcurrency, BalanceBuilder, FailurePercentage, Outliers, P2c, PeakEwma, Policy,
        Random, SlowStart, SuccessRate, WeightedRandom, WeightedRoundRobin,
    },
    directory::{Subscription, Writer},
    endpoint::{Outcome, Unclassified, WithOutcomes},
};

const INSTANCES: usize = 10;
const SLOW: usize = 2;
const FAILING: usize = 5;
const OVERLOADED: usize = 7;
/// Of each but the overloaded ones, which have one.
const WORKERS: usize = 4;
/// On the average, exponentially distributed; ten times that for the slow one.
const TAKES: Duration = Duration::from_millis(60);
/// What part of its calls the failing one answers with an error, at once.
const FAILS: f64 = 0.6;
/// A try has so long, and then is a failure.
const DEADLINE: Duration = Duration::from_secs(1);
/// Half of what all of them could do if all were well.
const CALLS_A_SECOND: f64 = 333.0;
const SECONDS: f64 = 32.0;
/// Of the end, once it is known who is bad.
const SETTLED: f64 = 16.0;
/// How many an overloaded instance lets wait.
const QUEUE: usize = 8;

type Called = BoxCloneSyncService<(), u16, io::Error>;

/// What is the matter.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trouble {
    Nothing,
    /// One is slow, one fails, one is overloaded.
    OneOfEach,
    /// Three are overloaded.
    Overload,
    /// The same, and they refuse what finds more than `QUEUE` before it.
    Refusals,
}

/// The instances' side: queues, workers and chance.
#[derive(Clone)]
struct Field {
    random: Arc<Mutex<StdRng>>,
    workers: Arc<HashMap<String, (Semaphore, AtomicUsize)>>,
    trouble: Trouble,
}

/// What the callers saw, in one half of the time.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// What part of the calls had a good answer in time.
    goodput: f64,
    p99: Duration,
}

fn address(at: usize) -> String {
    format!("10.0.0.{}:80", at + 1)
}

impl Field {
    fn new(trouble: Trouble) -> Self {
        let workers = (0..INSTANCES).map(|at| {
            let overloaded = match trouble {
                Trouble::Nothing => false,
                Trouble::OneOfEach => at == OVERLOADED,
                Trouble::Overload | Trouble::Refusals => at >= OVERLOADED,
            };
            let count = if overloaded { 1 } else { WORKERS };
            (address(at), (Semaphore::new(count), AtomicUsize::new(0)))
        });
        Self {
            random: Arc::new(Mutex::new(StdRng::seed_from_u64(14))),
            workers: Arc::new(workers.collect()),
            trouble,
        }
    }

    fn exponential(&self, mean: Duration) -> Duration {
        let unit: f64 = self.random.lock().unwrap().random();
        mean.mul_f64(-(1.0 - unit).ln())
    }

    async fn answer(self, address: String) -> Result<u16, io::Error> {
        let broken = self.trouble == Trouble::OneOfEach;
        let is = |at| broken && address == self::address(at);
        if is(FAILING) && self.random.lock().unwrap().random_bool(FAILS) {
            sleep(Duration::from_millis(1)).await;
            return Ok(500);
        }
        let (workers, queue) = &self.workers[&address];
        if self.trouble == Trouble::Refusals && queue.load(SeqCst) > QUEUE {
            sleep(Duration::from_millis(1)).await;
            return Ok(429);
        }
        let waits = Waits::among(queue);
        let _worker = workers.acquire().await.map_err(io::Error::other)?;
        drop(waits);
        let mean = if is(SLOW) { TAKES * 10 } else { TAKES };
        sleep(self.exponential(mean)).await;
        Ok(200)
    }

    fn make(&self, instance: &Instance) -> Called {
        let (field, address) = (self.clone(), instance.address().to_string());
        Called::new(service_fn(move |()| {
            let answer = timeout(DEADLINE, field.clone().answer(address.clone()));
            async { answer.await.map_err(io::Error::from)? }
        }))
    }

    /// Calls at random times, each with its deadline; of the last `SETTLED` seconds what came of them.
    async fn load<C, A>(&self, mut call: C) -> Seen
    where
        C: FnMut() -> A,
        A: Future<Output = Result<u16, BoxError>> + Send + 'static,
    {
        let began = Instant::now();
        let mut calls = JoinSet::new();
        loop {
            sleep(self.exponential(Duration::from_secs_f64(1.0 / CALLS_A_SECOND))).await;
            let at = began.elapsed().as_secs_f64();
            if at > SECONDS {
                break;
            }
            let answer = call();
            calls.spawn(async move {
                let since = Instant::now();
                let good = matches!(answer.await, Ok(200));
                // An error is no fast answer.
                (at, good, if good { since.elapsed() } else { DEADLINE })
            });
        }
        let mut seen = calls.join_all().await;
        seen.retain(|(at, ..)| *at > SECONDS - SETTLED);
        let good = seen.iter().filter(|(_, good, _)| *good).count();
        let mut took: Vec<_> = seen.iter().map(|(_, _, took)| *took).collect();
        took.sort();
        Seen {
            goodput: good as f64 / seen.len() as f64,
            p99: took[took.len() * 99 / 100],
        }
    }

    /// With limits of calls at once, or without.
    async fn limited<P: Policy>(&self, builder: BalanceBuilder<P>, limit: bool) -> Seen {
        let field = self.clone();
        let make = move |instance: &Instance| field.make(instance);
        if !limit {
            let balance = builder.build(make);
            return self.load(|| called(balance.clone())).await;
        }
        let judge = |result: Result<&u16, &io::Error>| match result {
            Ok(429) => Outcome::Overloaded,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Outcome::Overloaded,
            _ => Outcome::Ignored,
        };
        let balance = builder
            .adaptive_concurrency(AdaptiveConcurrency::new())
            .judge(WithOutcomes::new(Unclassified::default(), judge))
            .build(make);
        self.load(|| called(balance.clone())).await
    }

    async fn through<P: Policy>(&self, builder: BalanceBuilder<P>, detect: bool) -> Seen {
        let field = self.clone();
        let make = move |instance: &Instance| field.make(instance);
        if !detect {
            let balance = builder.build(make);
            return self.load(|| called(balance.clone())).await;
        }
        let outliers = Outliers::new()
            .success_rate(SuccessRate::new())
            .failure_percentage(FailurePercentage::new());
        let judge = |result: Result<&u16, &io::Error>| match result {
            Ok(200) => Outcome::Success,
            _ => Outcome::Failure,
        };
        let balance = builder
            .slow_start(SlowStart::new().after_ejection())
            .outliers(outliers, judge)
            .build(make);
        self.load(|| called(balance.clone())).await
    }
}

/// A place in a queue, until it is dropped.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn among(queue: &'a AtomicUsize) -> Self {
        queue.fetch_add(1, SeqCst);
        Self(queue)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

fn called<B>(balance: B) -> BoxFuture<'static, Result<u16, BoxError>>
where
    B: Service<(), Response = u16, Error: Into<BoxError> + Send> + Send + 'static,
    B::Future: Send,
{
    Box::pin(async move { balance.oneshot(()).await.map_err(Into::into) })
}

fn all() -> (Writer, Subscription) {
    let (mut writer, orders) = registry();
    writer.publish((0..INSTANCES).map(|at| instance(&address(at))), now());
    (writer, orders)
}

/// tower's own: power of two choices over the calls in flight, over our `Discover`.
async fn stock(trouble: Trouble) -> Seen {
    Random::seed_thread(14);
    let (_writer, orders) = all();
    let field = Field::new(trouble);
    let maker = field.clone();
    let discover = orders.discover(move |instance: &Instance| maker.make(instance));
    let loads = PendingRequestsDiscover::new(discover, CompleteOnResponse::default());
    let mut balance = Stock::new(loads);
    field
        .load(|| {
            use futures_util::FutureExt;
            let ready = balance.ready().now_or_never().expect("it always is");
            let called = ready.map(|balance| balance.call(()));
            async move { called?.await }
        })
        .await
}

/// The same with tower's limit on the calls of each instance, and what finds no room is shed. What an instance can do
/// is set by hand, and of the overloaded ones it is wrong.
async fn stock_limited(trouble: Trouble) -> Seen {
    Random::seed_thread(14);
    let (_writer, orders) = all();
    let field = Field::new(trouble);
    let maker = field.clone();
    let discover = orders.discover(move |instance: &Instance| {
        Called::new(ConcurrencyLimit::new(maker.make(instance), WORKERS))
    });
    let loads = PendingRequestsDiscover::new(discover, CompleteOnResponse::default());
    let mut balance = Stock::new(loads);
    field
        .load(|| {
            use futures_util::FutureExt;
            let called = match balance.ready().now_or_never() {
                Some(ready) => ready.map(|balance| balance.call(())),
                None => Err("shed".into()),
            };
            async move { called?.await }
        })
        .await
}

async fn ours<P: Policy>(policy: P, trouble: Trouble, detect: bool) -> Seen {
    Random::seed_thread(14);
    let (_writer, orders) = all();
    let builder = Balance::builder(&orders).policy(policy);
    Field::new(trouble).through(builder, detect).await
}

async fn limited<P: Policy>(policy: P, trouble: Trouble, limit: bool) -> Seen {
    Random::seed_thread(14);
    let (_writer, orders) = all();
    let builder = Balance::builder(&orders).policy(policy);
    Field::new(trouble).limited(builder, limit).await
}

fn print(name: &str, seen: Seen) -> Seen {
    println!(
        "{name:34} goodput {:6.2} %   p99 {:6.1} ms",
        seen.goodput * 100.0,
        seen.p99.as_secs_f64() * 1_000.0
    );
    seen
}

#[tokio::test(start_paused = true)]
async fn callers_see_less_of_what_is_slow_failing_or_overloaded() {
    println!("one of {INSTANCES} slow, one failing, one overloaded; the last {SETTLED} s:");
    let well = print(
        "all well, P2c",
        ours(P2c::default(), Trouble::Nothing, false).await,
    );
    let detecting = print(
        "all well, P2c, outliers",
        ours(P2c::default(), Trouble::Nothing, true).await,
    );
    print("tower's p2c", stock(Trouble::OneOfEach).await);
    let random = print(
        "WeightedRandom",
        ours(WeightedRandom::new(), Trouble::OneOfEach, false).await,
    );
    let random_with = print(
        "WeightedRandom, outliers",
        ours(WeightedRandom::new(), Trouble::OneOfEach, true).await,
    );
    let p2c = print("P2c", ours(P2c::default(), Trouble::OneOfEach, false).await);
    let p2c_with = print(
        "P2c, outliers",
        ours(P2c::default(), Trouble::OneOfEach, true).await,
    );
    let ewma = print(
        "PeakEwma",
        ours(PeakEwma::new(), Trouble::OneOfEach, false).await,
    );
    let ewma_with = print(
        "PeakEwma, outliers",
        ours(PeakEwma::new(), Trouble::OneOfEach, true).await,
    );
    // Where all are well nobody is the worse for being watched.
    assert!(
        detecting.goodput >= well.goodput - 0.001,
        "{detecting:?} {well:?}"
    );
    assert!(
        detecting.p99 < well.p99.mul_f64(1.2),
        "{detecting:?} {well:?}"
    );
    for (with, without) in [(random_with, random), (p2c_with, p2c), (ewma_with, ewma)] {
        assert!(with.goodput > without.goodput, "{with:?} {without:?}");
    }
    // Six of ten answers of the failing one are errors that come at once, so calls in flight lead to it.
    assert!(
        p2c.goodput < 0.95 && p2c_with.goodput > 0.99,
        "{p2c_with:?} {p2c:?}"
    );
    assert!(random.p99 == DEADLINE, "{random:?}");
}

#[tokio::test(start_paused = true)]
async fn limits_of_calls_at_once_spare_callers_what_is_overloaded() {
    println!("three of {INSTANCES} overloaded to twice what they can; the last {SETTLED} s:");
    let free = |name, policy, limit| async move {
        print(name, limited(policy, Trouble::Nothing, limit).await)
    };
    let well = free("all well, WeightedRandom", WeightedRandom::new(), false).await;
    let watched = free(
        "all well, WeightedRandom, limits",
        WeightedRandom::new(),
        true,
    )
    .await;
    assert!(
        watched.goodput >= well.goodput - 0.001,
        "{watched:?} {well:?}"
    );
    assert!(watched.p99 <= well.p99.mul_f64(1.1), "{watched:?} {well:?}");
    for (words, trouble) in [
        ("they queue", Trouble::Overload),
        ("they refuse", Trouble::Refusals),
    ] {
        println!("{words}:");
        let seen = [
            print("tower's p2c", stock(trouble).await),
            print(
                "tower's p2c, ConcurrencyLimit",
                stock_limited(trouble).await,
            ),
            print(
                "WeightedRandom",
                limited(WeightedRandom::new(), trouble, false).await,
            ),
            print(
                "WeightedRandom, limits",
                limited(WeightedRandom::new(), trouble, true).await,
            ),
            print(
                "WeightedRoundRobin",
                limited(WeightedRoundRobin::new(), trouble, false).await,
            ),
            print(
                "WeightedRoundRobin, limits",
                limited(WeightedRoundRobin::new(), trouble, true).await,
            ),
            print("P2c", limited(P2c::default(), trouble, false).await),
            print("P2c, limits", limited(P2c::default(), trouble, true).await),
        ];
        let [
            _,
            stock,
            random,
            random_with,
            round,
            round_with,
            p2c,
            p2c_with,
        ] = seen;
        for (with, without) in [(random_with, random), (round_with, round)] {
            assert!(
                with.goodput > 0.98 && without.goodput < 0.95,
                "{with:?} {without:?}"
            );
        }
        assert!(
            p2c_with.goodput > p2c.goodput - 0.002,
            "{p2c_with:?} {p2c:?}"
        );
        // Found out, and not set: no worse than tower's with the number that is right for most.
        assert!(
            p2c_with.goodput > stock.goodput - 0.01,
            "{p2c_with:?} {stock:?}"
        );
    }
}

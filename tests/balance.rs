//! What a call through `Balance` does, and what tower puts around it.

#![allow(
    clippy::disallowed_methods,
    reason = "a test owns its tasks and its clock"
)]

mod discover_support;

use std::{
    collections::HashMap,
    future::{Future, pending},
    io,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use discover_support::{Book, Echo, idle_context, instance, now, registry};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_nacos::{
    Balance, Instance, Subscription,
    balance::{
        BoxBalance, Candidate, Loads, Maglev, Outliers, P2c, PeakEwma, PickContext, Pickable,
        Policy, Random, WeightedRandom, WeightedRoundRobin, stable_hash,
    },
    directory::Writer,
    endpoint::{CallError, Outcome, Verdict},
    model::Address,
};

const A: &str = "10.0.0.1:80";
const B: &str = "10.0.0.2:80";
const C: &str = "10.0.0.3:80";
const TRIES: usize = 300;

struct World {
    writer: Writer,
    orders: Subscription,
    book: Book,
}

impl World {
    fn new() -> Self {
        let (writer, orders) = registry();
        let mut world = Self {
            writer,
            orders,
            book: Book::default(),
        };
        world.list(&[A, B, C]);
        world
    }

    fn list(&mut self, addresses: &[&str]) {
        let revision = self
            .writer
            .publish(addresses.iter().map(|a| instance(a)), now());
        assert_eq!(self.orders.applied_revision(), revision);
    }

    fn balance(&self) -> Balance<Echo> {
        Balance::builder(&self.orders).build(self.book.maker())
    }

    fn left_calls(&self) -> usize {
        self.book.called(B) + self.book.called(C)
    }
}

fn finish<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut idle_context()) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("all of it happens in the first poll"),
    }
}

/// Waits, generously, for something that is about to happen.
async fn until(what: &str, mut look: impl FnMut() -> bool) {
    let looked = async {
        while !look() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), looked)
        .await
        .unwrap_or_else(|_| panic!("{what}"));
}

const fn shareable<T: Clone + Send + Sync + 'static>(_: &T) {}
const fn sendable<T: Send + 'static>(_: &T) {}

#[tokio::test]
async fn it_and_its_future_can_be_shared() {
    let world = World::new();
    let mut balance = world.balance();
    shareable(&balance);
    sendable(&balance.call(1));
}

#[tokio::test]
async fn boxed_it_has_a_name_and_does_the_same() {
    struct Holder {
        orders: BoxBalance<u32, Address>,
    }
    let mut world = World::new();
    let well = |_: Result<&Address, &io::Error>| Outcome::Success;
    let balance = Balance::builder(&world.orders)
        .classify(|_: &io::Error| Verdict::Reachable)
        .outliers(Outliers::new(), well)
        .build(world.book.maker());
    let mut holder = Holder {
        orders: balance.clone().boxed(),
    };
    shareable(&holder.orders);
    sendable(&holder.orders.call(1));
    let built = holder.orders.clone().call(1);
    world.list(&[A]);
    let before = world.left_calls();
    assert_eq!(built.await.unwrap().to_string(), A);
    assert_eq!(world.left_calls(), before);
    assert_eq!(holder.orders.counters(), balance.counters());
    let explained = holder.orders.explain(&B.parse().unwrap());
    assert_ne!(explained.verdict, Pickable::Yes);
    world.list(&[]);
    let error = holder.orders.call(1).await.unwrap_err();
    assert!(error.is_no_instances(), "{error}");
}

// The traps of stock balancers, by their names in `tower_traps.rs`.

#[tokio::test]
async fn h1_and_h6_what_left_after_ready_and_after_call_is_not_entered() {
    let mut world = World::new();
    let mut balance = world.balance();
    for _ in 0..TRIES {
        world.list(&[A, B, C]);
        balance.ready().await.unwrap();
        let built = balance.call(1);
        world.list(&[A]);
        let before = world.left_calls();
        assert_eq!(built.await.unwrap().to_string(), A);
        assert_eq!(balance.call(1).await.unwrap().to_string(), A);
        assert_eq!(world.left_calls(), before);
    }
    assert_eq!(balance.counters().calls_after_evict, 0);
}

#[tokio::test]
async fn h3_a_spent_budget_hides_no_removal() {
    let mut world = World::new();
    let mut balance = world.balance();
    for _ in 0..TRIES {
        world.list(&[A, B, C]);
        balance.ready().await.unwrap().call(1).await.unwrap();
        world.list(&[A]);
        let before = world.left_calls();
        tokio::task::yield_now().await;
        while tokio::task::coop::has_budget_remaining() {
            let mut unit = pin!(tokio::task::coop::consume_budget());
            let _ = unit.as_mut().poll(&mut idle_context());
        }
        assert_eq!(balance.call(1).await.unwrap().to_string(), A);
        assert_eq!(world.left_calls(), before);
    }
}

#[tokio::test]
async fn h4_and_h5_idle_it_lets_go_of_what_left_and_no_writer_is_blocked() {
    let mut world = World::new();
    let mut balance = world.balance();
    while world.book.living(B) == 0 || world.book.living(C) == 0 {
        balance.call(1).await.unwrap();
    }
    let clone = balance.clone(); // holds nothing on to it either
    world.list(&[A]);
    until("services of what left outlive it without a call", || {
        world.book.living(B) + world.book.living(C) == 0
    })
    .await;
    for _ in 0..100 {
        world.list(&[A, B]);
        world.list(&[A]);
    }
    drop(clone);
}

#[tokio::test]
async fn h7_a_new_start_at_the_same_address_gets_a_service_of_its_own() {
    let (mut writer, orders) = registry();
    let start = |at: &'static str| {
        let metadata = [("startTime", at)].into_iter().collect();
        instance(A).with_metadata(metadata)
    };
    let mut balance = Balance::builder(&orders).build(|instance: &Instance| {
        let start = instance.metadata().get("startTime").unwrap().to_owned();
        tower::service_fn(move |_: u32| std::future::ready(Ok::<_, io::Error>(start.clone())))
    });
    writer.publish([start("1")], now());
    assert_eq!(balance.call(1).await.unwrap(), "1");
    writer.publish([start("2")], now());
    assert_eq!(balance.call(1).await.unwrap(), "2");
}

#[tokio::test]
async fn h2_after_a_removal_the_choice_is_still_the_policys() {
    let mut world = World::new();
    let slow = Slow::default();
    let balance = Balance::builder(&world.orders).build(move |_: &Instance| slow.clone());
    let mut calls: Vec<_> = (0..30).map(|n| Box::pin(balance.clone().call(n))).collect();
    for call in &mut calls {
        assert!(call.as_mut().poll(&mut idle_context()).is_pending());
    }
    let in_flight = |address: &str| {
        let explained = balance.explain(&address.parse().unwrap());
        explained.activity.map_or(0, |activity| activity.in_flight)
    };
    world.list(&[A, C]); // tower swaps another into B's place here, and calls that
    let before = [in_flight(A), in_flight(C)];
    let mut more: Vec<_> = (0..40).map(|n| Box::pin(balance.clone().call(n))).collect();
    for call in &mut more {
        let _ = call.as_mut().poll(&mut idle_context());
    }
    let after = [in_flight(A), in_flight(C)];
    assert_eq!(after.iter().sum::<u64>(), before.iter().sum::<u64>() + 40);
    let apart = after[0].abs_diff(after[1]);
    assert!(
        apart <= 4,
        "{before:?} became {after:?}: the one with fewer gets the next"
    );
}

#[tokio::test]
async fn errors_poison_nothing_not_even_a_buffer_around_it() {
    let orders = Subscription::fixed([instance(A)]);
    let balance = Balance::builder(&orders).build(|_: &Instance| {
        tower::service_fn(|request: u32| {
            let odd = io::Error::other("odd");
            std::future::ready(if request % 2 == 1 {
                Err(odd)
            } else {
                Ok(request)
            })
        })
    });
    let buffer = tower::buffer::Buffer::new(balance, 4);
    for request in 0..10 {
        let answer = buffer.clone().oneshot(request).await;
        assert_eq!(answer.is_err(), request % 2 == 1, "{answer:?}");
    }
}

#[tokio::test]
async fn an_empty_set_blocks_nobody_behind_a_buffer() {
    let mut world = World::new();
    let buffer = tower::buffer::Buffer::new(world.balance(), 4);
    world.list(&[]);
    let calls = (0..32).map(|_| buffer.clone().oneshot(1));
    for answer in futures_util::future::join_all(calls).await {
        let error = answer.unwrap_err();
        let error = error.downcast_ref::<CallError>().unwrap();
        assert!(error.is_no_instances(), "{error}");
    }
    world.list(&[B]);
    assert_eq!(buffer.oneshot(1).await.unwrap().to_string(), B);
}

#[tokio::test]
async fn the_end_of_a_subscription_leaves_the_last_set() {
    let World {
        writer,
        orders,
        book,
    } = World::new();
    let balance = Balance::builder(&orders).build(book.maker());
    balance.clone().oneshot(1).await.unwrap();
    drop((writer, orders));
    for _ in 0..100 {
        balance.clone().oneshot(1).await.unwrap();
    }
}

#[tokio::test]
async fn an_instance_whose_service_breaks_comes_back_without_the_registry() {
    let orders = Subscription::fixed([instance(A), instance(B)]);
    /// Of no more use after one call, as a connection that was closed.
    #[derive(Clone, Default)]
    struct Fragile(Arc<AtomicUsize>);
    impl Service<u32> for Fragile {
        type Response = u32;
        type Error = io::Error;
        type Future = std::future::Ready<io::Result<u32>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            let broken = self.0.load(SeqCst) > 0;
            Poll::Ready(if broken {
                Err(io::ErrorKind::BrokenPipe.into())
            } else {
                Ok(())
            })
        }

        fn call(&mut self, request: u32) -> Self::Future {
            self.0.fetch_add(1, SeqCst);
            std::future::ready(Ok(request))
        }
    }
    let balance = Balance::builder(&orders).build(|_: &Instance| Fragile::default());
    let calls = |address: &str| {
        let explained = balance.explain(&address.parse().unwrap());
        explained.activity.map_or(0, |activity| activity.calls)
    };
    let back = async {
        while calls(A) < 3 || calls(B) < 3 {
            let _ = balance.clone().oneshot(1).await; // fails at once while both are out
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), back)
        .await
        .expect("each is made anew, after its rest");
}

#[test]
fn a_set_that_is_known_to_be_empty_fails_at_once_and_says_why() {
    let mut world = World::new();
    let mut balance = world.balance();
    world.list(&[]);
    let error = finish(balance.call(1)).unwrap_err();
    assert!(error.is_no_instances());
    let text = error.to_string();
    for part in ["dev", "shop", "orders", "the registry lists none"] {
        assert!(text.contains(part), "{text}");
    }
    world.writer.publish([instance(A).with_weight(0.0)], now());
    let text = finish(balance.call(1)).unwrap_err().to_string();
    assert!(text.contains("its weight is 0"), "{text}");
    world.list(&[B]);
    assert_eq!(finish(balance.call(1)).unwrap().to_string(), B);
}

#[tokio::test(start_paused = true)]
async fn while_nothing_is_known_calls_wait_so_long_and_so_many() {
    let (mut writer, orders) = registry();
    let book = Book::default();
    let balance = Balance::builder(&orders)
        .max_waiting(2)
        .unknown_wait(Duration::from_millis(700))
        .build(book.maker());
    let began = tokio::time::Instant::now();
    let mut first = pin!(balance.clone().call(1));
    assert!(first.as_mut().poll(&mut idle_context()).is_pending());
    {
        let mut second = pin!(balance.clone().call(1));
        assert!(second.as_mut().poll(&mut idle_context()).is_pending());
        let error = finish(balance.clone().call(1)).unwrap_err();
        assert!(error.is_overloaded(), "{error}");
        assert!(error.to_string().contains("2 calls wait"), "{error}");
    }
    // The dropped one made room.
    let mut third = pin!(balance.clone().call(1));
    assert!(third.as_mut().poll(&mut idle_context()).is_pending());
    let error = first.await.unwrap_err();
    assert!(error.is_unknown(), "{error}");
    assert!(error.to_string().contains("waited 700ms"), "{error}");
    assert_eq!(began.elapsed(), Duration::from_millis(700));
    writer.publish([instance(A)], now());
    assert_eq!(third.await.unwrap().to_string(), A);
}

#[tokio::test(start_paused = true)]
async fn the_default_wait_is_three_seconds_and_ends_with_the_first_list() {
    let (mut writer, orders) = registry();
    let book = Book::default();
    let balance = Balance::builder(&orders).build(book.maker());
    let began = tokio::time::Instant::now();
    assert!(balance.clone().oneshot(1).await.unwrap_err().is_unknown());
    assert_eq!(began.elapsed(), Duration::from_secs(3));
    let waits = tokio::spawn(balance.oneshot(1));
    tokio::time::sleep(Duration::from_secs(2)).await;
    writer.publish([instance(B)], now());
    assert_eq!(waits.await.unwrap().unwrap().to_string(), B);
}

#[test]
fn without_a_runtime_nothing_is_waited_for() {
    let (_writer, orders) = registry();
    let mut balance = Balance::builder(&orders).build(Book::default().maker());
    let error = finish(balance.call(1)).unwrap_err();
    assert!(
        error.is_unknown() && error.to_string().contains("no tokio runtime"),
        "{error}"
    );
}

/// Answers when it is told to.
#[derive(Clone, Default)]
struct Slow(Arc<tokio::sync::Notify>, Arc<AtomicUsize>);

impl Service<u32> for Slow {
    type Response = u32;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<u32>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u32) -> Self::Future {
        let this = self.clone();
        this.1.fetch_add(1, SeqCst);
        Box::pin(async move {
            this.0.notified().await;
            Ok(request)
        })
    }
}

#[tokio::test]
async fn one_call_too_many_fails_at_once() {
    let orders = Subscription::fixed([instance(A), instance(B)]);
    let slow = Slow::default();
    let inner = slow.clone();
    let balance = Balance::builder(&orders)
        .max_in_flight(2)
        .build(move |_: &Instance| inner.clone());
    let never_polled = balance.clone().call(0); // counts from its first poll
    let mut calls: Vec<_> = (0..2).map(|n| Box::pin(balance.clone().call(n))).collect();
    for call in &mut calls {
        assert!(call.as_mut().poll(&mut idle_context()).is_pending());
    }
    let error = finish(balance.clone().call(3)).unwrap_err();
    assert!(error.is_overloaded() && !error.is_inner(), "{error}");
    assert!(error.to_string().contains("2 calls in flight"), "{error}");
    assert_eq!(slow.1.load(SeqCst), 2, "it reached no instance");
    calls.pop();
    let mut next = pin!(balance.clone().call(4));
    assert!(next.as_mut().poll(&mut idle_context()).is_pending());
    slow.0.notify_waiters();
    assert_eq!(next.await.unwrap(), 4);
    drop((never_polled, calls));
    assert_eq!(balance.counts(), [0, 0, 0]);
}

// What tower has, around it.

#[tokio::test]
async fn it_works_inside_of_towers_own_parts() {
    let world = World::new();
    let balance = world.balance();
    assert!(balance.clone().oneshot(1).await.is_ok());
    let mapped = balance.clone().map_response(|address| address.port());
    assert_eq!(mapped.oneshot(1).await.unwrap(), 80);

    let buffer = tower::buffer::Buffer::new(balance.clone(), 4);
    let calls = (0..32).map(|_| buffer.clone().oneshot(1));
    let answers = futures_util::future::join_all(calls).await;
    assert!(answers.iter().all(Result::is_ok));

    let mut limited = ServiceBuilder::new()
        .concurrency_limit(1)
        .timeout(Duration::from_secs(5))
        .service(balance.clone());
    assert!(limited.ready().await.unwrap().call(1).await.is_ok());
    shareable(&limited);

    let boxed: tower::util::BoxCloneService<u32, Address, CallError> =
        tower::util::BoxCloneService::new(balance);
    assert!(boxed.oneshot(1).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_timeout_around_it_leaves_the_counts_exact() {
    let orders = Subscription::fixed([instance(A)]);
    let slow = Slow::default();
    let balance = Balance::builder(&orders).build(move |_: &Instance| slow.clone());
    let timed = tower::timeout::Timeout::new(balance.clone(), Duration::from_millis(10));
    let error = timed.oneshot(1).await.unwrap_err();
    assert!(error.is::<tower::timeout::error::Elapsed>());
    assert_eq!(balance.counts(), [0, 0, 0]);
}

/// Once more after any error.
#[derive(Clone)]
struct Again(usize);

impl tower::retry::Policy<u32, u32, CallError> for Again {
    type Future = std::future::Ready<()>;

    fn retry(&mut self, _: &mut u32, result: &mut Result<u32, CallError>) -> Option<Self::Future> {
        self.0 = self.0.checked_sub(1)?;
        result.is_err().then(|| std::future::ready(()))
    }

    fn clone_request(&mut self, request: &u32) -> Option<u32> {
        Some(*request)
    }
}

#[tokio::test]
async fn retry_around_it_goes_to_another_instance_once_one_is_out() {
    let orders = Subscription::fixed([instance(A), instance(B)]);
    let balance = Balance::builder(&orders)
        .policy(WeightedRoundRobin::new())
        .classify(|error: &io::Error| Verdict::unreachable(error))
        .build(|instance: &Instance| {
            let dead = instance.address().to_string() == A;
            tower::service_fn(move |request: u32| {
                std::future::ready(if dead {
                    Err(io::Error::from(io::ErrorKind::ConnectionRefused))
                } else {
                    Ok(request)
                })
            })
        });
    let retry = tower::retry::Retry::new(Again(1), balance.clone());
    for request in 0..20 {
        assert_eq!(retry.clone().oneshot(request).await.unwrap(), request);
    }
    let dead = balance.explain(&A.parse().unwrap());
    assert!(matches!(dead.verdict, Pickable::Ejected { .. }), "{dead}");
    assert_eq!(dead.activity.unwrap().failures, 1, "{dead}");
    let text = dead.to_string();
    assert!(text.contains("could not be reached"), "{text}");
    let live = balance.explain(&B.parse().unwrap());
    assert!(live.is_pickable() && live.share == 1.0, "{live}");
    assert_eq!(live.activity.unwrap().calls, 20, "{live}");
}

#[tokio::test]
async fn all_out_fails_with_the_last_error_and_one_probe_brings_them_back() {
    let orders = Subscription::fixed([instance(A), instance(B)]);
    let up = Arc::new(AtomicUsize::new(0));
    let inner = Arc::clone(&up);
    let balance = Balance::builder(&orders)
        .classify(|error: &io::Error| Verdict::unreachable(error))
        .build(move |_: &Instance| {
            let up = Arc::clone(&inner);
            tower::service_fn(move |request: u32| {
                let up = up.load(SeqCst) > 0;
                let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
                std::future::ready(if up { Ok(request) } else { Err(refused) })
            })
        });
    for _ in 0..2 {
        assert!(balance.clone().oneshot(1).await.unwrap_err().is_inner());
    }
    let error = finish(balance.clone().call(1)).unwrap_err();
    assert!(error.is_all_unreachable(), "{error}");
    assert!(error.to_string().contains("connection refused"), "{error}");
    up.store(1, SeqCst);
    let back = async {
        while balance.clone().oneshot(1).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), back)
        .await
        .expect("a probe a second");
}

#[test]
fn without_a_runtime_an_instance_comes_back_while_another_serves() {
    let orders = Subscription::fixed([instance(A), instance(B)]);
    let (down, reached) = (Arc::new(AtomicUsize::new(1)), Arc::new(AtomicUsize::new(0)));
    let inner = (Arc::clone(&down), Arc::clone(&reached));
    let balance = Balance::builder(&orders)
        .classify(|error: &io::Error| Verdict::unreachable(error))
        .build(move |instance: &Instance| {
            let b = instance.address().to_string() == B;
            let (down, reached) = inner.clone();
            tower::service_fn(move |request: u32| {
                let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
                let out = b && down.load(SeqCst) > 0;
                reached.fetch_add(usize::from(b && !out), SeqCst);
                std::future::ready(if out { Err(refused) } else { Ok(request) })
            })
        });
    let at = B.parse().unwrap();
    while balance.explain(&at).is_pickable() {
        let _ = finish(balance.clone().call(1));
    }
    down.store(0, SeqCst);
    let until = now() + Duration::from_secs(20);
    while reached.load(SeqCst) == 0 {
        finish(balance.clone().call(1)).expect("another serves");
        assert!(
            now() < until,
            "it never comes back: {}",
            balance.explain(&at)
        );
        std::thread::yield_now();
    }
    assert!(balance.explain(&at).is_pickable());
}

#[test]
fn a_runtime_without_a_timer_is_found_out_once() {
    static FOUND: AtomicUsize = AtomicUsize::new(0);
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let untimed = panic.to_string().contains("timers are disabled");
        FOUND.fetch_add(usize::from(untimed), SeqCst);
        if !untimed {
            hook(panic);
        }
    }));
    let world = World::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(async {
        let balance = world.balance();
        for _ in 0..50 {
            balance.clone().oneshot(1).await.unwrap();
            tokio::task::yield_now().await;
        }
    });
    assert!(FOUND.load(SeqCst) <= 1, "{FOUND:?} times");
}

#[tokio::test]
async fn a_layer_makes_a_balancer_of_a_maker() {
    let world = World::new();
    let layer = Balance::builder(&world.orders)
        .policy(WeightedRandom::new())
        .into_layer();
    let balance = layer.layer(world.book.maker());
    assert!(balance.oneshot(1).await.is_ok());
}

// Cancellation.

#[tokio::test]
async fn a_future_dropped_at_any_poll_leaves_the_counts_exact() {
    let orders = Subscription::fixed([instance(A), instance(B)]);
    // Ready at the third poll, answers at the sixth.
    #[derive(Clone, Default)]
    struct Steps(u32);
    impl Service<u32> for Steps {
        type Response = u32;
        type Error = io::Error;
        type Future = Pin<Box<dyn Future<Output = io::Result<u32>> + Send>>;

        fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.0 += 1;
            cx.waker().wake_by_ref();
            if self.0 < 3 {
                return Poll::Pending;
            }
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: u32) -> Self::Future {
            Box::pin(async move {
                for _ in 0..3 {
                    tokio::task::yield_now().await;
                }
                Ok(request)
            })
        }
    }
    let balance = Balance::builder(&orders)
        .policy(PeakEwma::new())
        .max_in_flight(1)
        .build(|_: &Instance| Steps::default());
    let mut done = 0;
    for polls in 0..10 {
        let mut call = Box::pin(balance.clone().call(7));
        for _ in 0..polls {
            if call.as_mut().poll(&mut idle_context()).is_ready() {
                done += 1;
                break;
            }
        }
        drop(call);
        assert_eq!(balance.counts(), [0, 0, 0], "after {polls} polls");
    }
    assert!(done > 0);
    assert!(balance.oneshot(7).await.is_ok(), "the limit has room");
}

// Policies that misbehave, and the user's own.

/// Picks as it is told.
struct Told(fn(&Self, usize) -> Option<usize>, AtomicUsize);

impl Policy for Told {
    type Table = usize;

    fn build(&self, candidates: &[Candidate]) -> usize {
        self.1.fetch_add(1, SeqCst);
        candidates.len()
    }

    fn pick(&self, table: &usize, _: &dyn Loads, _: &mut Random, _: &PickContext) -> Option<usize> {
        (self.0)(self, *table)
    }
}

#[tokio::test]
async fn a_policy_that_misbehaves_costs_a_count_and_no_call() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let world = World::new();
    type Picker = fn(&Told, usize) -> Option<usize>;
    let bad: [(Picker, u64, u64); 3] = [
        (|_, n| Some(n), 50, 0),
        (|_, _| panic!("no idea"), 0, 50),
        (|_, _| None, 0, 0),
    ];
    for (told, out_of_range, panics) in bad {
        let balance = Balance::builder(&world.orders)
            .policy(Told(told, AtomicUsize::new(0)))
            .build(world.book.maker());
        let mut seen = HashMap::<Address, u32>::new();
        for _ in 0..50 {
            *seen
                .entry(balance.clone().oneshot(1).await.unwrap())
                .or_default() += 1;
        }
        assert_eq!(seen.len(), 3, "{seen:?}");
        let counters = balance.counters();
        assert_eq!(counters.picks_out_of_range, out_of_range);
        assert_eq!(counters.policy_panics, panics);
        assert_eq!(counters.full_scans, 50);
        assert_eq!(balance.counts(), [0, 0, 0]);
    }
    std::panic::set_hook(hook);
}

#[tokio::test(start_paused = true)]
async fn the_one_open_instance_is_found_whatever_the_policy_picks() {
    let many: Vec<String> = (0..200).map(|at| format!("10.0.1.{at}:80")).collect();
    let alive = many[137].clone();
    let orders = Subscription::fixed(many.iter().map(|address| instance(address)));
    let balance = Balance::builder(&orders)
        .policy(Told(|_, _| Some(0), AtomicUsize::new(0)))
        .classify(|error: &io::Error| Verdict::unreachable(error))
        .build(move |instance: &Instance| {
            let alive = instance.address().to_string() == alive;
            tower::service_fn(move |request: u32| {
                let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
                std::future::ready(if alive { Ok(request) } else { Err(refused) })
            })
        });
    let mut failed = 0;
    while failed < 199 {
        failed += usize::from(balance.clone().oneshot(1).await.is_err());
    }
    for _ in 0..200 {
        assert_eq!(finish(balance.clone().call(1)).unwrap(), 1);
    }
}

#[tokio::test]
async fn a_table_is_made_off_the_way_of_calls_once_for_each_change() {
    let mut world = World::new();
    let balance = Balance::builder(&world.orders)
        .policy(Told(|_, n| Some(n - 1), AtomicUsize::new(0)))
        .build(world.book.maker());
    let built = || balance.policy().1.load(SeqCst);
    until("made without a call", || built() == 1).await;
    for _ in 0..10 {
        balance.clone().oneshot(1).await.unwrap();
    }
    assert_eq!(built(), 1);
    world.list(&[A, B]);
    until("made again without a call", || built() == 2).await;
    assert_eq!(balance.clone().oneshot(1).await.unwrap().to_string(), B);
    assert_eq!(built(), 2);
}

#[tokio::test]
async fn a_new_weight_changes_the_shares_of_the_next_calls() {
    let mut world = World::new();
    let balance = world.balance();
    let share = |of: &'static str| {
        let before = world.book.called(of);
        for _ in 0..20_000 {
            finish(balance.clone().call(1)).unwrap();
        }
        (world.book.called(of) - before) as f64 / 20_000.0
    };
    assert!((share(A) - 1.0 / 3.0).abs() < 0.02);
    let weighted = [(A, 8.0), (B, 1.0), (C, 1.0)];
    let weighted = weighted.map(|(address, w)| instance(address).with_weight(w));
    world.writer.publish(weighted, now());
    assert!((share(A) - 0.8).abs() < 0.02);
    let explained = balance.explain(&A.parse().unwrap());
    assert!((explained.share - 0.8).abs() < 1e-9, "{explained}");
}

#[tokio::test]
async fn a_key_sticks_to_its_instance_across_callers_and_moves_only_when_that_leaves() {
    let mut world = World::new();
    let maker = || {
        Balance::builder(&world.orders)
            .policy(Maglev::new())
            .hash_key(|request: &u32| Some(stable_hash(&request.to_le_bytes())))
            .build(world.book.maker())
    };
    let (one, other) = (maker(), maker());
    let owners: Vec<Address> = (0..200)
        .map(|key| finish(one.clone().call(key)).unwrap())
        .collect();
    for (key, owner) in (0..200).zip(&owners) {
        assert_eq!(finish(other.clone().call(key)).unwrap(), *owner);
    }
    world.list(&[A, B]);
    let mut moved = 0;
    for (key, owner) in (0..200).zip(&owners) {
        let now = finish(one.clone().call(key)).unwrap();
        assert_eq!(finish(other.clone().call(key)).unwrap(), now);
        moved += usize::from(owner.to_string() != C && now != *owner);
    }
    assert!(moved < 20, "{moved} keys of others moved");
}

#[tokio::test]
async fn every_policy_calls_every_instance() {
    async fn all<P: Policy>(policy: P) {
        let world = World::new();
        let balance = Balance::builder(&world.orders)
            .policy(policy)
            .build(world.book.maker());
        for _ in 0..200 {
            balance.clone().oneshot(1).await.unwrap();
        }
        for address in [A, B, C] {
            assert!(world.book.called(address) > 20, "{address}");
        }
        assert_eq!(balance.counts(), [0, 0, 0]);
        assert_eq!(balance.counters().full_scans, 0);
    }
    all(P2c::new()).await;
    all(P2c::of(3)).await;
    all(WeightedRandom::new()).await;
    all(WeightedRoundRobin::new()).await;
    all(Maglev::new()).await;
}

#[tokio::test(start_paused = true)]
async fn peak_ewma_learns_from_slow_answers_failures_and_cancelled_calls() {
    let orders = Subscription::fixed([instance(A), instance(B)]);
    let called = Arc::new(Mutex::new(HashMap::<String, u32>::new()));
    let book = Arc::clone(&called);
    let balance =
        Balance::builder(&orders)
            .policy(PeakEwma::new())
            .build(move |instance: &Instance| {
                let (address, book) = (instance.address().to_string(), Arc::clone(&book));
                tower::service_fn(move |hang: bool| {
                    *book.lock().unwrap().entry(address.clone()).or_default() += 1;
                    let slow = address == A;
                    async move {
                        if slow && hang {
                            pending::<()>().await;
                        }
                        let ms = if slow { 100 } else { 10 };
                        tokio::time::sleep(Duration::from_millis(ms)).await;
                        Ok::<_, io::Error>(())
                    }
                })
            });
    // One cancelled call to A is enough to know; of B something has to be known as well, since it is
    // taken for what calls took until then.
    while called.lock().unwrap().len() < 2 {
        let call = balance.clone().oneshot(true);
        let _ = tokio::time::timeout(Duration::from_millis(500), call).await;
    }
    called.lock().unwrap().clear();
    for _ in 0..50 {
        balance.clone().oneshot(false).await.unwrap();
    }
    let slow = called.lock().unwrap().get(A).copied().unwrap_or(0);
    // One in 512 draws compares it with itself.
    assert!(slow <= 4, "{slow} of 50");
}

#[tokio::test]
async fn the_last_clone_takes_the_services_with_it() {
    let world = World::new();
    let balance = world.balance();
    while world.book.living(A) == 0 || world.book.living(B) == 0 {
        balance.clone().oneshot(1).await.unwrap();
    }
    drop(balance.clone());
    assert!(world.book.living(A) > 0);
    drop(balance);
    until("services live on", || {
        [A, B, C]
            .iter()
            .all(|address| world.book.living(address) == 0)
    })
    .await;
}

#[tokio::test]
async fn a_maker_that_panics_costs_its_instance_only() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let orders = Subscription::fixed([instance(A), instance(B)]);
    let book = Book::default();
    let inner = book.clone();
    let balance = Balance::builder(&orders).build(move |instance: &Instance| {
        assert!(instance.address().to_string() != A, "no such port");
        inner.make(instance)
    });
    for _ in 0..50 {
        assert_eq!(balance.clone().oneshot(1).await.unwrap().to_string(), B);
    }
    let explained = balance.explain(&A.parse().unwrap());
    assert!(
        matches!(&explained.verdict, Pickable::Unusable { reason, .. } if reason.contains("no such port")),
        "{explained}"
    );
    std::panic::set_hook(hook);
}

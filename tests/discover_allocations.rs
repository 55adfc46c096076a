//! What one call allocates. A file of its own: the counting allocator is the whole process's.

mod discover_support;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    convert::Infallible,
    future::{Future, Ready, ready},
    pin::{Pin, pin},
    task::{Context, Poll},
};

use discover_support::{idle_context, instance, now, registry};
use futures_core::Stream;
use tower::{Service, balance::p2c::Balance, discover::Change};
use tower_nacos::{
    Subscription,
    balance::{
        Hints, Maglev, Outliers, PeakEwma, Policy, SlowStart, SuccessRate, TrafficSplit,
        WeightedRandom, WeightedRoundRobin,
    },
    endpoint::Outcome,
    model::Instance,
};

struct Counting;

thread_local! {
    /// Of this thread: the harness has one of its own, which allocates now and then.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

fn count() {
    ALLOCATIONS.set(ALLOCATIONS.get() + 1);
}

// SAFETY: hands everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static GLOBAL: Counting = Counting;

#[derive(Clone)]
struct Noop;

impl Service<u32> for Noop {
    type Response = u32;
    type Error = Infallible;
    type Future = Ready<Result<u32, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u32) -> Self::Future {
        ready(Ok(request))
    }
}

const CALLS: usize = 1_000;

/// Allocations of so many calls, once each instance's service is there.
fn allocations(mut call: impl FnMut()) -> usize {
    (0..100).for_each(|_| call());
    let before = ALLOCATIONS.get();
    (0..CALLS).for_each(|_| call());
    ALLOCATIONS.get() - before
}

/// The same through our balancer, its clone included.
fn of_policy<P: Policy>(orders: &Subscription, policy: P) -> usize {
    let ours = tower_nacos::Balance::builder(orders).policy(policy);
    let ours = ours.build(|_: &Instance| Noop);
    allocations(|| assert_eq!(finish(ours.clone().call(1)).unwrap(), 1))
}

fn finish<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut idle_context()) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("all of it happens in the first poll"),
    }
}

#[test]
fn a_call_allocates_nothing_of_ours() {
    let (mut writer, orders) = registry();
    let list = (1..=5).map(|i| {
        let half = if i % 2 == 0 { "even" } else { "odd" };
        instance(&format!("10.0.0.{i}:80"))
            .with_cluster(if i < 3 { "HZ" } else { "SH" })
            .with_metadata([("half", half)].into_iter().collect())
    });
    writer.publish(list, now());

    let engine = orders.discover_with().bare(|_: &Instance| Noop);
    let bare = allocations(|| assert_eq!(finish(engine.call(1)).unwrap(), 1));

    let mut discovery = orders.discover(|_: &Instance| Noop);
    let mut cx = idle_context();
    let Poll::Ready(Some(Ok(Change::Insert(_, mut guarded)))) =
        Pin::new(&mut discovery).poll_next(&mut cx)
    else {
        panic!("an instance first");
    };
    let guarded = allocations(|| {
        assert!(Service::<u32>::poll_ready(&mut guarded, &mut cx).is_ready());
        assert_eq!(finish(guarded.call(1)).unwrap(), 1);
    });

    let mut balance = Balance::new(orders.discover(|_: &Instance| Noop));
    let mut cx = idle_context();
    let balance = allocations(|| {
        assert!(balance.poll_ready(&mut cx).is_ready());
        assert_eq!(finish(balance.call(1)).unwrap(), 1);
    });

    let mut ours = tower_nacos::Balance::builder(&orders).build(|_: &Instance| Noop);
    let p2c = allocations(|| assert_eq!(finish(ours.call(1)).unwrap(), 1));
    let others = [
        of_policy(&orders, WeightedRandom::new()),
        of_policy(&orders, WeightedRoundRobin::new()),
        of_policy(&orders, PeakEwma::new()),
        of_policy(&orders, Maglev::new()),
        of_policy(&orders, Maglev::new().bounded(0.25)),
    ];
    assert_eq!((p2c, others), (0, [0; 5]), "Balance allocates");

    let gray = Hints::new()
        .only(("half", "odd"))
        .cluster("SH")
        .key("user 7");
    let wrapped = tower_nacos::Balance::builder(&orders)
        .prefer_cluster("HZ")
        .slow_start(SlowStart::new())
        .outliers(
            Outliers::new().success_rate(SuccessRate::new()),
            |_: Result<&u32, &Infallible>| Outcome::Success,
        )
        .hints(move |_: &u32| gray.clone())
        .build(|_: &Instance| Noop);
    let wrapped = allocations(|| assert_eq!(finish(wrapped.clone().call(1)).unwrap(), 1));
    assert_eq!(
        wrapped, 0,
        "tiers, selectors, slow start or outliers allocate"
    );

    let split = TrafficSplit::new("half=odd: 5, *: 95".parse().unwrap());
    let keyed = tower_nacos::Balance::builder(&orders)
        .policy(Maglev::new().bounded(0.25))
        .split(&split)
        .hash_key(|request: &u32| Some(u64::from(*request)))
        .build(|_: &Instance| Noop)
        .on_no_instance(|_: u32, error| ready(Err(error)));
    let keyed = allocations(|| assert_eq!(finish(keyed.clone().call(1)).unwrap(), 1));
    assert_eq!(keyed, 0, "a split or a fallback allocates");

    let picker = tower_nacos::Balance::builder(&orders)
        .max_in_flight(10)
        .picker();
    let leases = allocations(|| finish(picker.pick()).unwrap().succeeded());
    assert_eq!(leases, 0, "a lease allocates");

    println!(
        "allocations in {CALLS} calls: bare {bare}, guarded {guarded}, tower's Balance {balance}"
    );
    assert_eq!((bare, guarded), (0, 0));
    assert_eq!(balance, CALLS, "one of tower's own for each call");
}

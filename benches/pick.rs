//! What a call through a balancer costs beside the call itself.
//!
//! `cargo bench --bench pick`; `-- --quick` for fewer rounds. Everything runs interleaved in one
//! process, a round of each after the other; a line gives medians and the spread of the ratio. The
//! service answers at once, so what is measured is the balancer: ours is pick, admission,
//! `Service::call`, first poll and release; tower's is `poll_ready`, `call` and poll.

#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    convert::Infallible,
    future::{Future, Ready, ready},
    hint::black_box,
    pin::pin,
    sync::{
        Barrier,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use tower::{
    Service, ServiceExt,
    balance::p2c::Balance as Stock,
    buffer::Buffer,
    discover::ServiceList,
    load::{CompleteOnResponse, PeakEwma as StockPeakEwma, PendingRequests},
};
use tower_nacos::{
    Balance, Instance, Subscription,
    balance::{Maglev, P2c, PeakEwma, Policy, WeightedRandom, WeightedRoundRobin, stable_hash},
};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: hands everything to the system's allocator and counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Answers at once.
#[derive(Clone)]
struct Noop;

impl Service<u64> for Noop {
    type Response = u64;
    type Error = Infallible;
    type Future = Ready<Result<u64, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Self::Future {
        ready(Ok(request))
    }
}

/// Makes so many calls.
type Caller = Box<dyn FnMut(u64)>;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    let (rounds, calls) = match () {
        () if has("--test") => (1, 1_000),
        // Rounds short enough to fit between two interruptions of a shared machine.
        () if has("--quick") => (201, 4_000),
        () => (1_001, 4_000),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let _entered = runtime.enter();

    for n in [3, 30, 300, 10_000] {
        let orders = orders(n);
        absolute("p2c", n, &orders, P2c::new(), rounds, calls);
        absolute("random", n, &orders, WeightedRandom::new(), rounds, calls);
        absolute(
            "round_robin",
            n,
            &orders,
            WeightedRoundRobin::new(),
            rounds,
            calls,
        );
        absolute("maglev", n, &orders, Maglev::new(), rounds, calls);
        absolute("peak_ewma", n, &orders, PeakEwma::new(), rounds, calls);
    }
    for n in [3, 30, 300] {
        let pending = stock(pending_requests(n));
        ratio(
            &format!("call_tower_pending_{n}"),
            p2c(n),
            pending,
            rounds,
            calls,
        );
        let stock_ewma = stock(peak_ewma(n));
        ratio(
            &format!("call_tower_peak_ewma_{n}"),
            ewma(n),
            stock_ewma,
            rounds / 4,
            calls,
        );
    }
    // The buffer's worker is a task of the runtime, as it always is; the caller is not.
    let mut buffer = Buffer::new(Stock::new(pending_requests(30)), 1024);
    let handle = runtime.handle().clone();
    let peer: Caller = Box::new(move |calls| {
        handle.block_on(async {
            for request in 0..calls {
                black_box(buffer.ready().await.unwrap().call(request).await.unwrap());
            }
        });
    });
    ratio("call_buffer_balance_30", p2c(30), peer, rounds / 4, calls);
    // At its best: many callers, so that the worker seldom sleeps; all on the runtime's one worker.
    for callers in [16, 256] {
        let buffer = Buffer::new(Stock::new(pending_requests(30)), 1024);
        let handle = runtime.handle().clone();
        let peer: Caller = Box::new(move |calls| {
            let tasks: Vec<_> = (0..callers)
                .map(|_| {
                    let mut buffer = buffer.clone();
                    handle.spawn(async move {
                        for request in 0..calls / callers {
                            black_box(buffer.ready().await.unwrap().call(request).await.unwrap());
                        }
                    })
                })
                .collect();
            handle.block_on(async {
                for task in tasks {
                    task.await.unwrap();
                }
            });
        });
        ratio(
            &format!("call_buffer_balance_30_callers_{callers}"),
            p2c(30),
            peer,
            rounds / 4,
            calls,
        );
    }
}

fn orders(n: usize) -> Subscription {
    Subscription::fixed((0..n).map(|at| {
        let address = format!("10.{}.{}.{}:80", at / 62_500, at / 250 % 250, at % 250);
        Instance::parse(&address).unwrap()
    }))
}

fn ours<P: Policy>(orders: &Subscription, policy: P) -> impl FnMut(u64) + Clone + Send + 'static {
    let mut balance = Balance::builder(orders)
        .policy(policy)
        .hash_key(|request: &u64| Some(stable_hash(&request.to_le_bytes())))
        .build(|_: &Instance| Noop);
    move |calls| {
        let mut cx = Context::from_waker(Waker::noop());
        for request in 0..calls {
            assert!(Service::<u64>::poll_ready(&mut balance, &mut cx).is_ready());
            let answer = pin!(balance.call(request)).poll(&mut cx);
            assert!(black_box(answer).is_ready());
        }
    }
}

fn p2c(n: usize) -> Caller {
    Box::new(plain(n, P2c::new()))
}

fn ewma(n: usize) -> Caller {
    Box::new(plain(n, PeakEwma::new()))
}

/// Without a hash key.
fn plain<P: Policy>(n: usize, policy: P) -> impl FnMut(u64) {
    let mut balance = Balance::builder(&orders(n))
        .policy(policy)
        .build(|_: &Instance| Noop);
    move |calls| {
        let mut cx = Context::from_waker(Waker::noop());
        for request in 0..calls {
            assert!(Service::<u64>::poll_ready(&mut balance, &mut cx).is_ready());
            let answer = pin!(balance.call(request)).poll(&mut cx);
            assert!(black_box(answer).is_ready());
        }
    }
}

fn pending_requests(n: usize) -> ServiceList<Vec<PendingRequests<Noop>>> {
    let one = || PendingRequests::new(Noop, CompleteOnResponse::default());
    ServiceList::new((0..n).map(|_| one()).collect::<Vec<_>>())
}

fn peak_ewma(n: usize) -> ServiceList<Vec<StockPeakEwma<Noop>>> {
    let one = || {
        let (default, decay) = (Duration::from_millis(30), 10e9);
        StockPeakEwma::new(Noop, default, decay, CompleteOnResponse::default())
    };
    ServiceList::new((0..n).map(|_| one()).collect::<Vec<_>>())
}

fn stock<D>(discover: D) -> Caller
where
    D: tower::discover::Discover + Unpin + 'static,
    D::Key: std::hash::Hash + Clone,
    D::Error: Into<tower::BoxError>,
    D::Service: Service<u64, Response = u64> + tower::load::Load,
    <D::Service as tower::load::Load>::Metric: std::fmt::Debug,
    <D::Service as Service<u64>>::Error: Into<tower::BoxError>,
{
    let mut balance = Stock::new(discover);
    Box::new(move |calls| {
        let mut cx = Context::from_waker(Waker::noop());
        for request in 0..calls {
            assert!(balance.poll_ready(&mut cx).is_ready());
            let answer = pin!(balance.call(request)).poll(&mut cx);
            assert!(black_box(answer).is_ready());
        }
    })
}

/// One thread, and two at once with a clone each.
fn absolute<P: Policy>(
    what: &str,
    n: usize,
    orders: &Subscription,
    policy: P,
    rounds: usize,
    calls: u64,
) {
    let mut one = ours(orders, policy);
    one(calls.max(20 * n as u64)); // every instance's service is made
    let before = ALLOCATIONS.load(Relaxed);
    one(1_000);
    let allocations = ALLOCATIONS.load(Relaxed) - before;
    let (mut alone, mut together) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        alone.push(timed(&mut one, calls));
        let barrier = Barrier::new(2);
        let slowest = std::thread::scope(|scope| {
            let threads = [(); 2].map(|()| {
                let (mut clone, barrier) = (one.clone(), &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    timed(&mut clone, calls)
                })
            });
            threads
                .map(|thread| thread.join().unwrap())
                .into_iter()
                .fold(0.0, f64::max)
        });
        together.push(slowest);
    }
    let mut gains: Vec<f64> = alone
        .iter()
        .zip(&together)
        .map(|(a, t)| 2.0 * a / t)
        .collect();
    let (alone, together, gain) = (
        median(&mut alone),
        median(&mut together),
        median(&mut gains),
    );
    println!(
        "pick {what}_{n} call_ns={alone:.1} two_threads_ns={together:.1} \
         two_over_one={gain:.2} allocs_per_1000={allocations}"
    );
}

fn ratio(what: &str, mut ours: Caller, mut peer: Caller, rounds: usize, calls: u64) {
    let (calls, rounds) = (calls.max(256), rounds.max(1));
    ours(calls.max(100_000));
    peer(calls);
    let (mut own, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        own.push(timed(&mut ours, calls));
        theirs.push(timed(&mut peer, calls));
    }
    let before = ALLOCATIONS.load(Relaxed);
    ours(1_000);
    let between = ALLOCATIONS.load(Relaxed);
    peer(1_024);
    let after = ALLOCATIONS.load(Relaxed);
    let mut ratios: Vec<f64> = theirs.iter().zip(&own).map(|(t, o)| t / o).collect();
    let (own, theirs, ratio) = (median(&mut own), median(&mut theirs), median(&mut ratios));
    println!(
        "ratio {what} ours_ns={own:.1} peer_ns={theirs:.1} peer_over_ours={ratio:.2} \
         middle_half={:.2}..{:.2} ours_allocs={:.2} peer_allocs={:.2}",
        ratios[ratios.len() / 4],
        ratios[ratios.len() * 3 / 4],
        (between - before) as f64 / 1e3,
        (after - between) as f64 / 1024.0,
    );
}

/// ns a call.
fn timed(caller: &mut impl FnMut(u64), calls: u64) -> f64 {
    let start = Instant::now();
    caller(calls);
    start.elapsed().as_nanos() as f64 / calls as f64
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

//! What a call through a balancer costs beside the call itself.
//!
//! `cargo bench --bench pick`; `-- --quick` for fewer rounds, `-- <word>` for the lines that contain
//! it. Everything runs interleaved in one process, a round of each after the other; a line gives
//! medians and the spread of the ratio. The service answers at once, so what is measured is the
//! balancer: `pass` is pick, admission and release; a call is that, the service's clone,
//! `Service::call`, the first poll and the counters; tower's is `poll_ready`, `call` and poll.
//!
//! `held`: as many calls as there are instances are in flight all the while, so that every P2C has
//! two loads to compare, ours and tower's. `idle`: none is, and ours stops at its first draw.

#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]

mod support;

use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    hint::black_box,
    pin::{Pin, pin},
    sync::Barrier,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use http::Request;
use http_body_util::BodyExt;
use support::{allocations, median, timed};
use tokio::{task::JoinSet, time::timeout};
use tower::{
    Service, ServiceExt,
    balance::p2c::Balance as Stock,
    buffer::Buffer,
    discover::ServiceList,
    load::{CompleteOnResponse, PeakEwma as StockPeakEwma, PendingRequests},
};
use tower_nacos::{
    Balance, Client, Instance, Subscription,
    balance::{
        Hints, Maglev, P2c, PeakEwma, Policy, WeightedRandom, WeightedRoundRobin, stable_hash,
    },
    status::{Observe, StatusPage},
    testing::Registry,
};

/// Answers at once, unless the request says never.
#[derive(Clone)]
struct Noop;

/// The request that is never answered.
const NEVER: u64 = u64::MAX;

enum Answer {
    Now(Ready<Result<u64, Infallible>>),
    Never,
}

impl Future for Answer {
    type Output = Result<u64, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Now(ready) => Pin::new(ready).poll(cx),
            Self::Never => Poll::Pending,
        }
    }
}

impl Service<u64> for Noop {
    type Response = u64;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Self::Future {
        match request {
            NEVER => Answer::Never,
            _ => Answer::Now(ready(Ok(request))),
        }
    }
}

/// Makes so many calls.
type Caller = Box<dyn FnMut(u64)>;

struct Bench {
    rounds: usize,
    calls: u64,
    only: Vec<String>,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    let (rounds, calls) = match () {
        () if has("--test") => (1, 1_000),
        // Rounds short enough to fit between two interruptions of a shared machine.
        () if has("--quick") => (201, 4_000),
        () => (1_001, 4_000),
    };
    let only = args.into_iter().filter(|arg| !arg.starts_with("--"));
    let bench = Bench {
        rounds,
        calls,
        only: only.collect(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let _entered = runtime.enter();

    for n in [3, 30, 300, 10_000] {
        bench.absolute("p2c", n, P2c::new());
        bench.absolute("random", n, WeightedRandom::new());
        bench.absolute("round_robin", n, WeightedRoundRobin::new());
        bench.absolute("maglev", n, Maglev::new());
        bench.absolute("peak_ewma", n, PeakEwma::new());
    }
    for n in [3, 30, 300] {
        for (load, held) in [("held", n), ("idle", 0)] {
            let name = |peer: &str| match load {
                "held" => format!("call_tower_{peer}_{n}"),
                idle => format!("call_tower_{peer}_{n}_{idle}"),
            };
            bench.ratio(&name("pending"), bench.rounds, || {
                (plain(n, P2c::new(), held), stock(pending_requests(n), held))
            });
            bench.ratio(&name("peak_ewma"), bench.rounds / 4, || {
                (plain(n, PeakEwma::new(), held), stock(peak_ewma(n), held))
            });
        }
    }
    // What our own features cost: ours is with the feature, the peer ours without.
    let clustered = || {
        let instances = (0..300).map(|at| {
            let instance = Instance::parse(&format!("10.0.{}.{}:80", at / 250, at % 250)).unwrap();
            instance.with_cluster(["HZ", "SH", "BJ"][at % 3])
        });
        Balance::builder(&Subscription::fixed(instances))
    };
    let make = |_: &Instance| Noop;
    bench.ratio("p2c_with_tiers_300", bench.rounds, || {
        let tiers = clustered().prefer_clusters(["HZ", "SH"]).build(make);
        (calling(tiers, 300), calling(clustered().build(make), 300))
    });
    bench.ratio("p2c_absent_hint_300", bench.rounds, || {
        let hinted = clustered().hints(|_: &u64| Hints::new()).build(make);
        (calling(hinted, 300), calling(clustered().build(make), 300))
    });
    bench.ratio("p2c_prefer_hint_300", bench.rounds, || {
        let near = Hints::new().cluster("SH");
        let hinted = clustered().hints(move |_: &u64| near.clone()).build(make);
        (calling(hinted, 300), calling(clustered().build(make), 300))
    });
    bench.ratio("p2c_request_durations_300", bench.rounds, || {
        let timed = clustered().request_durations().build(make);
        (calling(timed, 300), calling(clustered().build(make), 300))
    });
    bench.ratio("p2c_status_300", bench.rounds, || {
        let shown = clustered().build(make);
        let page = runtime.block_on(shown_to_somebody(&shown));
        let mut call = calling(shown, 300);
        let ours: Caller = Box::new(move |calls| {
            let _page = &page;
            call(calls);
        });
        (ours, calling(clustered().build(make), 300))
    });
    bench.ratio("p2c_status_and_request_durations_300", bench.rounds, || {
        let shown = clustered().request_durations().build(make);
        let page = runtime.block_on(shown_to_somebody(&shown));
        let mut call = calling(shown, 300);
        let ours: Caller = Box::new(move |calls| {
            let _page = &page;
            call(calls);
        });
        (ours, calling(clustered().build(make), 300))
    });
    // The buffer's worker is a task of the runtime, as it always is; the caller is not.
    bench.ratio("call_buffer_balance_30", bench.rounds / 4, || {
        let mut buffer = Buffer::new(Stock::new(pending_requests(30)), 1024);
        let handle = runtime.handle().clone();
        let peer: Caller = Box::new(move |calls| {
            handle.block_on(async {
                for request in 0..calls {
                    black_box(buffer.ready().await.unwrap().call(request).await.unwrap());
                }
            });
        });
        (plain(30, P2c::new(), 30), peer)
    });
    // At its best: many callers, so that the worker seldom sleeps; all on the runtime's one worker.
    for callers in [16, 256] {
        let name = format!("call_buffer_balance_30_callers_{callers}");
        bench.ratio(&name, bench.rounds / 4, || {
            let buffer = Buffer::new(Stock::new(pending_requests(30)), 1024);
            let handle = runtime.handle().clone();
            let peer: Caller = Box::new(move |calls| {
                let tasks: Vec<_> = (0..callers)
                    .map(|_| {
                        let mut buffer = buffer.clone();
                        handle.spawn(async move {
                            for request in 0..calls / callers {
                                let ready = buffer.ready().await.unwrap();
                                black_box(ready.call(request).await.unwrap());
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
            (plain(30, P2c::new(), 30), peer)
        });
    }
}

/// Shows it on a status page that somebody has open: whoever listens to what changes, and asks for the page at
/// each event and every second. For as long as what this returns is kept.
async fn shown_to_somebody(balance: &impl Observe) -> (Registry, Client, StatusPage, JoinSet<()>) {
    let registry = Registry::start().await.unwrap();
    let nacos = Client::connect(&registry.addr()).await.unwrap();
    let status = StatusPage::new(&nacos).with(balance);
    let ask = async |status: &StatusPage, query: &str| {
        let request = Request::get(format!("/?{query}")).body(()).unwrap();
        let Ok(answer) = status.clone().oneshot(request).await;
        answer.into_body()
    };
    let page = status.clone();
    let mut events = ask(&status, "format=events").await;
    let mut reading = JoinSet::new();
    reading.spawn(async move {
        loop {
            let _ = timeout(Duration::from_secs(1), events.frame()).await;
            let shown = ask(&page, "format=json&limit=200").await;
            assert!(!shown.collect().await.unwrap().to_bytes().is_empty());
        }
    });
    (registry, nacos, status, reading)
}

fn orders(n: usize) -> Subscription {
    Subscription::fixed((0..n).map(|at| {
        let address = format!("10.{}.{}.{}:80", at / 62_500, at / 250 % 250, at % 250);
        Instance::parse(&address).unwrap()
    }))
}

/// With a hash key. Also the one that only passes: picks, is admitted, and lets go.
fn ours<P: Policy>(
    n: usize,
    policy: P,
) -> (
    impl FnMut(u64) + Clone + Send + 'static,
    impl FnMut(u64) + Clone + Send + 'static,
) {
    let mut balance = Balance::builder(&orders(n))
        .policy(policy)
        .hash_key(|request: &u64| Some(stable_hash(&request.to_le_bytes())))
        .build(|_: &Instance| Noop);
    let passing = balance.clone();
    // Calls take any instance while the janitor is still at the first table; a pass does not.
    while !passing.pass(&Hints::new()) {
        std::thread::yield_now();
    }
    let call = move |calls| {
        let mut cx = Context::from_waker(Waker::noop());
        for request in 0..calls {
            assert!(Service::<u64>::poll_ready(&mut balance, &mut cx).is_ready());
            let answer = pin!(balance.call(request)).poll(&mut cx);
            assert!(black_box(answer).is_ready());
        }
    };
    let pass = move |calls: u64| {
        for request in 0..calls {
            let hints = Hints::new().hash_key(stable_hash(&request.to_le_bytes()));
            assert!(black_box(passing.pass(&hints)));
        }
    };
    (call, pass)
}

/// Without a hash key.
fn plain<P: Policy>(n: usize, policy: P, held: usize) -> Caller {
    let balance = Balance::builder(&orders(n)).policy(policy);
    calling(balance.build(|_: &Instance| Noop), held)
}

fn calling<B>(mut balance: B, held: usize) -> Caller
where
    B: Service<u64, Response = u64, Error: std::fmt::Debug, Future: 'static> + 'static,
{
    let held: Vec<_> = (0..held)
        .map(|_| {
            let mut call = Box::pin(balance.call(NEVER));
            let mut cx = Context::from_waker(Waker::noop());
            assert!(call.as_mut().poll(&mut cx).is_pending());
            call
        })
        .collect();
    Box::new(move |calls| {
        let mut cx = Context::from_waker(Waker::noop());
        let _held = &held;
        for request in 0..calls {
            assert!(balance.poll_ready(&mut cx).is_ready());
            let answer = pin!(balance.call(request)).poll(&mut cx);
            assert!(black_box(answer).is_ready());
        }
    })
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

fn stock<D>(discover: D, held: usize) -> Caller
where
    D: tower::discover::Discover + Unpin + 'static,
    D::Key: std::hash::Hash + Clone,
    D::Error: Into<tower::BoxError>,
    D::Service: Service<u64, Response = u64, Future: 'static> + tower::load::Load,
    <D::Service as tower::load::Load>::Metric: std::fmt::Debug,
    <D::Service as Service<u64>>::Error: Into<tower::BoxError>,
{
    let mut balance = Stock::new(discover);
    let mut cx = Context::from_waker(Waker::noop());
    let held: Vec<_> = (0..held)
        .map(|_| {
            assert!(balance.poll_ready(&mut cx).is_ready());
            let mut call = Box::pin(balance.call(NEVER));
            assert!(call.as_mut().poll(&mut cx).is_pending());
            call
        })
        .collect();
    Box::new(move |calls| {
        let mut cx = Context::from_waker(Waker::noop());
        let _held = &held;
        for request in 0..calls {
            assert!(balance.poll_ready(&mut cx).is_ready());
            let answer = pin!(balance.call(request)).poll(&mut cx);
            assert!(black_box(answer).is_ready());
        }
    })
}

impl Bench {
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|word| name.contains(word.as_str()))
    }

    /// One thread, and two at once with a clone each: a pass, and a call.
    fn absolute<P: Policy>(&self, what: &str, n: usize, policy: P) {
        let name = format!("{what}_{n}");
        if !self.wants(&name) {
            return;
        }
        let (mut call, mut pass) = ours(n, policy);
        call(self.calls.max(20 * n as u64)); // every instance's service is made
        let before = allocations();
        call(1_000);
        pass(1_000);
        let allocations = allocations() - before;
        let mut ns: [Vec<f64>; 7] = Default::default();
        let mut clock = |calls| {
            for _ in 0..calls {
                black_box(Instant::now());
            }
        };
        for _ in 0..self.rounds {
            let pass_one = self.ns(&mut pass);
            let pass_two = self.both(&pass);
            let call_one = self.ns(&mut call);
            let call_two = self.both(&call);
            let clock_one = self.ns(&mut clock);
            let gains = [2.0 * pass_one / pass_two, 2.0 * call_one / call_two];
            for (all, one) in ns.iter_mut().zip([
                pass_one, pass_two, gains[0], call_one, call_two, gains[1], clock_one,
            ]) {
                all.push(one);
            }
        }
        let [pass, pass_two, pass_gain, call, call_two, call_gain, clock] =
            ns.map(|mut ns| median(&mut ns));
        println!(
            "pick {name} pass_ns={pass:.1} two_threads_ns={pass_two:.1} two_over_one={pass_gain:.2} \
             call_ns={call:.1} call_two_threads_ns={call_two:.1} call_two_over_one={call_gain:.2} \
             allocs_per_2000={allocations} clock_ns={clock:.1} pass_over_clock={:.2}",
            pass / clock
        );
    }

    /// ns each.
    fn ns(&self, caller: &mut impl FnMut(u64)) -> f64 {
        timed(|| caller(self.calls)) / self.calls as f64
    }

    /// ns each of the slower of two threads that run at once.
    fn both(&self, caller: &(impl FnMut(u64) + Clone + Send)) -> f64 {
        let barrier = Barrier::new(2);
        std::thread::scope(|scope| {
            let threads = [(); 2].map(|()| {
                let (mut clone, barrier) = (caller.clone(), &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    self.ns(&mut clone)
                })
            });
            let ended = threads.map(|thread| thread.join().unwrap());
            ended.into_iter().fold(0.0, f64::max)
        })
    }

    fn ratio(&self, what: &str, rounds: usize, make: impl FnOnce() -> (Caller, Caller)) {
        if !self.wants(what) {
            return;
        }
        let (mut ours, mut peer) = make();
        let (calls, rounds) = (self.calls.max(256), rounds.max(1));
        ours(calls.max(100_000));
        peer(calls);
        let (mut own, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            own.push(timed(|| ours(calls)) / calls as f64);
            theirs.push(timed(|| peer(calls)) / calls as f64);
        }
        let before = allocations();
        ours(1_000);
        let between = allocations();
        peer(1_024);
        let after = allocations();
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
}

//! What choosing an instance, or a whole call of one that answers at once, costs: ours beside what
//! others have. Rounds are interleaved; of the SDK with the registry's list in its cache.
//!
//! In every comparison with tower as many calls as there are instances are in flight all the while,
//! on both sides, so that both compare two loads.

use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    hint::black_box,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use pingora_load_balancing::{
    Backend, Backends, LoadBalancer, discovery,
    selection::{BackendIter, BackendSelection, Random, RoundRobin},
};
use tokio::runtime::Handle;
use tower::{
    Service, ServiceExt,
    balance::p2c::Balance as Stock,
    buffer::Buffer,
    discover::{Discover, ServiceList},
    load::{CompleteOnResponse, Load, PeakEwma as StockPeakEwma, PendingRequests},
};
use tower_nacos::{
    Balance, Client, Instance, Subscription,
    balance::{P2c, PeakEwma, Picker, Policy, WeightedRandom, WeightedRoundRobin},
    testing::Registry,
};

use crate::{
    Error, HANG, option, peer,
    stats::{interval_of_median, median},
};

type Caller = Box<dyn FnMut(u64)>;

/// Answers at once, unless it is never to.
#[derive(Clone)]
struct Noop;

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

    fn call(&mut self, request: u64) -> Answer {
        match request {
            NEVER => Answer::Never,
            _ => Answer::Now(ready(Ok(request))),
        }
    }
}

pub async fn run() -> Result<(), Error> {
    let rounds = option("--rounds", 201)?;
    let handle = Handle::current();
    // The loops block: off the runtime's one worker, which is the buffers'.
    let local = tokio::task::spawn_blocking(move || {
        let _entered = handle.enter();
        of_tower(rounds, &handle);
        of_pingora(rounds);
    });
    local.await?;
    of_the_sdk(rounds.min(31)).await
}

fn of_tower(rounds: usize, handle: &Handle) {
    for n in [3, 30, 300] {
        let name = format!("call_tower_pending_{n}");
        ratio(
            &name,
            rounds,
            4_000,
            call(n, P2c::new()),
            stock(pending(n), n),
        );
        let name = format!("call_tower_peak_ewma_{n}");
        ratio(
            &name,
            rounds,
            4_000,
            call(n, PeakEwma::new()),
            stock(ewma(n), n),
        );
    }
    for callers in [1, 16, 256] {
        let name = match callers {
            1 => "call_buffer_balance_30".to_owned(),
            many => format!("call_buffer_balance_30_callers_{many}"),
        };
        let buffer = Buffer::new(Stock::new(pending(30)), 1024);
        let runtime = handle.clone();
        let peer: Caller = Box::new(move |calls| {
            let tasks: Vec<_> = (0..callers)
                .map(|_| {
                    let mut buffer = buffer.clone();
                    runtime.spawn(async move {
                        for request in 0..calls / callers {
                            let ready = buffer.ready().await.expect("it is not closed");
                            black_box(ready.call(request).await.expect("infallible"));
                        }
                    })
                })
                .collect();
            runtime.block_on(async {
                for task in tasks {
                    task.await.expect("it does not panic");
                }
            });
        });
        ratio(&name, rounds / 4, 4_096, call(30, P2c::new()), peer);
    }
}

fn of_pingora(rounds: usize) {
    for n in [3, 30, 300] {
        let ours = picks(n, WeightedRoundRobin::new());
        let name = format!("pick_pingora_round_robin_{n}");
        ratio(&name, rounds, 4_000, ours, pingora::<RoundRobin>(n));
        let ours = picks(n, WeightedRandom::new());
        let name = format!("pick_pingora_random_{n}");
        ratio(&name, rounds, 4_000, ours, pingora::<Random>(n));
    }
}

async fn of_the_sdk(rounds: usize) -> Result<(), Error> {
    let registry = Registry::start().await?;
    let sdk = peer::client(&registry.addr()).await?;
    let ours = Client::connect(registry.addr()).await?;
    for n in [10_usize, 100, 1_000] {
        let service = format!("picks-{n}");
        registry.register_as("provider", &*service, &instances(n));
        let listed = ours.subscribe(&*service).await?;
        listed.wait_for(n, HANG).await?;
        let picker = Balance::builder(&listed)
            .policy(WeightedRandom::new())
            .picker();
        let select =
            || sdk.select_one_healthy_instance(service.clone(), peer::group(), Vec::new(), true);
        let cached = async {
            while sdk
                .get_all_instances(service.clone(), peer::group(), Vec::new(), true)
                .await
                .map_or(0, |list| list.len())
                != n
            {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(HANG, cached).await?;
        select().await?; // subscribed, and in its cache
        let calls = (200_000 / n as u64).min(1_000);
        let (mut own, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            own.push(timed(4_000, || take(&picker, 4_000)));
            let begin = Instant::now();
            for _ in 0..calls {
                black_box(select().await?);
            }
            theirs.push(begin.elapsed().as_nanos() as f64 / calls as f64);
        }
        tell(&format!("pick_nacos_sdk_{n}"), &own, &theirs);
    }
    Ok(())
}

fn address(at: usize) -> String {
    format!("10.0.{}.{}:80", at / 250, at % 250)
}

fn instances(n: usize) -> Vec<Instance> {
    let instance = |at| Instance::parse(&address(at)).expect("an address");
    (0..n).map(instance).collect()
}

fn subscription(n: usize) -> Subscription {
    Subscription::fixed(instances(n))
}

/// A whole call through ours.
fn call<P: Policy>(n: usize, policy: P) -> Caller {
    let balance = Balance::builder(&subscription(n)).policy(policy);
    let mut balance = balance.build(|_: &Instance| Noop);
    let held = hold(n, &mut balance);
    Box::new(move |calls| {
        let _held = &held;
        let mut cx = Context::from_waker(Waker::noop());
        for request in 0..calls {
            assert!(Service::<u64>::poll_ready(&mut balance, &mut cx).is_ready());
            let answer = pin!(balance.call(request)).poll(&mut cx);
            assert!(black_box(answer).is_ready());
        }
    })
}

/// As many calls in flight.
fn hold<S: Service<u64>>(n: usize, service: &mut S) -> Vec<Pin<Box<S::Future>>> {
    let mut cx = Context::from_waker(Waker::noop());
    let mut one = || {
        assert!(service.poll_ready(&mut cx).is_ready());
        let mut call = Box::pin(service.call(NEVER));
        assert!(call.as_mut().poll(&mut cx).is_pending());
        call
    };
    (0..n).map(|_| one()).collect()
}

fn picks<P: Policy>(n: usize, policy: P) -> Caller {
    let picker = Balance::builder(&subscription(n)).policy(policy).picker();
    Box::new(move |calls| take(&picker, calls))
}

/// Leases that are given back at once.
fn take<P: Policy>(picker: &Picker<P>, calls: u64) {
    for _ in 0..calls {
        black_box(picker.try_pick().expect("there are instances"));
    }
}

fn pending(n: usize) -> ServiceList<Vec<PendingRequests<Noop>>> {
    let one = || PendingRequests::new(Noop, CompleteOnResponse::default());
    ServiceList::new((0..n).map(|_| one()).collect::<Vec<_>>())
}

fn ewma(n: usize) -> ServiceList<Vec<StockPeakEwma<Noop>>> {
    let one = || {
        let (default, decay) = (Duration::from_millis(30), 10e9);
        StockPeakEwma::new(Noop, default, decay, CompleteOnResponse::default())
    };
    ServiceList::new((0..n).map(|_| one()).collect::<Vec<_>>())
}

fn stock<D>(discover: D, held: usize) -> Caller
where
    D: Discover + Unpin + 'static,
    D::Key: std::hash::Hash + Clone,
    D::Error: Into<tower::BoxError>,
    D::Service: Service<u64, Response = u64, Future: 'static> + Load,
    <D::Service as Load>::Metric: std::fmt::Debug,
    <D::Service as Service<u64>>::Error: Into<tower::BoxError>,
{
    let mut balance = Stock::new(discover);
    let held = hold(held, &mut balance);
    Box::new(move |calls| {
        let _held = &held;
        let mut cx = Context::from_waker(Waker::noop());
        for request in 0..calls {
            assert!(balance.poll_ready(&mut cx).is_ready());
            let answer = pin!(balance.call(request)).poll(&mut cx);
            assert!(black_box(answer).is_ready());
        }
    })
}

/// pingora's selection, which counts nothing and is told of nothing.
fn pingora<S>(n: usize) -> Caller
where
    S: BackendSelection + 'static,
    S::Iter: BackendIter,
{
    let backends = (0..n).map(|at| Backend::new(&address(at)).expect("an address"));
    let discovery = discovery::Static::new(backends.collect());
    let balancer = LoadBalancer::<S>::from_backends(Backends::new(discovery));
    // Its static discovery is ready at once.
    let updated = pin!(balancer.update()).poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(updated, Poll::Ready(Ok(()))));
    Box::new(move |calls| {
        for _ in 0..calls {
            black_box(balancer.select(b"", 256).expect("there are backends"));
        }
    })
}

fn ratio(what: &str, rounds: usize, calls: u64, mut ours: Caller, mut peer: Caller) {
    ours(100_000);
    peer(calls);
    let (mut own, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..rounds.max(11) {
        own.push(timed(calls, || ours(calls)));
        theirs.push(timed(calls, || peer(calls)));
    }
    tell(what, &own, &theirs);
}

fn tell(what: &str, own: &[f64], theirs: &[f64]) {
    let ratios: Vec<f64> = theirs.iter().zip(own).map(|(t, o)| t / o).collect();
    let (low, high) = interval_of_median(&ratios);
    println!(
        "ratio {what} ours_ns={:.1} peer_ns={:.1} peer_over_ours={:.2} ci95={low:.2}..{high:.2} rounds={}",
        median(own),
        median(theirs),
        median(&ratios),
        ratios.len(),
    );
}

/// ns each.
fn timed(calls: u64, what: impl FnOnce()) -> f64 {
    let begin = Instant::now();
    what();
    begin.elapsed().as_nanos() as f64 / calls as f64
}

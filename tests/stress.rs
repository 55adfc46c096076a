//! Calls under churn from several threads, audited at `Service::call`.
//!
//! A churner removes and lists instances, takes their weight away and gives it back, flips their
//! health. Once a revision is applied it marks what may not be called in it, and it takes the mark
//! away before it lets the instance back in. A service that finds itself marked inside of `call`
//! counts a violation: there must be none. With the gates off the same harness counts some, which
//! shows that it can see them.
//!
//! `STRESS_CALLS=20000000 cargo test --release --test stress -- --nocapture` is the full size, for
//! each way to call.

mod discover_support;

use std::{
    cell::Cell,
    collections::HashMap,
    convert::Infallible,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    task::{Context, Poll},
    time::Duration,
};

use discover_support::{instance, now, registry};
use tower::{Service, balance::p2c::Balance, load::CompleteOnResponse};
use tower_nacos::{
    balance::{
        self, Candidate, FailurePercentage, Hints, Loads, Outliers, P2c, PeakEwma, PickContext,
        Policy, Selector, SlowStart, SuccessRate, TrafficSplit, WeightedRoundRobin,
    },
    directory::{Subscription, Writer},
    discover::Discovery,
    endpoint::{Bare, NeverRecover, Outcome as Answer, Unclassified, WithOutcomes},
    model::Instance,
};

const INSTANCES: usize = 6;
const CALLERS: u64 = 3;

/// What the churner tells of each start of each instance.
#[derive(Clone, Default)]
struct Audit {
    marks: Arc<Mutex<HashMap<String, Arc<AtomicBool>>>>,
    violations: Arc<AtomicUsize>,
}

#[derive(Clone)]
struct Audited {
    marked: Arc<AtomicBool>,
    violations: Arc<AtomicUsize>,
}

/// Ready at the first poll or the second.
struct Answering {
    pending: bool,
}

thread_local! {
    static LOOKS: Cell<u32> = const { Cell::new(0) };
}

impl Audit {
    fn mark(&self, start: &str) -> Arc<AtomicBool> {
        Arc::clone(
            self.marks
                .lock()
                .unwrap()
                .entry(start.to_owned())
                .or_default(),
        )
    }

    fn maker(&self) -> impl Fn(&Instance) -> Audited + Send + Sync + 'static {
        let audit = self.clone();
        move |instance: &Instance| Audited {
            marked: audit.mark(instance.metadata().get("timestamp").unwrap()),
            violations: Arc::clone(&audit.violations),
        }
    }
}

impl Service<u64> for Audited {
    type Response = ();
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        let looks = LOOKS.replace(LOOKS.get().wrapping_add(1));
        if looks.is_multiple_of(256) {
            std::thread::yield_now(); // chosen and not yet admitted, and the world goes on
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Answering {
        if request % 512 == 7 {
            std::thread::yield_now(); // admitted, and the world goes on
        }
        if self.marked.load(SeqCst) {
            self.violations.fetch_add(1, SeqCst);
        }
        Answering {
            pending: request.is_multiple_of(8),
        }
    }
}

impl Future for Answering {
    type Output = Result<(), Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if std::mem::take(&mut self.pending) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

/// A pseudo-random sequence, so that a run can be told apart from another by its seed only.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Standing {
    Absent,
    Callable,
    WeightZero,
    Unhealthy,
}

/// Changes the list until `done`; returns how many revisions were applied.
async fn churn(mut writer: Writer, orders: &Subscription, audit: &Audit, done: &AtomicBool) -> u64 {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut standings = [Standing::Callable; INSTANCES];
    let mut starts = [0_u64; INSTANCES];
    let name = |i: usize, start: u64| format!("{i}/{start}");
    let mut revisions = 0;
    loop {
        let listed = (0..INSTANCES).filter(|i| standings[*i] != Standing::Absent);
        let list = listed.map(|i| {
            let half = if i % 2 == 0 { "even" } else { "odd" };
            let metadata = [("timestamp", name(i, starts[i])), ("half", half.to_owned())];
            let instance = instance(&format!("10.0.0.{}:80", i + 1))
                .with_cluster(if i < INSTANCES / 2 { "HZ" } else { "SH" })
                .with_metadata(metadata.into_iter().collect());
            match standings[i] {
                Standing::WeightZero => instance.with_weight(0.0),
                Standing::Unhealthy => instance.with_healthy(false),
                _ => instance,
            }
        });
        let revision = writer.publish(list, now());
        tokio::time::timeout(Duration::from_secs(60), orders.applied(revision))
            .await
            .expect("applied in time")
            .unwrap();
        revisions += 1;
        // Applied: what is not callable must not be entered from here on.
        for i in 0..INSTANCES {
            if standings[i] != Standing::Callable {
                audit.mark(&name(i, starts[i])).store(true, SeqCst);
            }
        }
        if done.load(Relaxed) {
            return revisions;
        }
        std::thread::yield_now();
        // Up to three change at once; the first instance never does, so no call may fail.
        for _ in 0..=random.below(3) {
            let i = 1 + random.below(INSTANCES as u64 - 1) as usize;
            let next = match random.below(6) {
                0 => Standing::Absent,
                1 => Standing::WeightZero,
                2 => Standing::Unhealthy,
                _ => Standing::Callable,
            };
            if standings[i] == Standing::Absent && next != Standing::Absent {
                audit.marks.lock().unwrap().remove(&name(i, starts[i]));
                starts[i] += 1;
            }
            if next == Standing::Callable {
                audit.mark(&name(i, starts[i])).store(false, SeqCst);
            }
            standings[i] = next;
        }
    }
}

/// One way to call.
trait Caller: Send + 'static {
    async fn call(&mut self, request: u64);
}

struct Stock(Balance<Discovery<Audited>, u64>);
struct Ours<P: Policy>(tower_nacos::Balance<Audited, P>);
struct Wrapped<P: Policy>(
    tower_nacos::Balance<
        Audited,
        P,
        NeverRecover,
        CompleteOnResponse,
        WithOutcomes<Unclassified, Judge>,
        Asks,
    >,
);
type Judge = fn(Result<&(), &Infallible>) -> Answer;
type Asks = fn(&u64) -> Hints;
struct Engine(Bare<Audited, NeverRecover, CompleteOnResponse, Unclassified>);

impl Caller for Stock {
    async fn call(&mut self, request: u64) {
        poll_fn(|cx| self.0.poll_ready(cx)).await.unwrap();
        // Now and then the world goes on between the choice and the call, and between the call
        // and the first look at its future.
        if request.is_multiple_of(64) {
            std::thread::yield_now();
        }
        let call = self.0.call(request);
        if request % 64 == 32 {
            std::thread::yield_now();
        }
        call.await.unwrap();
    }
}

impl<P: Policy> Caller for Ours<P> {
    async fn call(&mut self, request: u64) {
        if request.is_multiple_of(64) {
            std::thread::yield_now(); // lets the churner in
        }
        let call = self.0.call(request);
        if request % 64 == 32 {
            std::thread::yield_now();
        }
        call.await.unwrap();
    }
}

impl<P: Policy> Caller for Wrapped<P> {
    async fn call(&mut self, request: u64) {
        if request.is_multiple_of(64) {
            std::thread::yield_now(); // lets the churner in
        }
        let call = self.0.call(request);
        if request % 64 == 32 {
            std::thread::yield_now();
        }
        call.await.unwrap();
    }
}

/// Bad answers come often enough in a row for ejections all the time.
fn moody(_: Result<&(), &Infallible>) -> Answer {
    let looks = LOOKS.get();
    if (looks / 32).is_multiple_of(2) {
        Answer::Failure
    } else {
        Answer::Success
    }
}

/// All that can be asked and leaves at least the one instance that is always there.
fn demanding(request: &u64) -> Hints {
    thread_local! {
        static ASKED: [Hints; 5] = {
            let odd = Selector::from(("half", "odd"));
            let two = ["10.0.0.2:80", "10.0.0.5:80"].map(|a| a.parse().unwrap());
            [
                Hints::new(),
                Hints::new().cluster("SH").prefer(odd),
                Hints::new().only(("half", "even")),
                Hints::new().exclude(two).cluster("nowhere"),
                Hints::new().prefer(("half", "neither")).only(("half", "even")),
            ]
        };
    }
    ASKED.with(|asked| {
        asked[(request % 5) as usize]
            .clone()
            .key(request.to_le_bytes())
    })
}

/// Knows nothing of the instances that there are.
struct Clinging;

impl Policy for Clinging {
    type Table = ();

    fn build(&self, _: &[Candidate]) {}

    fn pick(
        &self,
        (): &(),
        _: &dyn Loads,
        random: &mut balance::Random,
        _: &PickContext,
    ) -> Option<usize> {
        Some(random.below(INSTANCES)) // now and then out of range or shut
    }
}

impl Caller for Engine {
    async fn call(&mut self, request: u64) {
        if request.is_multiple_of(64) {
            std::thread::yield_now(); // lets the churner in
        }
        self.0.call(request).await.unwrap();
    }
}

struct Outcome {
    calls: u64,
    revisions: u64,
    violations: usize,
}

/// `calls` in all, or fewer if `until_seen` and a violation was.
fn stress<C: Caller>(
    calls: u64,
    until_seen: bool,
    caller: impl Fn(&Subscription, &Audit) -> C,
) -> Outcome {
    let (writer, orders) = registry();
    let audit = Audit::default();
    let done = Arc::new(AtomicBool::new(false));
    let made = Arc::new(AtomicU64::new(0));
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().build().unwrap()
    };
    let janitors = runtime(); // of sets that the callers share
    let guard = janitors.enter();
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let mut caller = caller(&orders, &audit);
            let (audit, made) = (audit.clone(), Arc::clone(&made));
            std::thread::spawn(move || {
                runtime().block_on(async move {
                    for request in 0..calls / CALLERS {
                        caller.call(request).await;
                        let seen = || audit.violations.load(Relaxed) > 0;
                        if request.is_multiple_of(1024) && until_seen && seen() {
                            made.fetch_add(request, Relaxed);
                            return;
                        }
                    }
                    made.fetch_add(calls / CALLERS, Relaxed);
                });
            })
        })
        .collect();
    drop(guard);
    let watch = {
        let done = Arc::clone(&done);
        std::thread::spawn(move || {
            let ends: Vec<_> = callers.into_iter().map(|c| c.join()).collect();
            done.store(true, Relaxed);
            ends.into_iter().for_each(|end| end.expect("no call fails"));
        })
    };
    let revisions = janitors.block_on(churn(writer, &orders, &audit, &done));
    watch.join().unwrap();
    Outcome {
        calls: made.load(Relaxed),
        revisions,
        violations: audit.violations.load(SeqCst),
    }
}

fn size() -> u64 {
    match std::env::var("STRESS_CALLS") {
        Ok(calls) => calls.parse().expect("STRESS_CALLS is a number of calls"),
        Err(_) => 300_000,
    }
}

fn none_seen(what: &str, outcome: &Outcome) {
    let Outcome {
        calls,
        revisions,
        violations,
    } = outcome;
    println!("stress {what}: calls={calls} revisions={revisions} violations={violations}");
    assert_eq!(*violations, 0);
    assert!(*revisions > 20, "the set has changed: {revisions}");
}

#[test]
fn no_call_enters_what_left_under_stock_balance() {
    let outcome = stress(size(), false, |orders, audit| {
        Stock(Balance::new(orders.discover(audit.maker())))
    });
    none_seen("balance", &outcome);
}

#[test]
fn no_call_enters_what_left_through_the_bare_engine() {
    let shared = Mutex::new(None);
    let outcome = stress(size(), false, |orders, audit| {
        let mut shared = shared.lock().unwrap();
        let engine = shared.get_or_insert_with(|| orders.discover_with().bare(audit.maker()));
        Engine(engine.clone())
    });
    none_seen("engine", &outcome);
}

fn ours<P: Policy>(what: &str, calls: u64, policy: fn() -> P) {
    let shared = Mutex::new(None);
    let outcome = stress(calls, false, |orders, audit| {
        let mut shared = shared.lock().unwrap();
        let open = || tower_nacos::Balance::builder(orders).policy(policy());
        let balance: &mut tower_nacos::Balance<_, P> =
            shared.get_or_insert_with(|| open().build(audit.maker()));
        Ours(balance.clone())
    });
    none_seen(what, &outcome);
    let balance = shared.lock().unwrap().take().unwrap();
    assert_eq!(balance.counts(), [0, 0, 0]);
    assert_eq!(balance.counters().calls_after_evict, 0);
}

#[test]
fn no_call_enters_what_left_through_our_balance() {
    ours("ours p2c", size(), P2c::new);
    ours("ours round robin", size() / 4, WeightedRoundRobin::new);
    ours("ours ewma", size() / 4, PeakEwma::new);
    ours("ours custom", size() / 4, || Clinging);
}

fn wrapped<P: Policy>(what: &str, calls: u64, policy: fn() -> P) {
    let shared = Mutex::new(None);
    let outcome = stress(calls, false, |orders, audit| {
        let mut shared = shared.lock().unwrap();
        let outliers = Outliers::new()
            .base(Duration::from_millis(1))
            .longest(Duration::from_millis(3))
            .interval(Duration::from_millis(100))
            .success_rate(SuccessRate::new().instances(2).calls(5))
            .failure_percentage(FailurePercentage::new().instances(1).calls(5));
        let split = TrafficSplit::new("half=odd: 30, *: 70".parse().unwrap());
        let slow = SlowStart::new().window(Duration::from_millis(200));
        let open = || {
            tower_nacos::Balance::builder(orders)
                .policy(policy())
                .prefer_clusters(["HZ", "SH"])
                .slow_start(slow.after_ejection())
                .split(&split)
                .outliers(outliers, moody as Judge)
                .hints(demanding as Asks)
        };
        Wrapped(
            shared
                .get_or_insert_with(|| open().build(audit.maker()))
                .clone(),
        )
    });
    none_seen(what, &outcome);
    let balance = shared.lock().unwrap().take().unwrap();
    assert_eq!(balance.counts(), [0, 0, 0]);
    assert_eq!(balance.counters().calls_after_evict, 0);
}

#[test]
fn no_call_enters_what_left_through_clusters_selectors_slow_start_and_outliers() {
    wrapped("wrapped p2c", size(), P2c::new);
    wrapped("wrapped maglev", size() / 4, || {
        balance::Maglev::with_size(251)
    });
    wrapped("wrapped bounded maglev", size() / 4, || {
        balance::Maglev::with_size(251).bounded(0.25)
    });
    wrapped("wrapped custom", size() / 4, || Clinging);
}

#[test]
fn with_the_gates_off_calls_do_enter_what_left() {
    let balance = stress(50_000_000, true, |orders, audit| {
        let discovery = orders.discover_with().without_gates();
        Stock(Balance::new(discovery.build(audit.maker())))
    });
    let shared = Mutex::new(None);
    let engine = stress(50_000_000, true, |orders, audit| {
        let mut shared = shared.lock().unwrap();
        let open = || orders.discover_with().without_gates();
        let engine = shared.get_or_insert_with(|| open().bare(audit.maker()));
        Engine(engine.clone())
    });
    let shared = Mutex::new(None);
    let ours = stress(50_000_000, true, |orders, audit| {
        let mut shared = shared.lock().unwrap();
        let open = || tower_nacos::Balance::builder(orders).without_gates();
        let ours: &mut tower_nacos::Balance<_> =
            shared.get_or_insert_with(|| open().build(audit.maker()));
        Ours(ours.clone())
    });
    for (what, outcome) in [("balance", balance), ("engine", engine), ("ours", ours)] {
        let (calls, violations) = (outcome.calls, outcome.violations);
        println!("stress {what}, gates off: calls={calls} violations={violations}");
        assert!(violations > 0, "{what}: the harness sees nothing");
    }
}

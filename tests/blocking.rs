//! Users' code that blocks or panics costs whoever called it, and nobody else: not the client's
//! task, not other services, not other calls.
//!
//! What blocks does so on a channel until the test has seen everything else go on. With the
//! client's task waiting for it, the registry's question would stay unanswered and the test hang.

#![allow(
    clippy::disallowed_methods,
    reason = "a test owns its tasks and its clock"
)]

mod discover_support;

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering::SeqCst},
        mpsc,
    },
    task::{Context, Poll},
    thread,
    time::Duration,
};

use discover_support::{idle_context, instance};
use tokio::{
    runtime::{self, Runtime},
    time::timeout,
};
use tower::{Service, ServiceExt};
use tower_nacos::{
    Balance, Client, Instance, Subscription,
    balance::{Candidate, Loads, P2c, PickContext, Policy, Random},
    testing::Registry,
};

const HANG: Duration = Duration::from_secs(20);
const A: &str = "10.0.0.1:80";
const B: &str = "10.0.0.2:80";
const C: &str = "10.0.0.3:80";

/// Where users' code misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spot {
    Maker = 1,
    Build,
    Pick,
    Ready,
    Call,
    Answer,
    Drop,
}

const SPOTS: [Spot; 7] = [
    Spot::Maker,
    Spot::Build,
    Spot::Pick,
    Spot::Ready,
    Spot::Call,
    Spot::Answer,
    Spot::Drop,
];

/// Blocks, or panics, once, at the spot that it is set for.
#[derive(Clone)]
struct Trap(Arc<Jaws>);

struct Jaws {
    set: AtomicU8,
    panics: bool,
    entered: Mutex<mpsc::Sender<()>>,
    release: Mutex<mpsc::Receiver<()>>,
}

impl Trap {
    fn new(panics: bool) -> (Self, mpsc::Receiver<()>, mpsc::Sender<()>) {
        let (entered, is_entered) = mpsc::channel();
        let (release, released) = mpsc::channel();
        let jaws = Jaws {
            set: AtomicU8::new(0),
            panics,
            entered: Mutex::new(entered),
            release: Mutex::new(released),
        };
        (Self(Arc::new(jaws)), is_entered, release)
    }

    fn set(&self, spot: Spot) {
        self.0.set.store(spot as u8, SeqCst);
    }

    fn at(&self, spot: Spot) {
        let jaws = &self.0;
        let sprung = jaws.set.compare_exchange(spot as u8, 0, SeqCst, SeqCst);
        if sprung.is_err() {
            return;
        }
        jaws.entered.lock().unwrap().send(()).unwrap();
        if jaws.panics {
            panic!("on purpose, at {spot:?}");
        }
        jaws.release.lock().unwrap().recv().unwrap();
    }
}

impl Policy for Trap {
    type Table = <P2c as Policy>::Table;

    fn build(&self, candidates: &[Candidate]) -> Self::Table {
        self.at(Spot::Build);
        P2c::new().build(candidates)
    }

    fn pick(
        &self,
        table: &Self::Table,
        loads: &dyn Loads,
        random: &mut Random,
        context: &PickContext,
    ) -> Option<usize> {
        self.at(Spot::Pick);
        P2c::new().pick(table, loads, random, context)
    }
}

/// An instance's service.
#[derive(Clone)]
struct Trapped(Trap);

impl Service<u32> for Trapped {
    type Response = u32;
    type Error = io::Error;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.at(Spot::Ready);
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u32) -> Answer {
        self.0.at(Spot::Call);
        Answer(self.0.clone(), request)
    }
}

impl Drop for Trapped {
    fn drop(&mut self) {
        // Set only when nobody but the balancer's own task drops one.
        self.0.at(Spot::Drop);
    }
}

struct Answer(Trap, u32);

impl Future for Answer {
    type Output = io::Result<u32>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.at(Spot::Answer);
        Poll::Ready(Ok(self.1))
    }
}

struct World {
    /// The registry's, and of the callers that the trap does not concern.
    outer: Runtime,
    registry: Registry,
    nacos: Client,
    orders: Subscription,
    users: Subscription,
}

impl World {
    /// With the client, and what is built on it, at home on `inner`.
    fn new(inner: &runtime::Handle, own_thread: bool) -> Self {
        let outer = runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let registry = outer
            .block_on(Registry::builder().push_delay(None).start())
            .unwrap();
        registry.register_as("o", "orders", &[instance(A), instance(B)]);
        registry.register_as("u", "users", &[instance(C)]);
        let nacos = {
            let _home = inner.enter();
            let builder = Client::builder().servers(registry.addr());
            builder.own_thread(own_thread).connect_lazy().unwrap()
        };
        let subscribe = |service: &'static str| {
            let subscribed = async { timeout(HANG, nacos.subscribe(service)).await };
            outer.block_on(subscribed).unwrap().unwrap()
        };
        Self {
            orders: subscribe("orders"),
            users: subscribe("users"),
            outer,
            registry,
            nacos,
        }
    }

    #[track_caller]
    fn within<T>(&self, what: &str, wanted: impl Future<Output = T>) -> T {
        let done = self.outer.block_on(async { timeout(HANG, wanted).await });
        done.unwrap_or_else(|_| panic!("it hangs: {what}"))
    }

    /// What has to go on, whatever somebody's code does.
    fn all_goes_on(&self, others: &Balance<Trapped>, b_is_listed: bool) {
        // The registry asks whether the client lives, and is answered.
        let answers = || {
            let count =
                |view: &tower_nacos::testing::View<'_>| view.count("ClientDetectionResponse");
            self.registry.inspect(count)
        };
        let before = answers();
        let conn = self.registry.connections()[0];
        self.registry.detect(conn);
        self.within(
            "a detection",
            self.registry
                .wait_until(|view| view.count("ClientDetectionResponse") > before),
        );
        // Other services follow, and so does this one: an eviction is applied.
        let more = instance("10.0.0.4:80");
        self.registry
            .register_as("u", "users", &[instance(C), more]);
        self.within("another service", becomes(&self.users, 2));
        self.registry.register_as("u", "users", &[instance(C)]);
        self.within("another service", becomes(&self.users, 1));
        self.registry.register_as("p", "orders", &[instance(C)]);
        let all = 2 + usize::from(b_is_listed);
        self.within("this service", becomes(&self.orders, all));
        self.registry.register_as("p", "orders", &[] as &[Instance]);
        self.within("this service", becomes(&self.orders, all - 1));
        let revision = self.orders.snapshot().revision();
        self.within("an eviction", self.orders.applied(revision))
            .unwrap();
        // Other calls.
        for request in 0..20 {
            let answer = self.within("another call", others.clone().oneshot(request));
            assert_eq!(answer.unwrap(), request);
        }
    }
}

async fn becomes(service: &Subscription, callable: usize) {
    let mut changes = service.changes();
    while service.snapshot().callable_len() != callable {
        changes.next().await.unwrap();
    }
}

/// `panics` or blocks, at each spot in turn.
fn nothing_else_stops(inner: &runtime::Handle, own_thread: bool, panics: bool) {
    let world = World::new(inner, own_thread);
    for spot in SPOTS {
        println!("{spot:?}");
        let (harmless, _entered, _release) = Trap::new(false);
        let (trap, entered, release) = Trap::new(panics);
        let (others, balance) = {
            let _home = inner.enter();
            let maker = trap.clone();
            (
                Balance::builder(&world.users).build(move |_: &Instance| Trapped(harmless.clone())),
                Balance::builder(&world.orders)
                    .policy(trap.clone())
                    .build(move |_: &Instance| {
                        maker.at(Spot::Maker);
                        Trapped(maker.clone())
                    }),
            )
        };
        if spot != Spot::Maker {
            let both = async {
                for address in [A, B] {
                    let address = address.parse().unwrap();
                    while balance
                        .explain(&address)
                        .activity
                        .is_none_or(|a| a.calls == 0)
                    {
                        balance.clone().oneshot(1).await.unwrap();
                    }
                }
            };
            world.within("calls before", both);
        }
        trap.set(spot);
        let caller = match spot {
            // These happen in the balancer's own task.
            Spot::Build => {
                world.registry.set_weight("orders", A, 2.0);
                None
            }
            Spot::Drop => {
                world.registry.register_as("o", "orders", &[instance(A)]);
                None
            }
            _ => Some(inner.spawn(balance.clone().oneshot(7))),
        };
        entered.recv_timeout(HANG).expect("the trap springs");

        world.all_goes_on(&others, spot != Spot::Drop);
        if !panics {
            // Other callers of the same: what is being made has no room yet, and others are called.
            let mut calls: Vec<_> = (0..32)
                .map(|request| Box::pin(balance.clone().oneshot(request)))
                .collect();
            for call in &mut calls {
                match call.as_mut().poll(&mut idle_context()) {
                    Poll::Ready(answer) => drop(answer.unwrap()),
                    Poll::Pending => panic!("{spot:?}: a call waits though another has room"),
                }
            }
            release.send(()).unwrap();
        }
        if let Some(caller) = caller {
            let ended = world.within("the caller itself", caller);
            let in_the_callers_own = matches!(spot, Spot::Ready | Spot::Call | Spot::Answer);
            assert_eq!(ended.is_err(), panics && in_the_callers_own, "{spot:?}");
        }
        world
            .within("a call after it", balance.clone().oneshot(8))
            .unwrap();
        assert_eq!(balance.counts(), [0, 0, 0], "{spot:?}");
        world.registry.clear_edits("orders");
        let both = [instance(A), instance(B)];
        world.registry.register_as("o", "orders", &both);
        world.within("as it was", becomes(&world.orders, 2));
    }
    let closed = world.within("close", world.nacos.close(HANG));
    closed.unwrap();
}

#[test]
fn what_blocks_on_one_of_four_workers_stops_nothing_else() {
    let inner = four_workers();
    nothing_else_stops(inner.handle(), false, false);
}

#[test]
fn what_panics_on_one_of_four_workers_stops_nothing_else() {
    let inner = four_workers();
    nothing_else_stops(inner.handle(), false, true);
}

#[test]
fn with_a_thread_of_its_own_the_client_goes_on_while_the_only_other_one_is_blocked() {
    on_one_thread(|inner| nothing_else_stops(inner, true, false));
}

#[test]
fn with_a_thread_of_its_own_the_client_outlives_panics_on_the_only_other_one() {
    on_one_thread(|inner| nothing_else_stops(inner, true, true));
}

fn four_workers() -> Runtime {
    let mut builder = runtime::Builder::new_multi_thread();
    builder.worker_threads(4).enable_all().build().unwrap()
}

/// A current-thread runtime, driven by a thread that does nothing else.
fn on_one_thread(test: impl FnOnce(&runtime::Handle)) {
    let mut builder = runtime::Builder::new_current_thread();
    let inner = builder.enable_all().build().unwrap();
    let handle = inner.handle().clone();
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let driven = thread::spawn(move || inner.block_on(ended));
    test(&handle);
    end.send(()).unwrap();
    driven.join().unwrap().unwrap();
}

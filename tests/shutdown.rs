//! After `close`, and after the last drop: no task, no socket, nothing that hangs.

use std::{future::Future, sync::mpsc, thread, time::Duration};

use tokio::{
    runtime::{self, Runtime},
    time::timeout,
};
use tower::{ServiceExt, balance::p2c::Balance};
use tower_nacos::{
    Client, Instance, Subscription,
    client::{ConnectionState, RequestError},
    directory::{ChangeKind, Status},
    testing::Registry,
};

const HANG: Duration = Duration::from_secs(20);

/// A runtime of two workers for the client alone; the registry lives elsewhere.
fn client_runtime() -> Runtime {
    runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(HANG, future).await.expect("nothing for 20 s")
}

/// Runs `work` on a thread of its own, and fails if it hangs.
fn bounded<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = mpsc::channel();
    let thread = thread::spawn(move || done.send(work()));
    let result = result.recv_timeout(HANG).expect("it hangs, or panicked");
    let _ = thread.join();
    result
}

fn instance(n: u8) -> Instance {
    Instance::parse(&format!("10.0.0.{n}:80")).unwrap()
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let waiting = async {
        while !done() {
            tokio::task::yield_now().await;
        }
    };
    assert!(timeout(HANG, waiting).await.is_ok(), "{what}");
}

/// Sockets on which this process is connected to the registry's gRPC port.
fn sockets(registry: &Registry) -> usize {
    registry.inspect(|view| view.connections().len())
}

/// A client that does everything: subscriptions, a registration, a balancer, streams.
struct Busy {
    client: Client,
    orders: Subscription,
}

impl Busy {
    async fn start(registry: &Registry) -> Self {
        let client = Client::connect(registry.addr()).await.unwrap();
        let orders = client.subscribe("orders").await.unwrap();
        client.register("mine", instance(9)).await.unwrap();
        client.subscribe("empty").await.unwrap();
        let discover = orders.discover(|_: &Instance| {
            tower::service_fn(|(): ()| async { Ok::<_, std::io::Error>(()) })
        });
        Balance::new(discover).oneshot(()).await.unwrap();
        Self { client, orders }
    }
}

#[tokio::test]
async fn after_close_no_task_and_no_socket_is_left() {
    let registry = Registry::builder().push_delay(None).start().await.unwrap();
    registry.register("orders", &instance(1));
    let own = client_runtime();
    let busy = own.handle().spawn_on(&registry).await;
    assert!(own.metrics().num_alive_tasks() > 0);
    within(busy.client.close(HANG)).await.unwrap();
    until("a task is left", || own.metrics().num_alive_tasks() == 0).await;
    within(registry.wait_until(|view| view.connections().is_empty())).await;
    assert_eq!(registry.inspect(|view| view.addresses("mine")).len(), 0);

    // What is left of it answers at once.
    assert_eq!(busy.client.state(), ConnectionState::Closed);
    assert_eq!(busy.orders.status(), Status::Closed);
    assert_eq!(
        busy.orders.snapshot().callable_len(),
        1,
        "the last set serves"
    );
    let again = within(busy.client.subscribe("orders")).await;
    assert!(matches!(again, Err(RequestError::Closed)), "{again:?}");
    within(busy.client.close(HANG)).await.unwrap();
    own.shutdown_background();
}

#[tokio::test]
async fn after_the_last_drop_no_task_and_no_socket_is_left() {
    let registry = Registry::builder().push_delay(None).start().await.unwrap();
    registry.register("orders", &instance(1));
    let own = client_runtime();
    let Busy { client, orders } = own.handle().spawn_on(&registry).await;
    let clone = client.clone();
    drop(client);
    assert!(clone.state().is_connected());
    drop(clone);
    // The subscription goes on by itself, and what was registered goes.
    within(registry.wait_until(|view| view.addresses("mine").is_empty())).await;
    registry.register("orders", &instance(2));
    within(orders.wait_for(2, HANG)).await.unwrap();
    drop(orders);
    until("a task is left", || own.metrics().num_alive_tasks() == 0).await;
    within(registry.wait_until(|view| view.connections().is_empty())).await;
    own.shutdown_background();
}

#[tokio::test]
async fn a_client_that_never_connected_leaves_nothing_either() {
    let registry = Registry::start().await.unwrap();
    within(registry.stop()).await;
    let own = client_runtime();
    let client = {
        let _inside = own.enter();
        Client::connect_lazy(registry.addr()).unwrap()
    };
    let orders = client.subscribe_lazy("orders").unwrap();
    drop((client, orders));
    until("a task is left", || own.metrics().num_alive_tasks() == 0).await;

    let client = {
        let _inside = own.enter();
        Client::connect_lazy(registry.addr()).unwrap()
    };
    within(client.close(HANG)).await.unwrap();
    until("a task is left", || own.metrics().num_alive_tasks() == 0).await;
    own.shutdown_background();
}

#[tokio::test]
async fn a_hundred_clients_one_after_the_other_leave_nothing() {
    let registry = Registry::builder().push_delay(None).start().await.unwrap();
    registry.register("orders", &instance(1));
    let own = client_runtime();
    for n in 0..100 {
        let busy = own.handle().spawn_on(&registry).await;
        if n % 2 == 0 {
            within(busy.client.close(HANG)).await.unwrap();
        }
    }
    until("a task is left", || own.metrics().num_alive_tasks() == 0).await;
    within(registry.wait_until(|view| view.connections().is_empty())).await;
    assert_eq!(sockets(&registry), 0);
    own.shutdown_background();
}

/// As a static client is used in a crate's tests: each `#[tokio::test]` has a runtime of its own,
/// and the client lives on that of the first.
#[test]
fn a_client_used_across_several_runtimes_never_hangs() {
    for multi in [false, true] {
        let build = move || {
            let mut builder = if multi {
                runtime::Builder::new_multi_thread()
            } else {
                runtime::Builder::new_current_thread()
            };
            builder.enable_all().build().unwrap()
        };
        let server = client_runtime();
        let registry = server
            .block_on(Registry::builder().push_delay(None).start())
            .unwrap();
        registry.register("orders", &instance(1));
        let addr = registry.addr();
        let (client, orders) = bounded(move || {
            let first = build();
            first.block_on(async {
                let client = Client::connect(addr).await.unwrap();
                let orders = client.subscribe("orders").await.unwrap();
                (client, orders)
            })
            // The runtime ends here, and the client's task with it.
        });
        for _ in 0..3 {
            let (client, orders) = (client.clone(), orders.clone());
            bounded(move || {
                build().block_on(async {
                    assert_eq!(orders.snapshot().callable_len(), 1, "the last set serves");
                    let gone = |error: RequestError| assert!(error.is_closed(), "{error}");
                    gone(client.subscribe("users").await.unwrap_err());
                    gone(client.instances("orders").await.unwrap_err());
                    gone(client.register("mine", instance(3)).await.unwrap_err());
                    gone(client.deregister("mine").await.unwrap_err());
                    gone(client.service_names("DEFAULT_GROUP").await.unwrap_err());
                    assert_eq!(orders.status(), Status::Closed);
                    assert!(orders.wait_for(2, Duration::from_millis(10)).await.is_err());
                    let mut changes = orders.changes();
                    assert!(matches!(
                        changes.next().await.unwrap().kind,
                        ChangeKind::Added
                    ));
                    assert!(matches!(
                        changes.next().await.unwrap().kind,
                        ChangeKind::Removed { .. }
                    ));
                    assert!(changes.next().await.is_none());
                    let discover = orders.discover(|_: &Instance| {
                        tower::service_fn(|(): ()| async { Ok::<_, std::io::Error>(()) })
                    });
                    Balance::new(discover)
                        .oneshot(())
                        .await
                        .expect("calls go on");
                    let _ = client.close(HANG).await;
                    let _ = client.counters();
                });
            });
        }
        // Outside of any runtime.
        bounded(move || drop((client, orders)));
        server.block_on(async {
            within(registry.wait_until(|view| view.connections().is_empty())).await;
        });
    }
}

#[tokio::test]
async fn a_second_close_waits_for_the_one_under_way_and_returns_the_same() {
    let registry = Registry::builder().push_delay(None).start().await.unwrap();
    let client = within(Client::connect(registry.addr())).await.unwrap();
    within(client.register("orders", instance(1)))
        .await
        .unwrap();
    registry.freeze(); // nobody answers the farewell
    let (first, second) = (client.clone(), client.clone());
    let first = first.close(Duration::from_secs(1));
    let second = async {
        tokio::task::yield_now().await;
        second.close(Duration::ZERO).await
    };
    let (first, second) = within(async { tokio::join!(first, second) }).await;
    let (first, second) = (first.unwrap_err(), second.unwrap_err());
    assert_eq!(first.still_registered().len(), 1);
    assert_eq!(second.still_registered(), first.still_registered());
    within(client.close(HANG))
        .await
        .expect("nothing is left to do");
}

#[tokio::test]
async fn two_clients_in_one_process_never_see_each_others_events() {
    let (one, two) = (
        Registry::builder().push_delay(None).start().await.unwrap(),
        Registry::builder().push_delay(None).start().await.unwrap(),
    );
    let a = within(Client::connect(one.addr())).await.unwrap();
    let b = within(Client::connect(two.addr())).await.unwrap();
    let other = Client::builder().servers(one.addr()).namespace("other");
    let c = within(other.connect()).await.unwrap();
    let (of_a, of_b, of_c) = (
        within(a.subscribe("orders")).await.unwrap(),
        within(b.subscribe("orders")).await.unwrap(),
        within(c.subscribe("orders")).await.unwrap(),
    );
    for round in 1..=20 {
        one.register_as("p", "orders", &[instance(round)]);
        two.register_as("p", "orders", &[instance(100 + round)]);
        let is = |subscription: &Subscription, n: u8| {
            let snapshot = subscription.snapshot();
            let addresses: Vec<_> = snapshot
                .entries()
                .iter()
                .map(|e| e.instance().address().clone())
                .collect();
            addresses == [instance(n).address().clone()]
        };
        until("a's own list", || is(&of_a, round)).await;
        until("b's own list", || is(&of_b, 100 + round)).await;
    }
    assert_eq!(of_c.snapshot().entries().len(), 0, "another namespace");
    assert_eq!(
        a.counters().unwanted_pushes + b.counters().unwanted_pushes,
        0
    );

    // Nor does the end of one end another, though both be on one registry.
    let d = within(Client::connect(one.addr())).await.unwrap();
    let of_d = within(d.subscribe("orders")).await.unwrap();
    within(d.close(HANG)).await.unwrap();
    assert_eq!(
        (of_d.status(), of_a.status()),
        (Status::Closed, Status::Fresh)
    );
    two.kill_all();
    until("b is stale", || of_b.status() != Status::Fresh).await;
    assert_eq!(of_a.status(), Status::Fresh);
    assert_eq!(a.counters().connections_lost, 0);
}

/// Starts a busy client on this runtime.
trait SpawnOn {
    fn spawn_on(&self, registry: &Registry) -> impl Future<Output = Busy>;
}

impl SpawnOn for runtime::Handle {
    async fn spawn_on(&self, registry: &Registry) -> Busy {
        // The client lives on the runtime that is entered while it is polled.
        let mut starting = std::pin::pin!(Busy::start(registry));
        let inside = std::future::poll_fn(|cx| {
            let _inside = self.enter();
            starting.as_mut().poll(cx)
        });
        within(inside).await
    }
}

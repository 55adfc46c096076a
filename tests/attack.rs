//! What a hostile registry, a killed server, a dropped future and a careless caller may do, and
//! what must not come of it: a panic of ours, a hang, a leak, a wrong word.

use std::{
    future::{Future, poll_fn},
    panic::AssertUnwindSafe,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use tokio::{runtime::Runtime, time::timeout};
use tower::{Service, ServiceExt, balance::p2c::Balance, discover::Discover as _};
use tower_nacos::{
    client::{Client, RequestError},
    directory::{self, Options, Origin, Status, Subscription, Writer},
    model::{Address, Host, Instance, Listing, ServiceKey},
    testing::{Fault, Registry, Script},
};

const HANG: Duration = Duration::from_secs(20);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(HANG, future)
        .await
        .unwrap_or_else(|_| panic!("hangs: {what}"))
}

fn instance(port: u16) -> Instance {
    Instance::parse(&format!("127.0.0.1:{port}")).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "a test's clock")]
fn now() -> Instant {
    Instant::now()
}

/// A registry on a runtime of its own, so that the tasks of the client's can be counted.
struct Apart {
    registry: Option<Registry>,
    runtime: Runtime,
}

impl Apart {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let registry = runtime
            .block_on(Registry::builder().push_delay(None).start())
            .unwrap();
        Self {
            registry: Some(registry),
            runtime,
        }
    }

    fn get(&self) -> &Registry {
        self.registry.as_ref().unwrap()
    }

    fn nobody_is_left(&self) {
        self.runtime.block_on(soon(
            "the connections to end",
            self.get().wait_until(|view| view.connections().is_empty()),
        ));
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        let _entered = self.runtime.enter();
        drop(self.registry.take());
    }
}

fn current_thread() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

async fn no_tasks_are_left() {
    let metrics = tokio::runtime::Handle::current().metrics();
    soon("the tasks to end", async {
        while metrics.num_alive_tasks() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Polls `future` at most `times` times and drops it. Whether it ended before.
async fn poll_times(future: impl Future, times: usize) -> bool {
    let mut future = pin!(future);
    let mut left = times;
    soon(
        "polls",
        poll_fn(|cx| {
            if left == 0 {
                return Poll::Ready(false);
            }
            left -= 1;
            match future.as_mut().poll(cx) {
                Poll::Ready(_) => Poll::Ready(true),
                Poll::Pending if left == 0 => Poll::Ready(false),
                Poll::Pending => Poll::Pending,
            }
        }),
    )
    .await
}

// Options at their ends.

#[tokio::test]
async fn a_tiny_idle_check_does_not_spin() {
    let registry = Registry::start().await.unwrap();
    let client = Client::builder()
        .servers(registry.addr())
        .idle_check(Duration::from_nanos(1));
    let client = soon("connect", client.connect()).await.unwrap();
    soon("read", client.instances("orders")).await.unwrap();
    soon("close", client.close(Duration::from_secs(1)))
        .await
        .unwrap();
}

#[tokio::test]
async fn endless_durations_are_endless() {
    let registry = Registry::start().await.unwrap();
    let client = Client::builder()
        .servers(registry.addr())
        .connect_timeout(Duration::MAX)
        .request_timeout(Duration::MAX)
        .call_timeout(Duration::MAX);
    let client = soon("connect", client.connect()).await.unwrap();
    let orders = soon("subscribe", client.subscribe("orders")).await.unwrap();
    soon("register", client.register("orders", instance(1)))
        .await
        .unwrap();
    let found = soon("wait", orders.wait_for(1, Duration::MAX))
        .await
        .unwrap();
    assert_eq!(found.callable_len(), 1);
    soon("close", client.close(Duration::MAX)).await.unwrap();
}

#[tokio::test]
async fn zero_durations_fail_in_words() {
    let registry = Registry::start().await.unwrap();
    let builder = || Client::builder().servers(registry.addr());
    for zero in [
        builder().connect_timeout(Duration::ZERO),
        builder().call_timeout(Duration::ZERO),
        builder().request_timeout(Duration::ZERO),
        builder().idle_check(Duration::ZERO),
    ] {
        let error = soon("refused", zero.connect()).await.unwrap_err();
        assert!(error.to_string().contains("it is zero"), "{error}");
    }
    let client = builder().request_timeout(Duration::from_nanos(1));
    let client = soon("connect", client.connect()).await.unwrap();
    // No patience at all: a time-out, or an answer that was as quick as that.
    let errors = [
        soon("subscribe", client.subscribe("a")).await.err(),
        soon("register", client.register("a", instance(1)))
            .await
            .err(),
        soon("read", client.instances("a")).await.err(),
    ];
    assert!(errors.iter().flatten().all(|error| error.is_timeout()));
    let _ = soon("close", client.close(Duration::ZERO)).await;
    assert!(
        soon("read", client.instances("a"))
            .await
            .unwrap_err()
            .is_closed()
    );
    // A message limit of nothing.
    let mute = builder()
        .max_message_size(0)
        .connect_timeout(Duration::from_millis(300));
    let error = soon("connect", mute.connect())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("max_message_size"), "{error}");
}

#[tokio::test]
async fn empty_texts_are_refused_in_words() {
    let registry = Registry::start().await.unwrap();
    for servers in ["", " ", ",", "[]:1", ":8848", "/", "http://"] {
        assert!(Client::connect_lazy(servers).is_err(), "{servers:?}");
    }
    let client = soon("connect", Client::connect(registry.addr()))
        .await
        .unwrap();
    for name in ["", "@@", "g@@", "@@s", " ", "a@@b@@c"] {
        let error = soon("subscribe", client.subscribe(name)).await.unwrap_err();
        assert!(
            matches!(error, RequestError::InvalidName(_)),
            "{name:?}: {error}"
        );
    }
    let odd = Client::builder()
        .servers(registry.addr())
        .app_name("")
        .namespace("");
    if let Ok(client) = soon("connect", odd.connect()).await {
        assert_eq!(client.namespace(), "public");
    }
    let orders = soon("subscribe", client.subscribe("orders")).await.unwrap();
    let none = orders.only_cluster("").only_metadata("", "");
    assert_eq!(none.snapshot().callable_len(), 0);
    soon("none", orders.wait_for(0, Duration::from_secs(5)))
        .await
        .unwrap();
}

// A hostile registry.

#[tokio::test]
async fn a_first_answer_that_cannot_be_used_is_called_that() {
    let registry = Registry::builder().push_delay(None).start().await.unwrap();
    registry.register("orders", &instance(1));
    registry.script(Script::every("SubscribeServiceRequest", Fault::WrongTypes));
    registry.script(Script::every_push(Fault::WrongTypes));
    let client = soon("connect", Client::connect(registry.addr()))
        .await
        .unwrap();
    let error = soon("subscribe", client.subscribe("orders"))
        .await
        .unwrap_err();
    assert!(!error.is_closed(), "{error}");
    registry.clear_scripts();
    soon(
        "its end",
        registry.wait_until(|view| view.subscribers("orders").is_empty()),
    )
    .await;
    soon("the same again", client.subscribe("orders"))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_subscription_that_is_denied_says_so() {
    let registry = Registry::builder().push_delay(None).start().await.unwrap();
    registry.script(Script::every("SubscribeServiceRequest", Fault::Refuse(403)));
    let client = Client::builder()
        .servers(registry.addr())
        .request_timeout(Duration::from_millis(700));
    let client = soon("connect", client.connect()).await.unwrap();
    let error = soon("subscribe", client.subscribe("orders"))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("denied"), "{error}");
}

fn hostile_bodies() -> Vec<String> {
    let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    let info = |hosts: &str| {
        format!(
            r#"{{"requestId":"1","serviceInfo":{{"name":"orders","groupName":"DEFAULT_GROUP","hosts":{hosts}}}}}"#
        )
    };
    let host = |rest: &str| info(&format!(r#"[{{"ip":"127.0.0.1","port":1{rest}}}]"#));
    let mut bodies = vec![
        String::new(),
        "null".to_owned(),
        "[]".to_owned(),
        "{}".to_owned(),
        "\0".to_owned(),
        r#"{"serviceInfo":7}"#.to_owned(),
        r#"{"serviceInfo":{"name":7}}"#.to_owned(),
        r#"{"serviceInfo":{"name":"","hosts":[]}}"#.to_owned(),
        r#"{"serviceInfo":{"name":"@@@@","hosts":[]}}"#.to_owned(),
        r#"{"requestId":{"a":1},"serviceInfo":{"name":"orders","groupName":null,"hosts":{}}}"#.to_owned(),
        r#"{"serviceInfo":{"name":"other","groupName":"g","hosts":[{"ip":"1.1.1.1","port":1}]}}"#.to_owned(),
        r#"{"serviceInfo":{"name":"orders","name":"orders","groupName":"DEFAULT_GROUP","hosts":[]}}"#.to_owned(),
        info("null"),
        info(&deep(100_000)),
        deep(1_000_000),
        host(&format!(r#","metadata":{}"#, deep(10_000))),
        host(r#","metadata":{"a":{"b":1},"c":[1],"d":null,"e":true}"#),
        host(r#","weight":1e999"#),
        host(r#","weight":"1e999""#),
        host(r#","weight":-0.0"#),
        host(r#","port":99999999999999999999"#),
        host(r#","port":-1"#),
        host(r#","lastRefTime":1e30"#),
        info(r#"[{"ip":"","port":0},{"ip":"\u0000","port":1},{"ip":"a b","port":1},null,7,[],{}]"#),
        info(r#"[{"ip":"::1%lo","port":1},{"ip":"[::1]","port":1},{"ip":"1.2.3.4.5","port":1}]"#),
    ];
    let long = "x".repeat(200_000);
    bodies.push(info(&format!(
        r#"[{{"ip":"{long}","port":1,"weight":"{long}"}}]"#
    )));
    let huge: Vec<String> = (0..60_000)
        .map(|n| {
            format!(
                r#"{{"ip":"10.{}.{}.{}","port":1}}"#,
                n >> 16,
                (n >> 8) & 255,
                n & 255
            )
        })
        .collect();
    bodies.push(info(&format!("[{}]", huge.join(","))));
    bodies
}

#[tokio::test]
async fn hostile_pushes_leave_the_client_alive() {
    let registry = Registry::builder().push_delay(None).start().await.unwrap();
    registry.register("orders", &instance(1));
    let client = soon("connect", Client::connect(registry.addr()))
        .await
        .unwrap();
    let orders = soon("subscribe", client.subscribe("orders")).await.unwrap();
    let mut state = client.watch_state();
    state.mark_unchanged();
    for (at, body) in hostile_bodies().into_iter().enumerate() {
        registry.push_body("orders", body);
        registry.register("orders", &instance(1000 + at as u16));
        let address = instance(1000 + at as u16).address().clone();
        let mut changes = orders.changes();
        soon(&format!("a good push after hostile body {at}"), async {
            while orders.snapshot().find(&address).is_none() {
                changes.next().await.unwrap();
            }
        })
        .await;
    }
    assert!(!state.has_changed().unwrap(), "{:?}", state.borrow());
}

#[tokio::test]
async fn hostile_answers_to_each_call_are_errors() {
    let kinds = [
        "ServerCheckRequest",
        "HealthCheckRequest",
        "SubscribeServiceRequest",
        "ServiceQueryRequest",
        "InstanceRequest",
    ];
    let bodies = [
        "",
        "null",
        "[]",
        "{}",
        "7",
        r#"{"resultCode":"x"}"#,
        r#"{"resultCode":200,"serviceInfo":[[]]}"#,
    ];
    for kind in kinds {
        for body in bodies {
            let registry = Registry::builder().push_delay(None).start().await.unwrap();
            registry.script(Script::every(kind, Fault::Body(body.into())));
            let client = Client::builder()
                .servers(registry.addr())
                .connect_timeout(Duration::from_millis(100))
                .request_timeout(Duration::from_millis(60))
                .connect_lazy()
                .unwrap();
            let _ = soon("subscribe", client.subscribe("orders")).await;
            let _ = soon("register", client.register("orders", instance(1))).await;
            let _ = soon("read", client.instances("orders")).await;
            let _ = soon("deregister", client.deregister("orders")).await;
            registry.clear_scripts();
            let mut state = client.watch_state();
            soon("a connection", state.wait_for(|state| state.is_connected()))
                .await
                .unwrap();
            let after = Client::clone(&client);
            soon("life after", async move {
                while after.subscribe("payments").await.is_err() {}
            })
            .await;
        }
    }
}

#[tokio::test]
async fn a_message_over_the_limit_is_told_by_name() {
    let registry = Registry::builder().push_delay(None).start().await.unwrap();
    let big = "x".repeat(100_000);
    let instance = instance(1).with_metadata([("k", big.as_str())].into_iter().collect());
    registry.register("orders", &instance);
    let client = Client::builder()
        .servers(registry.addr())
        .max_message_size(10_000)
        .request_timeout(Duration::from_millis(700));
    let client = soon("connect", client.connect()).await.unwrap();
    let error = soon("subscribe", client.subscribe("orders"))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("max_message_size"), "{error}");
    let error = soon("read", client.instances("orders")).await.unwrap_err();
    assert!(
        error.to_string().contains("max_message_size") || error.is_timeout(),
        "{error}"
    );
}

#[tokio::test]
async fn endless_resets_and_streams_ended_after_the_setup_end_in_a_connection() {
    let registry = Registry::builder().push_delay(None).start().await.unwrap();
    registry.register("orders", &instance(1));
    let client = soon("connect", Client::connect(registry.addr()))
        .await
        .unwrap();
    let orders = soon("subscribe", client.subscribe("orders")).await.unwrap();
    for round in 0..6 {
        let conn = soon("a subscriber", async {
            registry
                .wait_until(|view| !view.subscribers("orders").is_empty())
                .await;
            registry.subscribers("orders")[0]
        })
        .await;
        match round % 3 {
            0 => registry.reset_connection(conn, None),
            1 => registry.kill_all(),
            _ => registry.script(Script::next("ConnectionSetupRequest", Fault::Fail(14))),
        }
        if round % 3 == 2 {
            registry.kill_all();
        }
        assert_eq!(orders.snapshot().callable_len(), 1);
        soon(
            "another subscriber",
            registry.wait_until(|view| view.subscribers("orders").iter().any(|new| *new != conn)),
        )
        .await;
    }
}

#[tokio::test]
async fn a_burst_of_thousands_of_pushes_is_followed_to_its_end() {
    let registry = Registry::builder().push_delay(None).start().await.unwrap();
    registry.register("orders", &instance(1));
    let client = soon("connect", Client::connect(registry.addr()))
        .await
        .unwrap();
    let orders = soon("subscribe", client.subscribe("orders")).await.unwrap();
    let mut changes = orders.changes();
    for round in 0..1_000u16 {
        registry.register("orders", &instance(2 + round % 3));
        registry.deregister("orders", &format!("127.0.0.1:{}", 2 + round % 3));
    }
    registry.register("orders", &instance(60_000));
    let last = instance(60_000).address().clone();
    soon("the last", async {
        while orders.snapshot().find(&last).is_none() {
            changes.next().await.unwrap();
        }
    })
    .await;
    assert_eq!(orders.snapshot().callable_len(), 2);
}

// A killed server.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_at_any_moment_leaves_no_call_hanging() {
    for step in 0..12u64 {
        let registry = Registry::builder().push_delay(None).start().await.unwrap();
        let client = Client::builder()
            .servers(registry.addr())
            .request_timeout(Duration::from_millis(100))
            .connect_lazy()
            .unwrap();
        let work = async {
            let orders = client.subscribe("orders").await;
            let _ = client.register("orders", instance(1)).await;
            let _ = client.instances("orders").await;
            let _ = client.deregister("orders").await;
            drop(orders);
            client.close(Duration::from_millis(500)).await
        };
        let kill = async {
            tokio::time::sleep(Duration::from_micros(300 * step)).await;
            registry.stop().await;
        };
        let _ = soon("all of it", async { tokio::join!(work, kill) }).await;
        assert!(
            soon("read", client.instances("a"))
                .await
                .unwrap_err()
                .is_closed()
        );
    }
}

// Dropped futures.

#[test]
fn futures_dropped_at_each_poll_leave_nothing_and_the_same_call_works_afterwards() {
    let apart = Apart::new();
    let registry = apart.get();
    registry.register("orders", &instance(7));
    let addr = registry.addr();
    current_thread().block_on(async {
        for times in 0..6 {
            poll_times(Client::connect(addr.as_str()), times).await;
        }
        no_tasks_are_left().await;
        let client = soon("connect", Client::connect(addr.as_str()))
            .await
            .unwrap();
        for times in 0..6 {
            poll_times(client.subscribe("orders"), times).await;
            poll_times(client.instances("orders"), times).await;
            let orders = soon("subscribe", client.subscribe("orders")).await.unwrap();
            poll_times(orders.ready(), times).await;
            poll_times(orders.wait_for(5, Duration::from_millis(20)), times).await;
            poll_times(orders.applied(orders.revision()), times).await;
            let mut changes = orders.changes();
            assert!(poll_times(changes.next(), 1).await);
            poll_times(changes.next(), times.min(1)).await;
            soon("wait", orders.wait_for(1, HANG)).await.unwrap();
            assert!(
                !soon("read", client.instances("orders"))
                    .await
                    .unwrap()
                    .instances()
                    .is_empty()
            );
        }
        for times in 0..6 {
            let service = format!("mine-{times}");
            poll_times(client.register(service.as_str(), instance(9)), times).await;
            // Whether it was sent or not: it can be withdrawn or was never there.
            match soon("deregister", client.deregister(service.as_str())).await {
                Ok(()) | Err(RequestError::NotRegistered) => {}
                Err(error) => panic!("{error}"),
            }
            soon("register", client.register(service.as_str(), instance(9)))
                .await
                .unwrap();
            poll_times(client.deregister(service.as_str()), times).await;
            match soon("deregister", client.deregister(service.as_str())).await {
                Ok(()) | Err(RequestError::NotRegistered) => {}
                Err(error) => panic!("{error}"),
            }
            soon("register", client.register(service.as_str(), instance(9)))
                .await
                .unwrap();
        }
        for times in 0..4 {
            let other = soon("connect", Client::connect(addr.as_str()))
                .await
                .unwrap();
            poll_times(other.close(HANG), times).await;
            soon("close", other.close(HANG)).await.unwrap();
        }
        soon("close", client.close(HANG)).await.unwrap();
        no_tasks_are_left().await;
    });
    apart.nobody_is_left();
    let left = registry.inspect(|view| view.addresses("mine-0"));
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn many_clients_come_and_go() {
    let apart = Apart::new();
    let addr = apart.get().addr();
    current_thread().block_on(async {
        for n in 0..60 {
            let client = soon("connect", Client::connect(addr.as_str()))
                .await
                .unwrap();
            if n % 2 == 0 {
                let _orders = soon("subscribe", client.subscribe("orders")).await.unwrap();
                soon("register", client.register("orders", instance(n + 1)))
                    .await
                    .unwrap();
            }
        }
        no_tasks_are_left().await;
    });
    apart.nobody_is_left();
}

#[test]
fn the_last_handles_are_dropped_outside_of_any_runtime() {
    let apart = Apart::new();
    let addr = apart.get().addr();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (client, orders, discovery) = runtime.block_on(async {
        let client = Client::connect(addr.as_str()).await.unwrap();
        let orders = client.subscribe("orders").await.unwrap();
        client.register("orders", instance(1)).await.unwrap();
        let discovery = orders.discover(|_: &Instance| Quiet);
        (client, orders, discovery)
    });
    drop(client);
    drop(orders);
    drop(discovery);
    apart.nobody_is_left();
    let metrics = runtime.handle().metrics();
    runtime.block_on(soon("tasks", async {
        while metrics.num_alive_tasks() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }));
}

#[test]
fn a_client_is_used_from_other_runtimes_and_outlives_its_own() {
    let apart = Apart::new();
    let addr = apart.get().addr();
    let home = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let client = home.block_on(Client::connect(addr.as_str())).unwrap();
    let orders = current_thread().block_on(async {
        soon("register", client.register("orders", instance(1)))
            .await
            .unwrap();
        soon("subscribe", client.subscribe("orders")).await.unwrap()
    });
    current_thread()
        .block_on(soon("wait", orders.wait_for(1, HANG)))
        .unwrap();
    drop(home);
    assert_eq!(orders.snapshot().callable_len(), 1);
    assert_eq!(orders.status(), Status::Closed);
    current_thread().block_on(async {
        for _ in 0..2 {
            for error in [
                soon("subscribe", client.subscribe("orders"))
                    .await
                    .map(drop),
                soon("subscribe", client.subscribe("others"))
                    .await
                    .map(drop),
                client.subscribe_lazy("orders").map(drop),
                client.subscribe_lazy("others").map(drop),
                soon("register", client.register("orders", instance(1))).await,
                soon("deregister", client.deregister("orders")).await,
                soon("read", client.instances("orders")).await.map(drop),
            ] {
                assert!(matches!(error, Err(RequestError::RuntimeGone)), "{error:?}");
            }
        }
        assert!(soon("close", client.close(HANG)).await.is_err());
        soon("ready", orders.ready()).await.unwrap();
    });
}

#[tokio::test]
async fn a_closed_client_says_so_every_time() {
    let registry = Registry::start().await.unwrap();
    let client = soon("connect", Client::connect(registry.addr()))
        .await
        .unwrap();
    let _orders = soon("subscribe", client.subscribe("orders")).await.unwrap();
    soon("close", client.close(HANG)).await.unwrap();
    for _ in 0..2 {
        for service in ["orders", "payments"] {
            let error = client.subscribe_lazy(service).map(drop);
            assert!(
                matches!(error, Err(RequestError::Closed)),
                "{service}: {error:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handles_taken_and_dropped_in_haste_leave_one_that_works_and_then_none() {
    let registry = Registry::builder().push_delay(None).start().await.unwrap();
    let client = soon("connect", Client::connect(registry.addr()))
        .await
        .unwrap();
    for _ in 0..30 {
        for _ in 0..300 {
            drop(client.subscribe_lazy("orders").unwrap());
        }
        soon(
            "none is left",
            registry.wait_until(|view| view.subscribers("orders").is_empty()),
        )
        .await;
        let orders = timeout(Duration::from_secs(5), client.subscribe("orders")).await;
        drop(orders.expect("the first answer in time").unwrap());
    }
}

// A careless caller.

#[derive(Clone)]
struct Quiet;

impl Service<u32> for Quiet {
    type Response = u32;
    type Error = std::io::Error;
    type Future = std::future::Ready<Result<u32, std::io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u32) -> Self::Future {
        std::future::ready(Ok(request))
    }
}

fn writer() -> (Writer, Subscription) {
    let key = ServiceKey::new("dev", "shop@@orders".parse().unwrap()).unwrap();
    directory::channel(key, Options::default())
}

/// What a service does when it is told to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Bad {
    Make,
    Clone,
    PollReady,
    Call,
    Future,
    Drop,
}

struct Mine {
    bad: Bad,
    armed: Arc<AtomicBool>,
    is_bad: bool,
}

impl Mine {
    fn strike(&self, at: Bad) {
        if self.is_bad && self.bad == at && self.armed.load(SeqCst) && !std::thread::panicking() {
            panic!("as told at {at:?}");
        }
    }
}

impl Clone for Mine {
    fn clone(&self) -> Self {
        self.strike(Bad::Clone);
        Self {
            armed: self.armed.clone(),
            ..*self
        }
    }
}

impl Drop for Mine {
    fn drop(&mut self) {
        self.strike(Bad::Drop);
    }
}

impl Service<u32> for Mine {
    type Response = u32;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<u32, std::io::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.strike(Bad::PollReady);
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u32) -> Self::Future {
        self.strike(Bad::Call);
        let strikes = self.is_bad && self.bad == Bad::Future && self.armed.load(SeqCst);
        Box::pin(async move {
            assert!(!strikes, "as told in the future");
            Ok(request)
        })
    }
}

#[tokio::test]
async fn services_that_panic_hurt_only_the_calls_that_land_on_them() {
    for bad in [
        Bad::Make,
        Bad::Clone,
        Bad::PollReady,
        Bad::Call,
        Bad::Future,
        Bad::Drop,
    ] {
        let armed = Arc::new(AtomicBool::new(true));
        let (mut writer, orders) = writer();
        writer.publish([instance(1), instance(2)], now());
        let arm = Arc::clone(&armed);
        let make = move |instance: &Instance| {
            let mine = Mine {
                bad,
                armed: arm.clone(),
                is_bad: instance.address().port() == 1,
            };
            mine.strike(Bad::Make);
            mine
        };
        let bare = orders.discover_with().bare(make);
        let mut good = 0;
        for _ in 0..40 {
            let call = AssertUnwindSafe(bare.call(1)).catch_unwind();
            good += usize::from(matches!(soon("call", call).await, Ok(Ok(1))));
        }
        assert!(good >= 10, "{bad:?}: {good}");
        let revision = writer.publish([instance(2)], now());
        soon("applied", orders.applied(revision)).await.unwrap();
        assert_eq!(bare.counts(), [0, 0, 0], "{bad:?}");
        for _ in 0..4 {
            assert_eq!(soon("call", bare.call(1)).await.unwrap(), 1, "{bad:?}");
        }
        drop(bare);
    }
}

#[tokio::test]
async fn a_maker_may_look_discover_and_drop_what_it_serves() {
    let (mut writer, orders) = writer();
    writer.publish([instance(1), instance(2)], now());
    let held = Arc::new(Mutex::new(Some(orders.clone())));
    let theirs = Arc::clone(&held);
    let make = move |at: &Instance| {
        if let Some(orders) = theirs.lock().unwrap().take() {
            assert_eq!(orders.snapshot().callable_len(), 2);
            let _ = orders.status();
            let _ = orders.explain(at.address());
            let _ = orders.applied_revision();
            let _ = orders.only_cluster("x");
            let mut inner = orders.discover(|_: &Instance| Quiet);
            let mut cx = Context::from_waker(Waker::noop());
            assert!(Pin::new(&mut inner).poll_discover(&mut cx).is_ready());
        }
        Quiet
    };
    let bare = orders.discover_with().bare(make);
    drop(orders);
    assert_eq!(soon("call", bare.call(3)).await.unwrap(), 3);
    assert!(held.lock().unwrap().is_none());
}

#[tokio::test]
async fn a_maker_may_change_the_list_while_it_makes() {
    let (mut writer, orders) = writer();
    writer.publish([instance(1), instance(2)], now());
    let writer = Arc::new(Mutex::new(writer));
    let theirs = Arc::clone(&writer);
    let bare = orders.discover_with().bare(move |at: &Instance| {
        let port = at.address().port();
        if port < 3 {
            theirs.lock().unwrap().publish([instance(3)], now());
        }
        Port(port)
    });
    assert_eq!(soon("call", bare.call(0)).await.unwrap(), 3);
}

#[derive(Clone)]
struct Port(u16);

impl Service<u32> for Port {
    type Response = u32;
    type Error = std::io::Error;
    type Future = std::future::Ready<Result<u32, std::io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: u32) -> Self::Future {
        std::future::ready(Ok(self.0.into()))
    }
}

#[tokio::test]
async fn two_balancers_and_their_end_in_the_middle() {
    let (mut writer, orders) = writer();
    writer.publish([instance(1), instance(2)], now());
    let mut one = Balance::new(orders.discover(|at: &Instance| Port(at.address().port())));
    let mut two = Balance::new(orders.discover(|at: &Instance| Port(at.address().port())));
    let late = soon("ready", one.ready()).await.unwrap().call(0);
    let revision = writer.publish([instance(2)], now());
    drop(one);
    assert_eq!(orders.applied_revision(), revision);
    assert_eq!(
        soon("a call that outlives its balancer", late)
            .await
            .unwrap(),
        2
    );
    for _ in 0..20 {
        let call = soon("ready", two.ready()).await.unwrap().call(0);
        assert_eq!(soon("call", call).await.unwrap(), 2);
    }
    writer.close();
    assert_eq!(
        soon("call", soon("ready", two.ready()).await.unwrap().call(0))
            .await
            .unwrap(),
        2
    );
}

#[tokio::test]
async fn changes_that_nobody_reads_cost_nothing() {
    let (mut writer, orders) = writer();
    let mut changes = orders.changes();
    let mut discovery = orders.discover(|_: &Instance| Quiet);
    let mut cx = Context::from_waker(Waker::noop());
    let _ = Pin::new(&mut discovery).poll_discover(&mut cx);
    for round in 0..100_000u32 {
        writer.publish([instance(1 + (round % 5) as u16)], now());
    }
    let change = soon("change", changes.next()).await.unwrap();
    assert_eq!(change.revision, orders.revision());
    assert!(
        changes.next().now_or_never().is_none(),
        "one change is left of all"
    );
    let mut seen = 0;
    while Pin::new(&mut discovery).poll_discover(&mut cx).is_ready() {
        seen += 1;
    }
    assert!(seen <= 2, "{seen}");
}

/// A waker whose wake panics, as no executor's should.
struct Panics(AtomicUsize);

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
        panic!("as told in the waker");
    }
}

#[tokio::test]
async fn a_waker_that_panics_takes_neither_the_client_nor_the_others_with_it() {
    let registry = Registry::builder().push_delay(None).start().await.unwrap();
    registry.register("orders", &instance(1));
    let client = soon("connect", Client::connect(registry.addr()))
        .await
        .unwrap();
    let orders = soon("subscribe", client.subscribe("orders")).await.unwrap();
    let panics = Arc::new(Panics(AtomicUsize::new(0)));
    let waker = Waker::from(panics.clone());
    let mut cx = Context::from_waker(&waker);
    let mut changes = orders.changes();
    while pin!(changes.next()).poll(&mut cx).is_ready() {}
    let mut discovery = orders.discover(|_: &Instance| Quiet);
    while Pin::new(&mut discovery).poll_discover(&mut cx).is_ready() {}
    registry.register("orders", &instance(2));
    soon("wait", orders.wait_for(2, HANG)).await.unwrap();
    registry.register("orders", &instance(3));
    soon("wait", orders.wait_for(3, HANG)).await.unwrap();
    assert!(panics.0.load(SeqCst) > 0);
    soon("read", client.instances("orders")).await.unwrap();
}

#[tokio::test]
async fn calls_to_a_set_that_will_never_be_known_end() {
    let (writer, orders) = writer();
    let mut balance = Balance::new(orders.discover(|_: &Instance| Quiet));
    let call = async { balance.ready().await.unwrap().call(1).await };
    let end = async {
        tokio::task::yield_now().await;
        writer.close();
    };
    let (result, ()) = timeout(Duration::from_secs(2), async { tokio::join!(call, end) })
        .await
        .expect("hangs");
    let error = result.unwrap_err().to_string();
    assert!(error.contains("ended before"), "{error}");
}

#[test]
fn lists_of_any_shape_are_taken() {
    let (mut writer, orders) = writer();
    let twins: Vec<_> = (0..1_000)
        .map(|n| instance(1).with_cluster(format!("c{n}")))
        .collect();
    for round in 0..20 {
        let mut twins = twins.clone();
        twins.rotate_left(round * 37);
        let before = orders.revision();
        writer.apply(Listing::new(twins), Origin::Push, now());
        assert_eq!(orders.snapshot().callable_len(), 1);
        assert!(
            round == 0 || orders.revision() == before,
            "twins in another order"
        );
    }
}

#[tokio::test]
async fn an_answer_over_the_limit_is_told_by_name() {
    let registry = Registry::builder().push_delay(None).start().await.unwrap();
    registry.script(Script::every_push(Fault::Drop));
    let big = format!(r#"{{"resultCode":200,"pad":"{}"}}"#, "x".repeat(100_000));
    registry.script(Script::every(
        "SubscribeServiceRequest",
        Fault::Body(big.into()),
    ));
    let client = Client::builder()
        .servers(registry.addr())
        .max_message_size(10_000)
        .request_timeout(Duration::from_millis(700));
    let client = soon("connect", client.connect()).await.unwrap();
    let error = soon("subscribe", client.subscribe("orders"))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("max_message_size"), "{error}");
}

// A registry that stands still.

#[test]
fn a_client_of_a_frozen_server_leaves_nothing_when_it_goes() {
    let apart = Apart::new();
    let registry = apart.get();
    let addr = registry.addr();
    current_thread().block_on(async {
        let client = soon("connect", Client::connect(addr.as_str()))
            .await
            .unwrap();
        let orders = soon("subscribe", client.subscribe("orders")).await.unwrap();
        soon("register", client.register("orders", instance(1)))
            .await
            .unwrap();
        registry.freeze();
        poll_times(client.instances("orders"), 1).await;
        poll_times(client.subscribe("others"), 1).await;
        poll_times(client.register("others", instance(1)), 1).await;
        let error = soon("close", client.close(Duration::from_millis(200)))
            .await
            .unwrap_err();
        assert!(!error.still_registered().is_empty(), "{error}");
        drop((client, orders));
        no_tasks_are_left().await;
        let client = Client::connect_lazy(addr.as_str()).unwrap();
        poll_times(client.subscribe("orders"), 1).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(client);
        no_tasks_are_left().await;
    });
    registry.thaw();
    apart.nobody_is_left();
}

#[test]
fn peers_that_accept_and_say_nothing_or_nonsense_are_left() {
    for words in [
        &b""[..],
        b"\0\0\0\x04\0\0\0\0\0",
        b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0",
        &[0xff; 4096],
    ] {
        current_thread().block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let client = Client::builder()
                .servers(format!("127.0.0.1:{port}/{port}"))
                .connect_timeout(Duration::from_millis(400));
            let mut accepted = Vec::new();
            let peer = async {
                loop {
                    let (socket, _) = listener.accept().await.unwrap();
                    let _ = socket.try_write(words);
                    accepted.push(socket);
                }
            };
            let error = tokio::select! {
                result = client.connect() => result.unwrap_err(),
                () = peer => unreachable!(),
            };
            assert!(error.is_timeout());
            assert!(!accepted.is_empty(), "{error}");
            no_tasks_are_left().await;
            for mut socket in accepted {
                use tokio::io::AsyncReadExt;
                let mut bytes = Vec::new();
                let _ = soon("the end of the socket", socket.read_to_end(&mut bytes)).await;
            }
        });
    }
}

#[tokio::test]
async fn what_changed_while_the_server_was_gone_is_so_when_it_returns() {
    let registry = Registry::builder().push_delay(None).start().await.unwrap();
    let client = soon("connect", Client::connect(registry.addr()))
        .await
        .unwrap();
    let mut kept = Vec::new();
    for n in 0..40 {
        kept.push(
            soon("subscribe", client.subscribe(format!("s{n}").as_str()))
                .await
                .unwrap(),
        );
    }
    soon("register", client.register("gone", instance(1)))
        .await
        .unwrap();
    registry.stop().await;
    let mut state = client.watch_state();
    soon("the loss", state.wait_for(|state| !state.is_connected()))
        .await
        .unwrap();
    kept.truncate(20);
    let _ = poll_times(client.deregister("gone"), 2).await;
    assert!(!poll_times(client.register("new", instance(2)), 1).await);
    let _late = client.subscribe_lazy("late").unwrap();
    registry.resume().await.unwrap();
    soon(
        "all that is wanted",
        registry.wait_until(|view| {
            (0..20).all(|n| view.subscribers(format!("s{n}").as_str()).len() == 1)
                && view.subscribers("late").len() == 1
                && view.addresses("new").len() == 1
        }),
    )
    .await;
    registry.inspect(|view| {
        for n in 20..40 {
            assert!(view.subscribers(format!("s{n}").as_str()).is_empty());
        }
        assert!(view.addresses("gone").is_empty());
    });
}

#[tokio::test]
async fn a_subscriber_that_comes_back_gets_a_first_answer_each_time() {
    let registry = Registry::builder().push_delay(None).start().await.unwrap();
    registry.register("orders", &instance(1));
    let client = soon("connect", Client::connect(registry.addr()))
        .await
        .unwrap();
    for pause in 0..60u64 {
        let orders = timeout(Duration::from_secs(5), client.subscribe("orders")).await;
        let orders = orders.expect("the first answer in time").unwrap();
        assert_eq!(orders.snapshot().callable_len(), 1, "{pause}");
        drop(orders);
        tokio::time::sleep(Duration::from_micros(pause * 20)).await;
    }
}

#[tokio::test]
async fn a_guarded_service_wakes_whoever_asked_last() {
    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }
    let (mut writer, orders) = writer();
    writer.publish([instance(1)], now());
    let mut discovery = orders.discover(|at: &Instance| Port(at.address().port()));
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(Some(Ok(tower::discover::Change::Insert(_, mut guarded)))) =
        Pin::new(&mut discovery).poll_discover(&mut cx)
    else {
        panic!("no service")
    };
    writer.publish([instance(1).with_enabled(false)], now());
    let (first, second) = (
        Arc::new(Count(AtomicUsize::new(0))),
        Arc::new(Count(AtomicUsize::new(0))),
    );
    for count in [&first, &second] {
        let waker = Waker::from(Arc::clone(count));
        let mut cx = Context::from_waker(&waker);
        assert!(Service::<u32>::poll_ready(&mut guarded, &mut cx).is_pending());
    }
    assert_eq!(
        Arc::strong_count(&first),
        1,
        "the replaced waker is not kept"
    );
    writer.publish([instance(1)], now());
    assert_eq!((first.0.load(SeqCst), second.0.load(SeqCst)), (0, 1));
    assert_eq!(
        soon("call", guarded.ready().await.unwrap().call(0))
            .await
            .unwrap(),
        1
    );
    writer.publish([], now());
    assert!(ServiceExt::<u32>::ready(&mut guarded).await.is_err());
}

/// Takes its time at each step, and fails at the answer when told to.
struct Slow {
    ready: u8,
    fails: Arc<AtomicBool>,
}

impl Clone for Slow {
    fn clone(&self) -> Self {
        Self {
            ready: 2,
            fails: Arc::clone(&self.fails),
        }
    }
}

impl Service<u32> for Slow {
    type Response = u32;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<u32, std::io::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        if self.ready == 0 {
            return Poll::Ready(Ok(()));
        }
        self.ready -= 1;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn call(&mut self, request: u32) -> Self::Future {
        let fails = Arc::clone(&self.fails);
        Box::pin(async move {
            tokio::task::yield_now().await;
            if fails.load(SeqCst) {
                return Err(std::io::ErrorKind::ConnectionRefused.into());
            }
            Ok(request)
        })
    }
}

#[tokio::test(start_paused = true)]
async fn calls_dropped_at_each_poll_leave_no_count_and_no_probe_behind() {
    let (mut writer, orders) = writer();
    writer.publish([instance(1), instance(2)], now());
    let fails = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&fails);
    let bare = orders
        .discover_with()
        .classify(|error: &std::io::Error| tower_nacos::endpoint::Verdict::unreachable(error))
        .bare(move |_: &Instance| Slow {
            ready: 2,
            fails: Arc::clone(&told),
        });
    for times in 0..8 {
        poll_times(bare.call(1), times).await;
        assert_eq!(bare.counts(), [0, 0, 0], "{times}");
    }
    // All out: the probe is taken by calls that are dropped, again and again.
    fails.store(true, SeqCst);
    for _ in 0..3 {
        let _ = soon("call", bare.call(1)).await;
    }
    fails.store(false, SeqCst);
    for times in 1..5 {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        poll_times(bare.call(1), times).await;
        assert_eq!(bare.counts(), [0, 0, 0], "{times}");
    }
    let mut rounds = 0;
    while soon("call", bare.call(1)).await.is_err() {
        rounds += 1;
        assert!(rounds < 60, "never probed again");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // And with the list flapping under them.
    for round in 0..200 {
        let calls: Vec<_> = (0..8)
            .map(|times| poll_times(bare.call(1), times))
            .collect();
        let flap = async {
            tokio::task::yield_now().await;
            let one = instance(1).with_enabled(round % 2 == 0);
            writer.publish(
                if round % 3 == 0 {
                    vec![one]
                } else {
                    vec![one, instance(2)]
                },
                now(),
            )
        };
        let (_, revision) = tokio::join!(futures_util::future::join_all(calls), flap);
        soon("applied", orders.applied(revision)).await.unwrap();
        assert_eq!(bare.counts(), [0, 0, 0], "{round}");
    }
}

#[test]
fn a_discovery_outlives_the_runtime_that_it_was_made_on() {
    let (mut writer, orders) = writer();
    writer.publish([instance(1), instance(2)], now());
    let living = Arc::new(());
    let theirs = Arc::clone(&living);
    let bare = current_thread().block_on(async {
        let bare = orders
            .discover_with()
            .bare(move |at: &Instance| Owning(at.address().port(), theirs.clone()));
        for _ in 0..4 {
            bare.call(0).await.unwrap();
        }
        bare
    });
    assert_eq!(Arc::strong_count(&living), 4);
    writer.publish([instance(2)], now());
    current_thread().block_on(async {
        assert_eq!(soon("call", bare.call(0)).await.unwrap(), 2);
        // By the task that the call began, on the runtime that it was made on.
        soon("the evicted one is dropped", async {
            while Arc::strong_count(&living) > 3 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    });
    drop(bare);
    assert_eq!(Arc::strong_count(&living), 1);
}

#[derive(Clone)]
struct Owning(u16, #[allow(dead_code, reason = "counted")] Arc<()>);

impl Service<u32> for Owning {
    type Response = u32;
    type Error = std::io::Error;
    type Future = std::future::Ready<Result<u32, std::io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: u32) -> Self::Future {
        std::future::ready(Ok(self.0.into()))
    }
}

#[tokio::test]
async fn an_instance_without_a_port_is_not_registered() {
    let registry = Registry::start().await.unwrap();
    let client = soon("connect", Client::connect(registry.addr()))
        .await
        .unwrap();
    let bound = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let none = Instance::new(Address::new(Host::Ip(bound.ip()), bound.port()));
    let error = soon("register", client.register("orders", none))
        .await
        .unwrap_err();
    assert!(matches!(error, RequestError::NoPort(_)), "{error}");
}

//! A loop around calls that fail lets others run: the tasks of this crate that would end the
//! failure, the caller's own timeouts, and on a runtime of one thread everybody else.

#![allow(
    clippy::disallowed_methods,
    reason = "a test owns its tasks and its clock"
)]

use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::Duration,
};

use ::http::Request;
use futures_util::{FutureExt, future::BoxFuture};
use tokio::{
    net::{TcpSocket, TcpStream},
    runtime::{Builder, Runtime},
};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_nacos::{
    Balance, Client, Instance, ServiceKey, Subscription,
    directory::{self, StatusChanges},
    endpoint::Verdict,
    grpc::Channel,
    http::{self, BuildHttp, Deadline, ResolveLayer},
    testing::Registry,
    transport::{Body, Rules, Transport, classify},
};

/// What only a hang reaches.
const HANG: Duration = Duration::from_secs(60);

/// A port that nobody listens at, and nobody else can take, until [`listen`](Self::listen).
struct Provider {
    address: SocketAddr,
    socket: TcpSocket,
}

impl Provider {
    fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Self {
            address: socket.local_addr().unwrap(),
            socket,
        }
    }

    /// Answers over HTTP/1 and HTTP/2, on a thread of its own.
    fn listen(self) {
        thread::spawn(|| {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = self.socket.listen(1024).unwrap();
                let app = axum::Router::new().fallback(async || "here");
                axum::serve(listener, app).await.unwrap();
            });
        });
    }
}

/// Where callers say how it goes.
#[derive(Clone)]
struct Told {
    failures: Arc<AtomicUsize>,
    /// So many failures are told of.
    enough: usize,
    failed: Sender<()>,
    answered: Sender<()>,
}

impl Told {
    /// Whether to stop.
    fn of(&self, answered: bool) -> bool {
        if answered {
            let _ = self.answered.send(());
        } else if self.failures.fetch_add(1, SeqCst) + 1 == self.enough {
            let _ = self.failed.send(());
        }
        answered
    }

    /// Calls until one is answered, without a pause of its own.
    async fn until_answered<F, T, E>(self, mut call: impl FnMut() -> F)
    where
        F: Future<Output = Result<T, E>>,
    {
        while !self.of(call().await.is_ok()) {}
    }
}

/// None: the runtime has one thread, and that is the caller's.
fn runtime(workers: Option<usize>) -> Runtime {
    let mut builder = match workers {
        None => Builder::new_current_thread(),
        Some(_) => Builder::new_multi_thread(),
    };
    if let Some(workers) = workers {
        builder.worker_threads(workers);
    }
    builder.enable_all().build().unwrap()
}

/// For each kind of runtime: as many callers as it has threads fail against a port at which nobody
/// listens, until somebody does; and then each of them is answered.
fn recovers<F>(enough: usize, callers: impl Fn(SocketAddr) -> F)
where
    F: Future<Output = Box<dyn Fn(Told) -> BoxFuture<'static, ()> + Send>> + Send + 'static,
{
    for workers in [None, Some(1), Some(2), Some(4), Some(8)] {
        let provider = Provider::new();
        let (failed, failing) = mpsc::channel();
        let (answered, answers) = mpsc::channel();
        let told = Told {
            failures: Arc::default(),
            enough,
            failed,
            answered,
        };
        let make = callers(provider.address);
        let count = workers.unwrap_or(1);
        thread::spawn(move || {
            runtime(workers).block_on(async {
                let make = make.await;
                let callers = (0..count).map(|_| tokio::spawn(make(told.clone())));
                for caller in callers.collect::<Vec<_>>() {
                    caller.await.unwrap();
                }
            });
        });
        happens(&failing, "calls fail", workers);
        provider.listen();
        for _ in 0..count {
            happens(&answers, "calls are answered again", workers);
        }
    }
}

fn happens(event: &Receiver<()>, what: &str, workers: Option<usize>) {
    let happened = event.recv_timeout(HANG);
    assert!(happened.is_ok(), "{what}: not so with {workers:?} workers");
}

fn fixed(address: SocketAddr) -> Subscription {
    Subscription::fixed([Instance::from(address)])
}

const MANY: usize = 2_000;

#[test]
fn a_balancer_recovers() {
    recovers(MANY, |address| async move {
        let balance = Balance::builder(&fixed(address)).build_http(Transport::builder().build());
        Box::new(move |told: Told| -> BoxFuture<'static, ()> {
            let mut balance = balance.clone();
            Box::pin(told.until_answered(move || balance.call(Request::new(Body::empty()))))
        }) as Box<dyn Fn(_) -> _ + Send>
    });
}

#[test]
fn an_http_client_recovers() {
    let registered = Registered::new();
    recovers(MANY, move |address| {
        let (server, uri) = registered.list(address);
        async move {
            let nacos = Client::connect(server).await.unwrap();
            let http = http::Client::new(&nacos);
            Box::new(move |told: Told| -> BoxFuture<'static, ()> {
                let (http, uri) = (http.clone(), uri.clone());
                Box::pin(told.until_answered(move || http.get(&uri).send()))
            }) as Box<dyn Fn(_) -> _ + Send>
        }
    });
}

#[test]
fn a_grpc_channel_recovers() {
    recovers(MANY, |address| async move {
        let channel = Channel::new(&fixed(address));
        Box::new(move |told: Told| -> BoxFuture<'static, ()> {
            let mut channel = channel.clone();
            let request = || Request::new(tonic::body::Body::empty());
            Box::pin(told.until_answered(move || channel.call(request())))
        }) as Box<dyn Fn(_) -> _ + Send>
    });
}

#[test]
fn a_picker_recovers() {
    recovers(MANY, |address| async move {
        let picker = Balance::builder(&fixed(address)).picker();
        Box::new(move |told: Told| -> BoxFuture<'static, ()> {
            let picker = picker.clone();
            Box::pin(told.until_answered(move || {
                let picker = picker.clone();
                async move {
                    let mut lease = picker.pick().await?;
                    match TcpStream::connect(lease.address().to_string()).await {
                        Ok(_) => lease.succeeded(),
                        Err(error) => {
                            lease.failed(Verdict::unreachable(&error));
                            return Err(error.into());
                        }
                    }
                    Ok::<_, BoxError>(())
                }
            }))
        }) as Box<dyn Fn(_) -> _ + Send>
    });
}

#[test]
fn a_client_behind_the_layer_recovers() {
    let registered = Registered::new();
    recovers(MANY, move |address| {
        let (server, uri) = registered.list(address);
        async move {
            let nacos = Client::connect(server).await.unwrap();
            let layer = ResolveLayer::new(&nacos)
                .classify(|error: &std::io::Error| Verdict::unreachable(error));
            let client = layer.layer(service_fn(|request: Request<()>| async move {
                let authority = request.uri().authority().unwrap();
                TcpStream::connect(authority.as_str()).await.map(drop)
            }));
            Box::new(move |told: Told| -> BoxFuture<'static, ()> {
                let (mut client, uri) = (client.clone(), uri.clone());
                Box::pin(told.until_answered(move || client.call(of(&uri))))
            }) as Box<dyn Fn(_) -> _ + Send>
        }
    });
}

#[test]
fn towers_own_balancer_over_our_discovery_recovers() {
    // It waits for an instance that is out, and does not fail: once is enough.
    recovers(1, |address| async move {
        Box::new(move |told: Told| -> BoxFuture<'static, ()> {
            let discover = fixed(address).discover_with().recover(Rules::default());
            let discover = discover.classify(classify);
            let discover = discover.build(Transport::builder().build());
            let mut balance = tower::balance::p2c::Balance::new(discover);
            Box::pin(async move {
                loop {
                    let answered = match balance.ready().await {
                        Ok(ready) => ready.call(Request::new(Body::empty())).await.is_ok(),
                        Err(_) => false,
                    };
                    if told.of(answered) {
                        return;
                    }
                }
            })
        }) as Box<dyn Fn(_) -> _ + Send>
    });
}

/// A registry on a runtime of its own.
struct Registered {
    _runtime: Runtime,
    registry: Registry,
}

impl Registered {
    fn new() -> Self {
        let runtime = runtime(Some(1));
        let registry = Registry::builder().push_delay(None).start();
        Self {
            registry: runtime.block_on(registry).unwrap(),
            _runtime: runtime,
        }
    }

    /// Lists it as the one instance of a service of its own: where to connect to, and what to call.
    fn list(&self, address: SocketAddr) -> (String, String) {
        let service = format!("orders-{}", address.port());
        self.registry.register(&*service, &address.into());
        (self.registry.addr(), format!("nacos://{service}/"))
    }
}

fn of(uri: &str) -> Request<()> {
    Request::get(uri).body(()).unwrap()
}

/// What others there are get their turn though this is done again and again, each time without
/// having waited.
async fn lets_others_run<T>(what: &str, mut again: impl AsyncFnMut() -> T) {
    let other = tokio::spawn(async {});
    for _ in 0..100_000 {
        if other.is_finished() {
            return;
        }
        again().await;
    }
    panic!("{what} lets nobody else run");
}

#[tokio::test]
async fn calls_that_are_not_begun_let_others_run() {
    let registry = Registry::start().await.unwrap();
    let nacos = Client::connect(registry.addr()).await.unwrap();
    let http = http::Client::new(&nacos);
    lets_others_run("an address that names nothing", || {
        http.get("nowhere").send()
    })
    .await;
    let past = Deadline::within(Duration::ZERO);
    lets_others_run("a deadline that has passed", || {
        http.get("nacos://orders/").deadline(past).send()
    })
    .await;

    let mut layered = ResolveLayer::new(&nacos).layer(service_fn(async |_: Request<()>| {
        Ok::<_, std::io::Error>(())
    }));
    lets_others_run("an address below the layer", || {
        layered.call(of("/nowhere"))
    })
    .await;

    let somebody = fixed(([127, 0, 0, 1], 1).into());
    let mut late = Channel::builder(&somebody).timeout(Duration::ZERO).build();
    lets_others_run("a gRPC call that is late already", || {
        late.call(Request::new(tonic::body::Body::empty()))
    })
    .await;
}

#[tokio::test]
async fn calls_beyond_a_limit_let_others_run() {
    let somebody = fixed(([127, 0, 0, 1], 1).into());
    let full = Balance::builder(&somebody).max_in_flight(1).picker();
    let held = full.pick().await.unwrap();
    lets_others_run("a pick beyond the limit", || full.pick()).await;
    drop(held);
    lets_others_run("a pick that succeeds", || full.pick()).await;

    let hanging = service_fn(async |()| std::future::pending::<Result<(), BoxError>>().await);
    let full = Balance::builder(&somebody).max_in_flight(1);
    let mut full = full.build(move |_: &Instance| hanging);
    let mut held = Box::pin(full.call(()));
    assert!(held.as_mut().now_or_never().is_none());
    lets_others_run("a call beyond the limit", || full.call(())).await;

    let key = ServiceKey::new("public", "orders".parse().unwrap()).unwrap();
    let (_writer, unknown) = directory::channel(key, directory::Options::default());
    let full = Balance::builder(&unknown).max_waiting(0).picker();
    lets_others_run("a pick that may not wait", || full.pick()).await;
    let full = Balance::builder(&unknown).max_waiting(0);
    let mut full = full.build(move |_: &Instance| hanging);
    lets_others_run("a call that may not wait", || full.call(())).await;
}

#[tokio::test]
async fn services_without_instances_let_others_run() {
    let nobody = Subscription::fixed([]);
    let answering = service_fn(async |()| Ok::<_, BoxError>(()));
    let mut balance = Balance::builder(&nobody).build(move |_: &Instance| answering);
    lets_others_run("a call to nobody", || balance.call(())).await;
    let picker = Balance::builder(&nobody).picker();
    lets_others_run("a pick of nobody", || picker.pick()).await;
}

#[tokio::test]
async fn what_a_subscription_knows_already_lets_others_run() {
    let key = ServiceKey::new("public", "orders".parse().unwrap()).unwrap();
    let (mut writer, orders) = directory::channel(key, directory::Options::default());
    writer.publish([], std::time::Instant::now());
    lets_others_run("ready", || orders.ready()).await;
    lets_others_run("wait_for", || orders.wait_for(0, HANG)).await;
    let revision = orders.revision();
    lets_others_run("applied", || orders.applied(revision)).await;
    writer.close();
    let mut changes = orders.changes();
    lets_others_run("changes that have ended", async || changes.next().await).await;
    let mut statuses: StatusChanges = orders.status_changes();
    lets_others_run("a status that has ended", async || statuses.next().await).await;
}

#[tokio::test]
async fn what_a_client_refuses_lets_others_run() {
    let registry = Registry::start().await.unwrap();
    let nacos = Client::connect(registry.addr()).await.unwrap();
    lets_others_run("a subscription to no name", || nacos.subscribe("")).await;
    nacos.close(HANG).await.unwrap();
    let instance = || Instance::parse("127.0.0.1:80").unwrap();
    lets_others_run("subscribe", || nacos.subscribe("orders")).await;
    lets_others_run("register", || nacos.register("orders", instance())).await;
    lets_others_run("deregister", || nacos.deregister("orders")).await;
    lets_others_run("instances", || nacos.instances("orders")).await;
    lets_others_run("services", || nacos.service_names("")).await;
    lets_others_run("close", || nacos.close(HANG)).await;
    lets_others_run("connect", || Client::connect("not an address")).await;
}

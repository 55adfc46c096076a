//! Calls that are lost together are one failure of their instance: who is killed with many calls in flight and starts
//! again at the same address is called again as soon as a dial reaches it, and is no outlier.

#![allow(
    clippy::disallowed_methods,
    reason = "a test owns its tasks and its clock"
)]

use std::{convert::Infallible, future::Future, net::SocketAddr, sync::Arc, time::Duration};

use ::http::{Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{
    body::{Bytes, Frame, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tower::{Service, ServiceExt};
use tower_nacos::{
    Client, Instance, Subscription,
    balance::{BalanceCounters, WeightedRoundRobin},
    grpc::Channel,
    http,
    testing::Registry,
    transport::{Protocol, Transport},
};

/// What only a hang reaches.
const HANG: Duration = Duration::from_secs(60);
/// So many calls are in flight on each instance, and five in a row make an outlier.
const AT_ONCE: usize = 16;

/// An instance that can be killed. Counts the calls that it holds for ever, and those that it answered.
struct Port {
    address: SocketAddr,
    calls: Arc<watch::Sender<[usize; 2]>>,
    listening: Option<JoinHandle<()>>,
}

impl Port {
    async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut port = Self {
            address: listener.local_addr().unwrap(),
            calls: Arc::new(watch::Sender::new([0, 0])),
            listening: None,
        };
        port.listen(listener);
        port
    }

    fn listen(&mut self, listener: TcpListener) {
        let calls = Arc::clone(&self.calls);
        self.listening = Some(tokio::spawn(async move {
            let mut connections = JoinSet::new(); // closed with the port
            while let Ok((socket, _)) = listener.accept().await {
                connections.spawn(serve(socket, Arc::clone(&calls)));
            }
        }));
    }

    /// As SIGKILL does it: nobody listens, and what was connected is not.
    async fn kill(&mut self) {
        let listening = self.listening.take().unwrap();
        listening.abort();
        let _ = listening.await;
    }

    async fn start_again(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.listen(listener);
    }

    fn answered(&self) -> usize {
        self.calls.borrow()[1]
    }

    async fn holds(&self, calls: usize) {
        let mut seen = self.calls.subscribe();
        soon("all are in flight", seen.wait_for(|now| now[0] == calls))
            .await
            .unwrap();
    }
}

/// `/head` is held with its head sent, `/` is answered, and all else is held as it is.
async fn serve(socket: TcpStream, calls: Arc<watch::Sender<[usize; 2]>>) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let calls = Arc::clone(&calls);
        async move {
            if request.uri().path() == "/" {
                calls.send_modify(|now| now[1] += 1);
                return Ok::<_, Infallible>(Response::new(Full::from("here").boxed()));
            }
            calls.send_modify(|now| now[0] += 1);
            if request.uri().path() != "/head" {
                std::future::pending::<()>().await;
            }
            let never = futures_util::stream::pending::<Result<Frame<Bytes>, Infallible>>();
            Ok(Response::new(StreamBody::new(never).boxed()))
        }
    });
    let server = auto::Builder::new(TokioExecutor::new());
    let _ = server.serve_connection(TokioIo::new(socket), answer).await;
}

async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match timeout(HANG, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what}: not within {HANG:?}"),
    }
}

/// One call to its end; whether all of an answer came.
trait Calls: Clone + Send + Sync + 'static {
    fn call(&self, path: &'static str) -> impl Future<Output = bool> + Send;
    fn counters(&self) -> BalanceCounters;
}

#[derive(Clone)]
struct OverHttp(http::Client<WeightedRoundRobin>);

impl Calls for OverHttp {
    async fn call(&self, path: &'static str) -> bool {
        let answered = self.0.get(format!("nacos://orders{path}")).send().await;
        match answered {
            Ok(response) => response.into_body().collect().await.is_ok(),
            Err(_) => false,
        }
    }

    fn counters(&self) -> BalanceCounters {
        self.0.service("orders").unwrap().counters()
    }
}

#[derive(Clone)]
struct OverGrpc(Channel<WeightedRoundRobin>);

impl Calls for OverGrpc {
    async fn call(&self, path: &'static str) -> bool {
        let mut channel = self.0.clone();
        let ready = channel.ready().await.unwrap();
        let mut request = Request::new(tonic::body::Body::empty());
        *request.uri_mut() = path.parse().unwrap();
        match ready.call(request).await {
            Ok(response) => response.into_body().collect().await.is_ok(),
            Err(_) => false,
        }
    }

    fn counters(&self) -> BalanceCounters {
        self.0.balance().counters()
    }
}

/// The first of three is killed with all of its calls in flight, and starts again.
async fn is_called_again(mut ports: [Port; 3], client: impl Calls, path: &'static str) {
    let mut calls = JoinSet::new();
    for _ in 0..3 * AT_ONCE {
        let client = client.clone();
        calls.spawn(async move { client.call(path).await });
    }
    for port in &ports {
        port.holds(AT_ONCE).await;
    }
    ports[0].kill().await;
    for _ in 0..AT_ONCE {
        let ended = soon("what it held is lost", calls.join_next()).await;
        assert!(!ended.unwrap().unwrap(), "nobody answered");
    }
    assert_eq!(client.counters().outlier_ejections, 0, "one failure");
    ports[0].start_again().await;
    let called = async {
        while ports[0].answered() == 0 {
            client.call("/").await;
            assert_eq!(client.counters().outlier_ejections, 0, "one failure");
        }
    };
    soon("it is called again", called).await;
}

async fn over_http(protocol: Protocol, path: &'static str) {
    let registry = soon("a registry", Registry::start()).await.unwrap();
    let ports = [Port::open().await, Port::open().await, Port::open().await];
    for Port { address, .. } in &ports {
        registry.register_as(&address.to_string(), "orders", &[(*address).into()]);
    }
    let nacos = soon("a client", Client::connect(registry.addr()));
    let client = http::Client::builder(&nacos.await.unwrap())
        .balance(|balance| balance.policy(WeightedRoundRobin::seeded(1)))
        .transport(Transport::builder().protocol(protocol))
        .build();
    is_called_again(ports, OverHttp(client), path).await;
}

#[tokio::test]
async fn on_one_connection_over_http2() {
    over_http(Protocol::Http2, "/wait").await;
}

#[tokio::test]
async fn in_their_bodies_over_http2() {
    over_http(Protocol::Http2, "/head").await;
}

/// There each call has a connection of its own, and all of them end at once.
#[tokio::test]
async fn on_as_many_connections_over_http1() {
    over_http(Protocol::Http1, "/wait").await;
}

#[tokio::test]
async fn on_one_connection_over_grpc() {
    let ports = [Port::open().await, Port::open().await, Port::open().await];
    let orders = Subscription::fixed(ports.each_ref().map(|port| Instance::from(port.address)));
    let channel = Channel::builder(&orders)
        .balance(|balance| balance.policy(WeightedRoundRobin::seeded(1)))
        .build();
    is_called_again(ports, OverGrpc(channel), "/wait").await;
}

//! Full is not ready: whoever finds an instance full goes where there is room, and whoever waits for
//! a connection waits for it without a fault of the instance.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::watch,
    task::{JoinHandle, JoinSet},
};
use tower_nacos::{
    Balance, Instance, Subscription,
    balance::{P2c, Policy, WeightedRoundRobin},
    http::BuildHttp,
    transport::{Protocol, TransportBuilder},
};

use crate::transport::support::*;

/// Answers at once, or when it is let.
struct Gated {
    address: SocketAddr,
    /// Calls that came.
    came: Arc<AtomicUsize>,
    open: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Gated {
    /// Takes so many HTTP/2 streams at once on a connection.
    async fn start(open: bool, streams: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let came = Arc::new(AtomicUsize::new(0));
        let (open, gate) = watch::channel(open);
        let counted = Arc::clone(&came);
        let task = spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((socket, _)) = listener.accept().await else {
                    continue;
                };
                let (counted, gate) = (Arc::clone(&counted), gate.clone());
                let service = service_fn(move |_: Request<Incoming>| {
                    counted.fetch_add(1, Ordering::SeqCst);
                    let mut gate = gate.clone();
                    async move {
                        let _ = gate.wait_for(|open| *open).await;
                        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"done"))))
                    }
                });
                connections.spawn(async move {
                    let mut server = auto::Builder::new(TokioExecutor::new());
                    server.http2().max_concurrent_streams(streams);
                    let _ = server.serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        Self {
            address,
            came,
            open,
            task,
        }
    }
}

impl Drop for Gated {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Fifty callers make calls to three instances of which one holds what it has and has room for so
/// many. All other calls must come back while it holds them.
async fn nobody_queues<P: Policy>(what: &str, policy: P, options: TransportBuilder, room: usize) {
    const CALLS: usize = 600;
    let slow = Gated::start(false, 1).await;
    let quick = [Gated::start(true, 100).await, Gated::start(true, 100).await];
    let addresses = [quick[0].address, slow.address, quick[1].address];
    let listed = Subscription::fixed(addresses.map(Instance::from));
    let balance = Balance::builder(&listed)
        .policy(policy)
        .build_http(options.build());
    let begun = Arc::new(AtomicUsize::new(0));
    let ended = Arc::new(watch::Sender::new(0));
    let mut callers = JoinSet::new();
    for _ in 0..50 {
        let (balance, begun, ended) = (balance.clone(), Arc::clone(&begun), Arc::clone(&ended));
        callers.spawn(async move {
            while begun.fetch_add(1, Ordering::SeqCst) < CALLS {
                let response = tower::ServiceExt::oneshot(balance.clone(), post(1, "x")).await;
                let read = response.unwrap().into_body().collect().await;
                assert_eq!(read.unwrap().to_bytes(), "done");
                ended.send_modify(|calls| *calls += 1);
            }
        });
    }
    let mut watched = ended.subscribe();
    let all_others = watched.wait_for(|calls| *calls + room >= CALLS);
    let while_held = tokio::time::timeout(Duration::from_secs(60), all_others).await;
    let (held, done) = (slow.came.load(Ordering::SeqCst), *ended.borrow());
    assert!(
        while_held.is_ok(),
        "{what}: {done} of {CALLS} calls are done, {held} at the full one, and the rest waits"
    );
    drop(while_held);
    assert!(
        held <= room,
        "{what}: {held} calls at once where {room} may be"
    );
    slow.open.send_replace(true);
    while let Some(caller) = soon("a caller", callers.join_next()).await {
        caller.unwrap();
    }
    let served = [&quick[0], &slow, &quick[1]].map(|one| one.came.load(Ordering::SeqCst));
    println!("{what}: served {served:?}");
    assert_eq!(served.iter().sum::<usize>(), CALLS, "{what}");
    assert_eq!(balance.counters().ejections, 0, "{what}");
}

#[tokio::test]
async fn no_call_queues_at_a_stream_limit_while_others_have_room() {
    let one = || builder(Protocol::Http2).max_connections(1);
    nobody_queues(
        "in turn, one connection",
        WeightedRoundRobin::new(),
        one(),
        1,
    )
    .await;
    nobody_queues("by load, one connection", P2c::default(), one(), 1).await;
    let some = || builder(Protocol::Http2); // eight connections at most
    nobody_queues("in turn", WeightedRoundRobin::new(), some(), 8).await;
    nobody_queues("by load", P2c::default(), some(), 8).await;
}

#[tokio::test]
async fn no_call_queues_at_max_calls_while_others_have_room() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let one = || builder(protocol).max_calls(1);
        let what = format!("{protocol:?}, in turn, max_calls");
        nobody_queues(&what, WeightedRoundRobin::new(), one(), 1).await;
        let what = format!("{protocol:?}, by load, max_calls");
        nobody_queues(&what, P2c::default(), one(), 1).await;
    }
}

#[tokio::test]
async fn who_has_nobody_else_waits_for_its_turn() {
    let only = Gated::start(true, 1).await;
    let options = builder(Protocol::Http2).max_connections(1);
    let balance = rotating(&[only.address], options);
    let calls = (0..200).map(|at| text(&balance, post(at, "x")));
    for called in soon("the calls", join_all(calls)).await {
        assert_eq!(called.unwrap(), "done");
    }
    assert_eq!(only.came.load(Ordering::SeqCst), 200);
    assert_eq!(balance.counters().ejections, 0);
}

/// A server whose system keeps 16 connections for it, and which takes its time to take them.
struct Busy {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Busy {
    fn start() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(16).unwrap();
        let address = listener.local_addr().unwrap();
        let task = spawn(async move {
            let mut connections = JoinSet::new();
            // Garbage is collected, say, as the burst comes.
            tokio::time::sleep(Duration::from_millis(300)).await;
            loop {
                tokio::time::sleep(Duration::from_millis(1)).await;
                let Ok((socket, _)) = listener.accept().await else {
                    continue;
                };
                let service = service_fn(async |_: Request<Incoming>| {
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"done"))))
                });
                connections.spawn(async move {
                    let server = auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        Self { address, task }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn a_burst_beyond_the_accept_queues_fails_no_call_and_ejects_nobody() {
    const CALLS: usize = 300;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let servers = [Busy::start(), Busy::start(), Busy::start()];
        let addresses = [0, 1, 2].map(|at: usize| servers[at].address);
        let balance = rotating(&addresses, builder(protocol));
        let calls = (0..CALLS).map(|at| text(&balance, post(at, "x")));
        let ours = soon("our calls", join_all(calls)).await;
        for called in &ours {
            let told = called.as_ref().map_err(ToString::to_string);
            assert_eq!(told.map(String::as_str), Ok("done"), "{protocol:?}");
        }
        assert_eq!(balance.counters().ejections, 0, "{protocol:?}");

        let servers = [Busy::start(), Busy::start(), Busy::start()];
        let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new())
            .http2_only(protocol == Protocol::Http2)
            .build_http();
        let calls = (0..CALLS).map(|at| {
            let uri = format!("http://{}/", servers[at % 3].address);
            client.request(Request::post(uri).body(Full::default()).unwrap())
        });
        let peer = soon("the peer's calls", join_all(calls)).await;
        let good = peer.iter().filter(|called| called.is_ok()).count();
        println!("{protocol:?}: ours {CALLS} of {CALLS}, hyper-util {good}");
    }
}

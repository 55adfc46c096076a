//! A dead service that comes back, on a real port: it is called again by everybody, and dialled no
//! more than that needs. What takes how long is shown in virtual time (`comeback.rs`).

#![allow(
    clippy::disallowed_methods,
    reason = "a test owns its tasks and its clock"
)]

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::{Request, Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::{JoinHandle, JoinSet},
    time::{Instant, timeout},
};
use tower::ServiceExt;
use tower_nacos::{
    Balance, Instance, Subscription,
    http::{BuildHttp, HttpBalance},
    transport::{Body, Protocol, Resolve, Transport},
};

/// What only a hang reaches.
const HANG: Duration = Duration::from_secs(60);
const REDIAL: Duration = Duration::from_millis(250);

/// A port at which somebody listens or not. Counts the connections that are accepted.
struct Port {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    listening: Option<JoinHandle<()>>,
}

impl Port {
    async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut port = Self {
            address: listener.local_addr().unwrap(),
            accepted: Arc::default(),
            listening: None,
        };
        port.listen(listener);
        port
    }

    async fn open_again(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.listen(listener);
    }

    fn listen(&mut self, listener: TcpListener) {
        let accepted = Arc::clone(&self.accepted);
        self.listening = Some(tokio::spawn(async move {
            let mut connections = JoinSet::new(); // closed with the port
            while let Ok((socket, _)) = listener.accept().await {
                accepted.fetch_add(1, SeqCst);
                connections.spawn(serve(socket));
            }
        }));
    }

    /// Nobody listens any more, and what was connected is not.
    async fn close(&mut self) {
        let listening = self.listening.take().unwrap();
        listening.abort();
        let _ = listening.await;
    }
}

async fn serve(socket: TcpStream) {
    let answer = service_fn(|_: Request<Incoming>| async {
        Ok::<_, Infallible>(Response::new(String::from("here")))
    });
    let server = auto::Builder::new(TokioExecutor::new());
    let _ = server.serve_connection(TokioIo::new(socket), answer).await;
}

/// Where its name leads, and how often that was asked: by each dial once.
#[derive(Clone)]
struct Dials(Arc<AtomicUsize>, SocketAddr);

impl Resolve for Dials {
    fn resolve(&self, _: &str, _: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        self.0.fetch_add(1, SeqCst);
        let address = self.1;
        Box::pin(async move { Ok(vec![address]) })
    }
}

impl Dials {
    fn so_far(&self) -> usize {
        self.0.load(SeqCst)
    }
}

async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match timeout(HANG, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what}: not within {HANG:?}"),
    }
}

/// Calls until it is answered, without a pause of its own.
async fn until_answered(balance: HttpBalance, failures: Arc<Failures>) {
    loop {
        let request = Request::new(Body::empty());
        match balance.clone().oneshot(request).await {
            Ok(_) => return,
            Err(error) => failures.one_more(&error.to_string()),
        }
    }
}

#[derive(Default)]
struct Failures {
    count: AtomicUsize,
    /// Of dials that were refused before it was known that the connection from before had ended: while one
    /// is open the instance serves others, and is not out.
    served_others: AtomicUsize,
    enough: Notify,
}

impl Failures {
    fn one_more(&self, error: &str) {
        if error.contains("it serves others") {
            self.served_others.fetch_add(1, SeqCst);
        }
        if self.count.fetch_add(1, SeqCst) + 1 == ENOUGH {
            self.enough.notify_one();
        }
    }
}

const ENOUGH: usize = 20_000;

async fn comes_back(protocol: Protocol, callers: usize) {
    let mut port = Port::open().await;
    let dials = Dials(Arc::default(), port.address);
    let named = Instance::parse(&format!("orders.test:{}", port.address.port())).unwrap();
    let transport = Transport::builder()
        .protocol(protocol)
        .resolver(dials.clone());
    let balance = Balance::builder(&Subscription::fixed([named])).build_http(transport.build());
    let first = balance.clone().oneshot(Request::new(Body::empty()));
    drop(soon("the first call", first).await.unwrap());

    port.close().await;
    let (before, began) = (dials.so_far(), Instant::now());
    let failures = Arc::new(Failures::default());
    let calling: Vec<_> = (0..callers)
        .map(|_| tokio::spawn(until_answered(balance.clone(), Arc::clone(&failures))))
        .collect();
    soon("calls fail", failures.enough.notified()).await;
    // Each caller may be about to dial as the first of them is refused; then it is one dial in each
    // 250 ms. The slower the machine, the more that may be.
    let in_vain = dials.so_far() - before;
    let rounds = began.elapsed().as_millis() / REDIAL.as_millis();
    let limit = callers + 1 + rounds as usize + failures.served_others.load(SeqCst);
    assert!(
        in_vain <= limit,
        "{in_vain} dials, {callers} callers, {rounds}"
    );
    assert_eq!(balance.counters().ejections, 1);
    assert_eq!(balance.counters().restorations, 0);

    let accepted = port.accepted.load(SeqCst);
    port.open_again().await;
    let before = dials.so_far();
    for caller in calling {
        soon("calls are answered", caller).await.unwrap();
    }
    // A call may have another's connection before its own dial was accepted.
    let accepted = soon("no dial is in vain", async {
        loop {
            let (dialled, accepted) = (dials.so_far(), port.accepted.load(SeqCst) - accepted);
            if dialled - before <= accepted {
                return accepted;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    let connections = match protocol {
        Protocol::Http2 => 1,
        _ => callers,
    };
    assert!(
        accepted <= 1 + connections,
        "{accepted}, a probe among them"
    );
    assert_eq!(balance.counters().ejections, 1, "nor was it a new start");
    assert_eq!(balance.counters().restorations, 1);
    assert_eq!(balance.counts(), [0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http1_and_http2_one_caller_and_many_are_answered_again() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        for callers in [1, 50] {
            comes_back(protocol, callers).await;
        }
    }
}

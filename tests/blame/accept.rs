//! Instances that accept connections and close them.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use axum::{Router, routing::any};
use futures_util::{StreamExt, stream};
use http::Method;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};
use tower_nacos::transport::Protocol::{self, Http1, Http2};

use super::{
    caller::{Ask, Caller, HANG},
    provider::{Provider, spawn},
};

/// Closes each connection as it is accepted, until it is well.
struct Closer {
    address: SocketAddr,
    well: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Closer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let well = Arc::new(AtomicBool::new(false));
        let accepted = Arc::new(AtomicUsize::new(0));
        let (is_well, count) = (Arc::clone(&well), Arc::clone(&accepted));
        let task = spawn(async move {
            let app = Router::new().fallback(any(async || "good"));
            let mut connections = JoinSet::new();
            loop {
                let Ok((socket, _)) = listener.accept().await else {
                    continue;
                };
                count.fetch_add(1, Ordering::SeqCst);
                if !is_well.load(Ordering::SeqCst) {
                    continue;
                }
                let app = TowerToHyperService::new(app.clone());
                connections.spawn(async move {
                    let server = auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(socket), app).await;
                });
            }
        });
        Self {
            address,
            well,
            accepted,
            task,
        }
    }
}

impl Drop for Closer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How many of so many calls fail, ten at once.
async fn failed(caller: &Caller, calls: usize) -> usize {
    let calls = (0..calls).map(|number| async move {
        let method = if number.is_multiple_of(2) {
            Method::GET
        } else {
            Method::POST
        };
        caller.call(&Ask::new(method, "/good")).await
    });
    let calls = stream::iter(calls).buffer_unordered(10);
    calls
        .filter(|called| std::future::ready(called.is_err()))
        .count()
        .await
}

/// Over HTTP/2 a connection that ends before its SETTINGS is one that cannot be had. Over HTTP/1 it is
/// found out by calls: five in a row (rule 5), and what else was on its way by then.
#[tokio::test]
async fn one_of_three_that_accepts_and_closes_costs_a_few_calls_and_then_none() {
    for (protocol, at_most) in [(Http1, 5 + 10), (Http2, 0)] {
        let closer = Closer::start().await;
        let (one, two) = (Provider::start().await, Provider::start().await);
        let addresses = [one.address, closer.address, two.address];
        let peer = failed(&Caller::peer(&addresses, protocol), 300).await;
        let ours = Caller::ours(&addresses, protocol);
        let first = failed(&ours, 300).await;
        let then = failed(&ours, 1_000).await;
        println!(
            "accept and close, {protocol:?}: ours {first} of 300, {then} of 1000, peer {peer} of 300"
        );
        assert!(
            first <= at_most,
            "{protocol:?}: {first} of 300 calls fail, {peer} with hyper-util"
        );
        // What a probe brings back is on probation, and a dial that closes at once is no probe's success.
        assert_eq!(then, 0, "{protocol:?}");
    }
}

/// The loop of calls has a thread and a runtime of its own: if it starved that, no timeout there would
/// tell.
#[test]
fn the_only_instance_is_called_again_once_it_is_well() {
    for protocol in [Http1, Http2] {
        let (told, hears) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.enable_all().build().unwrap();
            let dials = runtime.block_on(dials_until_well(protocol));
            let _ = told.send(dials);
        });
        let dials = hears.recv_timeout(HANG);
        let dials = dials.unwrap_or_else(|_| panic!("{protocol:?}: never called again"));
        assert!(
            dials <= 20,
            "{protocol:?}: {dials} connections for ten calls at once"
        );
    }
}

async fn dials_until_well(protocol: Protocol) -> usize {
    let closer = Closer::start().await;
    let ours = Caller::ours(&[closer.address], protocol);
    assert_eq!(failed(&ours, 50).await, 50);
    closer.well.store(true, Ordering::SeqCst);
    let begun = closer.accepted.load(Ordering::SeqCst);
    // Without a sleep: who fails at once lets the runtime work.
    while ours.call(&Ask::new(Method::GET, "/good")).await.is_err() {}
    assert_eq!(failed(&ours, 100).await, 0, "{protocol:?}");
    closer.accepted.load(Ordering::SeqCst) - begun
}

/// As [`the_only_instance_is_called_again_once_it_is_well`], for the peer: it fails as often.
#[tokio::test]
async fn the_only_instance_fails_as_with_the_peer() {
    let protocol: Protocol = Http1;
    let closer = Closer::start().await;
    assert_eq!(
        failed(&Caller::peer(&[closer.address], protocol), 50).await,
        50
    );
    assert_eq!(
        failed(&Caller::ours(&[closer.address], protocol), 50).await,
        50
    );
}

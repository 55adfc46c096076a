//! Who waits for a place at an HTTP/2 instance that has none, and who goes elsewhere.

use std::{future::Future, net::SocketAddr, time::Duration};

use futures_util::FutureExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::transport::{
    dial::target::Target,
    http2::options::Http2Options,
    plan::{Plan, Settings},
};

/// Longer than any test.
const LONG: Duration = Duration::from_secs(3600);

/// Takes one stream at a time, on each of so many connections; then nobody listens.
async fn takes_one(most: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    serve(listener, most);
    address
}

fn serve(listener: TcpListener, most: usize) {
    spawn(async move {
        let mut open = tokio::task::JoinSet::new();
        for _ in 0..most {
            let (mut socket, _) = listener.accept().await.unwrap();
            open.spawn(async move {
                // SETTINGS: MAX_CONCURRENT_STREAMS is 1.
                let settings = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1];
                let _ = socket.write_all(&settings).await;
                let mut read = [0; 1024];
                while socket.read(&mut read).await.unwrap_or(0) > 0 {}
            });
        }
        drop(listener);
        open.join_all().await;
    });
}

fn of(address: SocketAddr, max_connections: usize, redial_after: Duration) -> Arc<Connections> {
    let mut target = Target::new(address.into());
    target.protocol = Protocol::Http2;
    let settings = Settings {
        balanced: true,
        http2: Http2Options {
            max_connections,
            redial_after,
            ..Http2Options::default()
        },
        ..Settings::default()
    };
    let plan = Plan {
        instance: address.into(),
        target: Ok(target),
        service: None,
        settings: Arc::new(settings),
        own: None,
    };
    Arc::new(plan.connections())
}

async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    let hang = Duration::from_secs(20);
    let ended = timeout(hang, future).await;
    ended.unwrap_or_else(|_| panic!("hangs: {what}"))
}

async fn place(connections: &Arc<Connections>) -> Place {
    match soon("a place", connections.http2(false, false)).await {
        Ok(Found::Place(place)) => place,
        Ok(Found::Other | Found::Full) => panic!("it waits for one"),
        Err(none) => panic!("{}", none.error),
    }
}

/// What a call is told that could be made elsewhere.
async fn is_full(connections: &Arc<Connections>) -> bool {
    let found = soon("an answer", connections.http2(false, true)).await;
    matches!(found, Ok(Found::Full))
}

#[tokio::test]
async fn who_comes_when_the_last_dial_has_ended_goes_elsewhere_and_who_cannot_waits() {
    let connections = of(takes_one(1).await, 1, LONG);
    let held = place(&connections).await;
    for _ in 0..3 {
        assert!(is_full(&connections).await);
    }
    let mut waits = Box::pin(connections.http2(false, false));
    assert!((&mut waits).now_or_never().is_none());
    drop(held);
    let found = soon("its turn", waits).await;
    assert!(matches!(found, Ok(Found::Place(_))));
}

#[tokio::test]
async fn while_no_more_connections_can_be_had_calls_go_elsewhere_and_nobody_dials() {
    let connections = of(takes_one(1).await, 8, LONG);
    let _held = place(&connections).await;
    assert!(is_full(&connections).await, "a dial is refused");
    let pool = &connections.http2;
    assert!(pool.is_full() && pool.dial(true).is_none());
    assert!(is_full(&connections).await);
}

#[tokio::test]
async fn who_waits_dials_again_after_a_while() {
    let address = takes_one(1).await;
    let connections = of(address, 8, Duration::from_millis(1));
    let _held = place(&connections).await;
    assert!(is_full(&connections).await);
    let waits = Arc::clone(&connections);
    let waits = spawn(async move { drop(place(&waits).await) });
    serve(TcpListener::bind(address).await.unwrap(), 1);
    soon("a second connection", waits).await.unwrap();
}

#[tokio::test]
async fn an_instance_whose_connections_end_is_dialled_whatever_was_refused_before() {
    let address = takes_one(1).await;
    let connections = of(address, 8, LONG);
    let held = place(&connections).await;
    assert!(is_full(&connections).await);
    connections.http2.retire(held.connection());
    let none = soon("a dial", connections.http2(false, true)).await;
    let error = none.map(|_| ()).expect_err("nobody listens").error;
    assert!(!error.is_retirement(), "{error}");
}

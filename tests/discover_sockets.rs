//! What a provider sees of an eviction: its connection closes, without a call, once the calls in
//! flight on it have ended. Real sockets.

#![allow(
    clippy::disallowed_methods,
    reason = "a test owns its tasks and its clock"
)]

mod discover_support;

use std::{
    future::Future,
    io::{self, Write},
    net::TcpStream,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use discover_support::{instance, now, registry};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream as Accepted},
    sync::Notify,
    time::timeout,
};
use tower::{Service, ServiceExt, balance::p2c::Balance};
use tower_nacos::model::Instance;

const HANG: Duration = Duration::from_secs(20);

/// A client that owns its connection: closed with the last clone.
#[derive(Clone)]
struct Client {
    connection: Arc<TcpStream>,
    answer: Arc<Notify>,
}

impl Service<u8> for Client {
    type Response = ();
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Sends the byte and, for 1, waits for an answer with the connection in hand.
    fn call(&mut self, request: u8) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            (&*this.connection).write_all(&[request])?;
            if request == 1 {
                this.answer.notified().await;
            }
            Ok(())
        })
    }
}

async fn provider() -> (TcpListener, Instance) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let instance = Instance::from(listener.local_addr().unwrap());
    (listener, instance)
}

async fn read(connection: &mut Accepted) -> Option<u8> {
    let mut byte = [0];
    let read = timeout(HANG, connection.read(&mut byte)).await;
    let read = read.expect("the connection outlives its eviction").unwrap();
    (read == 1).then_some(byte[0])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_evicted_connection_closes_idle_or_after_its_last_call() {
    for in_flight in [false, true] {
        let (mut writer, orders) = registry();
        let (listener, ours) = provider().await;
        let other = instance("127.0.0.1:9");
        writer.publish([ours.clone()], now());
        let answer = Arc::new(Notify::new());
        let mut balance = Balance::new(orders.discover({
            let answer = Arc::clone(&answer);
            move |instance: &Instance| Client {
                connection: Arc::new(
                    TcpStream::connect(instance.address().socket_addr().unwrap()).unwrap(),
                ),
                answer: Arc::clone(&answer),
            }
        }));
        let call = balance.ready().await.unwrap().call(u8::from(in_flight));
        let call = tokio::spawn(call);
        let (mut connection, _) = timeout(HANG, listener.accept()).await.unwrap().unwrap();
        assert_eq!(read(&mut connection).await, Some(u8::from(in_flight)));

        // Closed for now: the connection stays, and serves again.
        writer.publish([ours.clone().with_weight(0.0), other.clone()], now());
        writer.publish([ours, other.clone()], now());
        let mut byte = [0];
        assert!(
            connection.try_read(&mut byte).is_err(),
            "nothing to read, and not closed"
        );

        // Gone: from here on nobody calls and nobody looks at the balancer.
        writer.publish([other], now());
        if in_flight {
            let closed = timeout(Duration::from_millis(100), connection.read(&mut byte)).await;
            assert!(closed.is_err(), "cut with a call in flight");
            assert!(!call.is_finished());
            answer.notify_one();
        }
        timeout(HANG, call).await.unwrap().unwrap().unwrap();
        assert_eq!(read(&mut connection).await, None, "closed");
        drop(balance);
    }
}

//! Who is called though the registry has lost it is called until no connection to it can be had; a
//! request that makes it drop one takes it from nobody. In virtual time.

#![allow(
    clippy::disallowed_methods,
    reason = "a test owns its tasks and its clock"
)]

mod discover_support;

use std::{
    future::{Ready, ready},
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use discover_support::{instance, now, registry};
use futures_util::future::BoxFuture;
use tokio::time::sleep;
use tower::{Service, ServiceExt};
use tower_nacos::{
    Balance, Instance,
    directory::{Status, Subscription, Writer},
    endpoint::{MakeEndpoint, Verdict},
};

/// An instance that can be reached or not, and drops its connection for a bad request.
#[derive(Clone, Default)]
struct Provider {
    is_gone: Arc<AtomicBool>,
}

#[derive(Clone, Copy)]
enum Ask {
    Well,
    Badly,
}

impl MakeEndpoint for Provider {
    type Service = Self;

    fn make(&self, _: &Instance) -> Self {
        self.clone()
    }

    fn probe(&self, _: &Instance) -> Option<BoxFuture<'static, Result<(), String>>> {
        let gone = self.is_gone.load(SeqCst);
        Some(Box::pin(ready(if gone {
            Err("refused".to_owned())
        } else {
            Ok(())
        })))
    }
}

impl Service<Ask> for Provider {
    type Response = ();
    type Error = io::Error;
    type Future = Ready<io::Result<()>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, ask: Ask) -> Self::Future {
        ready(match (ask, self.is_gone.load(SeqCst)) {
            (Ask::Badly, _) => Err(io::ErrorKind::ConnectionReset.into()),
            (Ask::Well, true) => Err(io::ErrorKind::ConnectionRefused.into()),
            (Ask::Well, false) => Ok(()),
        })
    }
}

fn verdict(error: &io::Error) -> Verdict {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Verdict::unreachable(error),
        _ => Verdict::lost(error),
    }
}

/// A registry that came back without its one instance.
fn held() -> (Writer, Subscription) {
    let (mut writer, orders) = registry();
    writer.publish([instance("10.0.0.1:80")], now());
    writer.handle_disconnected(now());
    writer.handle_connected(now());
    writer.publish([], now());
    (writer, orders)
}

fn is_held(orders: &Subscription) -> bool {
    matches!(orders.status(), Status::Held { instances: 1 })
}

macro_rules! balance {
    ($orders:expr, $provider:expr) => {
        Balance::builder($orders)
            .classify(verdict)
            .build($provider.clone())
    };
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_takes_nobody_who_is_held() {
    let (_writer, orders) = held();
    let provider = Provider::default();
    let balance = balance!(&orders, provider);
    for _ in 0..4 {
        assert!(balance.clone().oneshot(Ask::Badly).await.is_err());
        assert!(is_held(&orders));
        balance.clone().oneshot(Ask::Well).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_held_and_gone_is_let_go_by_the_dial_that_finds_it_out() {
    let (_writer, orders) = held();
    let provider = Provider::default();
    let balance = balance!(&orders, provider);
    balance.clone().oneshot(Ask::Well).await.unwrap();
    // Its process is killed with a call on the wire.
    provider.is_gone.store(true, SeqCst);
    assert!(balance.clone().oneshot(Ask::Badly).await.is_err());
    sleep(Duration::from_millis(1)).await;
    assert!(!is_held(&orders));
    assert_eq!(orders.snapshot().callable_len(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_is_held_and_refuses_is_let_go() {
    let (_writer, orders) = held();
    let provider = Provider::default();
    let balance = balance!(&orders, provider);
    assert!(is_held(&orders));
    provider.is_gone.store(true, SeqCst);
    assert!(balance.clone().oneshot(Ask::Well).await.is_err());
    assert!(!is_held(&orders));
    assert_eq!(orders.snapshot().callable_len(), 0);
}

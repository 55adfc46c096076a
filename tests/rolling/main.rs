//! A rolling restart of five providers under load, by callers that know the mark and by callers that
//! know nothing of us: nobody fails, and ours do not even move.
//!
//! Each provider is told to go, leaves by itself, and is started anew where it was; the next one goes when
//! callers of each kind have called the new one. Each provider goes once at least; `ROLLING_SECONDS` says for
//! how long more go, `ROLLING_RATE` how many calls a second are made in all.

#![expect(
    clippy::disallowed_methods,
    reason = "a test owns the tasks that it spawns, and a load is paced by the clock"
)]

mod callers;
mod fleet;
mod foreign;
#[allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::use_self
)]
#[path = "../../examples/greeter/greeter.rs"]
mod greeter;
#[allow(dead_code, reason = "shared with other suites; each uses its part")]
#[path = "../conformance/server.rs"]
mod server;

use std::{
    env,
    future::Future,
    time::{Duration, Instant},
};

use tokio::sync::Mutex;

use crate::{
    callers::Callers,
    fleet::{Fleet, PROVIDERS},
    foreign::Foreign,
    server::Server,
};

/// No step takes longer than this unless something hangs.
const HANG: Duration = Duration::from_secs(60);
/// One at a time: a load beside a load measures the machine.
static ONE: Mutex<()> = Mutex::const_new(());

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(HANG, future).await;
    done.unwrap_or_else(|_| panic!("{what}: nothing for {HANG:?}"))
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded() {
    // As long as real servers take until they push.
    let registry = tower_nacos::testing::Registry::start().await.unwrap();
    roll("the embedded registry", Server::Embedded(registry)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rnacos() {
    let Some(server) = Server::rnacos().await else {
        return;
    };
    roll("rnacos", server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nacos_3_1_0() {
    let Some(server) = Server::nacos("3.1.0").await else {
        return;
    };
    roll("Nacos 3.1.0", server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn named() {
    let Some(server) = Server::named() else {
        return;
    };
    roll("a server that was named", server).await;
}

async fn roll(name: &str, server: Server) {
    let _one = ONE.lock().await;
    let service = format!("rolling-{}", std::process::id());
    let mut fleet = Fleet::start(&server, &service).await;
    let nacos = server.client().await;
    let orders = nacos.subscribe(&*service).await.unwrap();
    within("all are listed", orders.wait_for(PROVIDERS, HANG))
        .await
        .unwrap();
    let rate = number("ROLLING_RATE").unwrap_or(400);
    let callers = Callers::start(&nacos, &orders, rate);
    let foreign = Foreign::start(&server, &service).await;

    let (start, mut restarts) = (Instant::now(), 0);
    let seconds = number("ROLLING_SECONDS").map(Duration::from_secs);
    let more = |restarts: usize| match seconds {
        Some(seconds) => restarts < PROVIDERS || start.elapsed() < seconds,
        None => restarts < PROVIDERS,
    };
    fleet.are_called(&foreign).await;
    while more(restarts) {
        fleet.restart(restarts % PROVIDERS).await;
        restarts += 1;
        fleet.are_called(&foreign).await;
    }

    let foreign = foreign.stop().await;
    let counted = callers.stop().await;
    println!(
        "rolling: {name}: {restarts} restarts in {:.1} s: {counted}{foreign}",
        start.elapsed().as_secs_f64()
    );
    assert!(
        counted.failures.is_empty(),
        "{} calls failed: {:#?}",
        counted.failed(),
        &counted.failures
    );
    assert_eq!(counted.moved, 0, "nobody has to move who is told in time");
    fleet.stop().await;
    foreign.check();
}

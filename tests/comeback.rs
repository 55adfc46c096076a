//! A dead service that comes back is called again at most 250 ms and one dial later, however many
//! call it, and is dialled four times a second at most meanwhile. In virtual time.

#![allow(
    clippy::disallowed_methods,
    reason = "a test owns its tasks and its clock"
)]

mod discover_support;

use std::{
    future::Ready,
    io,
    sync::{
        Arc, Mutex,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    task::{Context, Poll},
    time::Duration,
};

use discover_support::{instance, now, registry};
use futures_util::future::{BoxFuture, join_all};
use tokio::time::{Instant, sleep};
use tower::{Service, ServiceExt};
use tower_nacos::{
    Balance, Instance as NacosInstance,
    endpoint::{MakeEndpoint, Verdict},
};

/// How long a dial takes.
const DIAL: Duration = Duration::from_millis(20);
const REDIAL: Duration = Duration::from_millis(250);

/// One instance that is there or not, and who dials it.
#[derive(Clone, Default)]
struct Port(Arc<Dialled>);

#[derive(Default)]
struct Dialled {
    is_up: AtomicBool,
    at: Mutex<Vec<Instant>>,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
}

/// Counts a dial until it is over or dropped.
struct Dial(Port);

impl Drop for Dial {
    fn drop(&mut self) {
        self.0.0.at_once.fetch_sub(1, SeqCst);
    }
}

impl Port {
    async fn dial(self) -> Result<(), String> {
        self.0.at.lock().unwrap().push(Instant::now());
        let now = self.0.at_once.fetch_add(1, SeqCst) + 1;
        self.0.most_at_once.fetch_max(now, SeqCst);
        let dial = Dial(self);
        sleep(DIAL).await;
        match dial.0.0.is_up.load(Relaxed) {
            true => Ok(()),
            false => Err("refused".to_owned()),
        }
    }
}

impl MakeEndpoint for Port {
    type Service = Self;

    fn make(&self, _: &NacosInstance) -> Self {
        self.clone()
    }

    fn probe(&self, _: &NacosInstance) -> Option<BoxFuture<'static, Result<(), String>>> {
        Some(Box::pin(self.clone().dial()))
    }
}

impl Service<()> for Port {
    type Response = ();
    type Error = io::Error;
    type Future = Ready<io::Result<()>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        std::future::ready(if self.0.is_up.load(Relaxed) {
            Ok(())
        } else {
            Err(io::ErrorKind::ConnectionRefused.into())
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_back_is_called_within_250_ms_and_a_dial_by_one_and_by_ten_thousand() {
    for (callers, pause) in [(1, 1), (10_000, 1_000)] {
        for dead in [777, 3_100] {
            let (mut writer, orders) = registry();
            writer.publish([instance("10.0.0.1:80")], now());
            let port = Port::default();
            let balance = Balance::builder(&orders)
                .classify(|error: &io::Error| Verdict::unreachable(error))
                .build(port.clone());
            let began = Instant::now();
            let back = began + Duration::from_millis(dead);
            let up = async {
                tokio::time::sleep_until(back).await;
                port.0.is_up.store(true, Relaxed);
            };
            let calls = (0..callers).map(|at| {
                let balance = balance.clone();
                async move {
                    sleep(Duration::from_millis(at % pause)).await;
                    while balance.clone().oneshot(()).await.is_err() {
                        sleep(Duration::from_millis(pause)).await;
                    }
                    Instant::now()
                }
            });
            let (good, ()) = tokio::join!(join_all(calls), up);
            let first = good.into_iter().min().unwrap() - back;
            let limit = REDIAL + DIAL + Duration::from_millis(if callers == 1 { pause } else { 1 });
            assert!(first <= limit, "{callers} callers, {dead} ms: {first:?}");
            assert_eq!(port.0.most_at_once.load(SeqCst), 1, "one dial at a time");
            let dials = port.0.at.lock().unwrap();
            for two in dials.windows(2) {
                assert!(two[1] - two[0] >= REDIAL, "four a second at most");
            }
            assert!(dials.len() as u64 <= 4 * (dead / 1_000 + 1) + 1);
            assert_eq!(balance.counts(), [0, 0, 0]);
        }
    }
}

/// Where a call finds out, since the maker has no probe: who gives that up leaves it to the next who
/// waits, at once.
#[tokio::test(start_paused = true)]
async fn who_waits_for_a_probe_that_its_caller_gives_up_is_the_next() {
    let (mut writer, orders) = registry();
    writer.publish([instance("10.0.0.1:80")], now());
    let hangs = Arc::new(AtomicBool::new(false));
    let hanging = Arc::clone(&hangs);
    let balance = Balance::builder(&orders)
        .classify(|error: &io::Error| Verdict::unreachable(error))
        .build(move |_: &NacosInstance| {
            let hangs = Arc::clone(&hanging);
            tower::service_fn(move |fails: bool| {
                let hangs = hangs.load(Relaxed);
                async move {
                    match (fails, hangs) {
                        (true, _) => Err(io::ErrorKind::ConnectionRefused.into()),
                        (false, true) => std::future::pending().await,
                        (false, false) => Ok::<_, io::Error>(()),
                    }
                }
            })
        });
    assert!(balance.clone().oneshot(true).await.is_err());
    sleep(REDIAL + DIAL).await;
    hangs.store(true, Relaxed);
    let first = tokio::spawn(balance.clone().oneshot(false));
    sleep(DIAL).await;
    let second = tokio::spawn(balance.clone().oneshot(false));
    sleep(DIAL).await;
    assert_eq!(balance.counts()[0], 1, "one call is the probe");
    hangs.store(false, Relaxed);
    let began = Instant::now();
    first.abort();
    second.await.unwrap().unwrap();
    assert!(began.elapsed() <= Duration::from_millis(5));
    assert_eq!(balance.counts(), [0, 0, 0]);
}

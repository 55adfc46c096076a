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

/// How long after one dial that failed the next is made for whoever asks is an option; so long the
/// calls between fail at once.
#[tokio::test(start_paused = true)]
async fn redial_after_says_how_often_a_dead_service_is_dialled() {
    for after in [Duration::from_millis(50), Duration::from_millis(600)] {
        let (mut writer, orders) = registry();
        writer.publish([instance("10.0.0.1:80")], now());
        let (port, calls) = (Port::default(), AtomicUsize::new(0));
        let balance = Balance::builder(&orders)
            .classify(|error: &io::Error| Verdict::unreachable(error))
            .redial_after(after)
            .build(port.clone());
        let dead = Duration::from_millis(3_050);
        let back = Instant::now() + dead;
        while Instant::now() < back {
            assert!(balance.clone().oneshot(()).await.is_err());
            calls.fetch_add(1, Relaxed);
            sleep(Duration::from_millis(1)).await;
        }
        let dials = port.0.at.lock().unwrap().clone();
        for two in dials.windows(2) {
            assert!(two[1] - two[0] >= after, "{after:?}: {dials:?}");
        }
        let each = after + DIAL + Duration::from_millis(1);
        let least = dead.as_millis() / each.as_millis() / 2;
        assert!(dials.len() as u128 >= least, "{after:?}: {}", dials.len());
        assert!(calls.load(Relaxed) > 10 * dials.len());
        port.0.is_up.store(true, Relaxed);
        while balance.clone().oneshot(()).await.is_err() {
            sleep(Duration::from_millis(1)).await;
        }
        let limit = after + DIAL + Duration::from_millis(2);
        assert!(back.elapsed() <= limit, "{after:?}: {:?}", back.elapsed());
    }
}

/// So is how long a probe may take: who waits for it waits no longer.
#[tokio::test(start_paused = true)]
async fn probe_timeout_says_how_long_a_probe_that_hangs_is_waited_for() {
    /// Its probes hang; it counts those that are neither over nor dropped.
    #[derive(Clone, Default)]
    struct Hanging(Port);

    impl MakeEndpoint for Hanging {
        type Service = Port;

        fn make(&self, _: &NacosInstance) -> Port {
            self.0.clone()
        }

        fn probe(&self, _: &NacosInstance) -> Option<BoxFuture<'static, Result<(), String>>> {
            self.0.0.at_once.fetch_add(1, SeqCst);
            let dial = Dial(self.0.clone());
            Some(Box::pin(async move {
                let _dial = dial;
                std::future::pending().await
            }))
        }
    }

    for timeout in [Duration::from_millis(300), Duration::from_secs(20)] {
        let (mut writer, orders) = registry();
        writer.publish([instance("10.0.0.1:80")], now());
        let hanging = Hanging::default();
        let balance = Balance::builder(&orders)
            .classify(|error: &io::Error| Verdict::unreachable(error))
            .probe_timeout(timeout)
            .build(hanging.clone());
        assert!(balance.clone().oneshot(()).await.is_err());
        sleep(REDIAL).await;
        let began = Instant::now();
        let error = balance.clone().oneshot(()).await.unwrap_err();
        let waited = began.elapsed();
        assert!(
            waited >= timeout && waited <= timeout + Duration::from_millis(5),
            "{timeout:?}: {waited:?}"
        );
        assert!(error.to_string().contains("probe_timeout"), "{error}");
        assert_eq!(hanging.0.0.at_once.load(SeqCst), 0, "it is dropped");
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

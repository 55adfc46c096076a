//! Probes of one's own, in virtual time.

use std::{
    future, io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::time::sleep;
use tower::{Service, ServiceExt};
use tower_nacos::{
    Balance, Instance,
    endpoint::{MakeEndpoint, Verdict},
};

use super::support::{list, registry};

#[derive(Clone, Default)]
struct Stage(Arc<State>);

#[derive(Default)]
struct State {
    down: Mutex<Vec<u16>>,
    hang: Mutex<Vec<u16>>,
    probes: AtomicUsize,
    running: AtomicUsize,
    most_running: AtomicUsize,
    calls: AtomicUsize,
}

#[derive(Clone)]
struct Fake(Stage, u16);

impl Service<()> for Fake {
    type Response = u16;
    type Error = io::Error;
    type Future = future::Ready<io::Result<u16>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        self.0.0.calls.fetch_add(1, Ordering::SeqCst);
        future::ready(if self.0.is_down(self.1) {
            Err(io::ErrorKind::ConnectionRefused.into())
        } else {
            Ok(self.1)
        })
    }
}

impl Stage {
    fn is_down(&self, port: u16) -> bool {
        self.0.down.lock().unwrap().contains(&port)
    }

    fn probes(&self) -> usize {
        self.0.probes.load(Ordering::SeqCst)
    }

    fn calls(&self) -> usize {
        self.0.calls.load(Ordering::SeqCst)
    }
}

struct Running(Stage);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl MakeEndpoint for Stage {
    type Service = Fake;

    fn make(&self, instance: &Instance) -> Fake {
        Fake(self.clone(), instance.address().port())
    }

    fn probe(&self, instance: &Instance) -> Option<BoxFuture<'static, Result<(), String>>> {
        let (stage, port) = (self.clone(), instance.address().port());
        stage.0.probes.fetch_add(1, Ordering::SeqCst);
        Some(Box::pin(async move {
            let now = stage.0.running.fetch_add(1, Ordering::SeqCst) + 1;
            let _running = Running(stage.clone());
            stage.0.most_running.fetch_max(now, Ordering::SeqCst);
            assert_ne!(port, 13, "a probe that panics is a failure");
            if stage.0.hang.lock().unwrap().contains(&port) {
                future::pending::<()>().await;
            }
            if stage.is_down(port) {
                Err("down".to_owned())
            } else {
                Ok(())
            }
        }))
    }
}

macro_rules! balance {
    ($orders:expr, $stage:expr) => {
        Balance::builder($orders)
            .classify(|error: &io::Error| Verdict::unreachable(error))
            .build($stage.clone())
    };
}

#[expect(clippy::disallowed_methods, reason = "the paused clock")]
fn now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

fn addresses(ports: impl IntoIterator<Item = u16>) -> Vec<std::net::SocketAddr> {
    ports
        .into_iter()
        .map(|port| ([10, 0, 0, 1], port).into())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_probe_of_one_s_own_brings_an_instance_back_and_no_call_does() {
    for bad in [1, 13] {
        let (mut writer, orders) = registry();
        let stage = Stage::default();
        list(&mut writer, &addresses([bad, 2]));
        let balance = balance!(&orders, stage);
        stage.0.down.lock().unwrap().push(bad);
        while balance.clone().oneshot(()).await.is_ok() {}
        // Rests of 1, 2, 4, 8 s, each followed by one probe; calls go to the other.
        let before = stage.calls();
        sleep(Duration::from_millis(5)).await;
        for (probes, rest) in [1, 2, 4, 8].into_iter().enumerate() {
            sleep(Duration::from_millis(rest * 1000 - 10)).await;
            assert_eq!(stage.probes(), probes, "before the end of {rest} s");
            sleep(Duration::from_millis(10)).await;
            assert_eq!(stage.probes(), probes + 1, "after {rest} s");
            assert_eq!(balance.clone().oneshot(()).await.unwrap(), 2);
        }
        assert_eq!(stage.calls() - before, 4);
        stage.0.down.lock().unwrap().clear();
        if bad == 13 {
            continue;
        }
        sleep(Duration::from_secs(17)).await;
        let mut served = Vec::new();
        for _ in 0..40 {
            served.push(balance.clone().oneshot(()).await.unwrap());
        }
        assert!(served.contains(&bad));
    }
}

#[tokio::test(start_paused = true)]
async fn while_all_are_out_who_asks_has_them_dialled_and_the_first_success_ends_all_rests() {
    let (mut writer, orders) = registry();
    let stage = Stage::default();
    list(&mut writer, &addresses(100..140));
    let balance = balance!(&orders, stage);
    stage.0.down.lock().unwrap().extend(100..140);
    while !balance
        .clone()
        .oneshot(())
        .await
        .unwrap_err()
        .is_all_unreachable()
    {}
    let calls = stage.calls();
    for _ in 0..20 {
        sleep(Duration::from_secs(1)).await;
        let error = balance.clone().oneshot(()).await.unwrap_err();
        assert!(error.is_all_unreachable(), "{error}");
    }
    assert_eq!(stage.calls(), calls, "no call is sent to who is out");
    stage.0.down.lock().unwrap().clear();
    sleep(Duration::from_millis(300)).await;
    balance.clone().oneshot(()).await.unwrap();
    sleep(Duration::from_millis(10)).await;
    let out = addresses(100..140).into_iter().filter(|at| {
        let told = balance.explain(&(*at).into()).to_string();
        told.contains("could not be reached")
    });
    assert_eq!(out.count(), 0);
    assert!(stage.0.most_running.load(Ordering::SeqCst) <= 16);
}

#[tokio::test(start_paused = true)]
async fn probes_are_dropped_with_their_instance_and_with_the_balancer() {
    let (mut writer, orders) = registry();
    let stage = Stage::default();
    list(&mut writer, &addresses([1, 2, 3]));
    let balance = balance!(&orders, stage);
    stage.0.down.lock().unwrap().extend([1, 2]);
    stage.0.hang.lock().unwrap().extend([1, 2]);
    for _ in 0..40 {
        let _ = balance.clone().oneshot(()).await;
    }
    sleep(Duration::from_millis(1100)).await;
    let running = || stage.0.running.load(Ordering::SeqCst);
    assert_eq!(running(), 2);
    list(&mut writer, &addresses([2, 3]));
    sleep(Duration::from_millis(1)).await;
    assert_eq!(running(), 1);
    drop(balance);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(running(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_is_probed_at_once_and_calls_with_nowhere_to_go_wait_for_that() {
    let (mut writer, orders) = registry();
    let stage = Stage::default();
    list(&mut writer, &addresses([1]));
    let balance = Balance::builder(&orders)
        .classify(|error: &io::Error| Verdict::lost(error))
        .build(stage.clone());
    let lose = async || {
        stage.0.down.lock().unwrap().push(1);
        assert!(balance.clone().oneshot(()).await.unwrap_err().is_inner());
        stage.0.down.lock().unwrap().clear();
    };
    assert_eq!(balance.clone().oneshot(()).await.unwrap(), 1);

    // All that was wrong is the connection: nobody else fails for it.
    let began = now();
    lose().await;
    assert_eq!(balance.clone().oneshot(()).await.unwrap(), 1);
    assert_eq!((stage.probes(), began.elapsed()), (1, Duration::ZERO));

    // However often that happens.
    for times in 2..5 {
        lose().await;
        assert_eq!(balance.clone().oneshot(()).await.unwrap(), 1);
        assert_eq!((stage.probes(), began.elapsed()), (times, Duration::ZERO));
    }
    assert_eq!(balance.counters().ejections, 0);

    // With a probe that fails: those that waited for it are told.
    stage.0.down.lock().unwrap().push(1);
    assert!(balance.clone().oneshot(()).await.unwrap_err().is_inner());
    let error = balance.clone().oneshot(()).await.unwrap_err();
    assert!(error.is_all_unreachable(), "{error}");
    assert_eq!(balance.counts(), [0, 0, 0]);
    assert_eq!(balance.counters().ejections, 1);

    // With a probe that hangs: it is out of time after 5 s, and dropped.
    stage.0.down.lock().unwrap().clear();
    sleep(Duration::from_secs(12)).await;
    assert_eq!(balance.clone().oneshot(()).await.unwrap(), 1);
    stage.0.hang.lock().unwrap().push(1);
    lose().await;
    let began = now();
    let error = balance.clone().oneshot(()).await.unwrap_err();
    assert!(error.is_all_unreachable(), "{error}");
    assert!(error.to_string().contains("probe_timeout"), "{error}");
    assert_eq!(began.elapsed(), Duration::from_secs(5));
    assert_eq!(stage.0.running.load(Ordering::SeqCst), 0);
    stage.0.hang.lock().unwrap().clear();
    sleep(Duration::from_millis(300)).await;
    assert_eq!(balance.clone().oneshot(()).await.unwrap(), 1);
}

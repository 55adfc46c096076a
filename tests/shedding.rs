//! How policies treat an instance that is slow, dead slow, or well again, in virtual time.

#![allow(
    clippy::disallowed_methods,
    reason = "a test owns its clock and its tasks"
)]

mod discover_support;

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use discover_support::{instance, now, registry};
use tokio::task::JoinSet;
use tower::{ServiceExt, service_fn};
use tower_nacos::{
    Balance, Instance,
    balance::{P2c, PeakEwma, Policy, Random},
    directory::{Subscription, Writer},
};

const CALLERS: usize = 30;
const USUAL: u64 = 10;

/// Instances that answer after 10 ms, but for the last, which takes as long as it is told.
struct World {
    writer: Writer,
    orders: Subscription,
    slow_ms: Arc<AtomicU64>,
    counts: Arc<Mutex<HashMap<String, usize>>>,
}

fn address(at: usize) -> String {
    format!("10.0.0.{}:80", at + 1)
}

impl World {
    fn new() -> Self {
        Random::seed_thread(11);
        let (writer, orders) = registry();
        let mut world = Self {
            writer,
            orders,
            slow_ms: Arc::new(AtomicU64::new(USUAL)),
            counts: Arc::default(),
        };
        world.list(10);
        world
    }

    fn list(&mut self, n: usize) {
        let list = (0..n).map(|at| instance(&address(at)));
        self.writer.publish(list, now());
    }

    /// `CALLERS` call one after the other for so long; the share that the `at`th instance got of
    /// the calls that began.
    async fn share<S>(&self, balance: &S, at: usize, time: Duration) -> f64
    where
        S: tower::Service<(), Future: Send> + Clone + Send + 'static,
    {
        self.counts.lock().unwrap().clear();
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let balance = balance.clone();
            callers.spawn(async move {
                loop {
                    let _ = balance.clone().oneshot(()).await;
                }
            });
        }
        tokio::time::sleep(time).await;
        callers.shutdown().await;
        let counts = self.counts.lock().unwrap();
        let total: usize = counts.values().sum();
        counts.get(&address(at)).copied().unwrap_or(0) as f64 / total as f64
    }
}

fn balance<P: Policy>(
    world: &World,
    policy: P,
) -> impl tower::Service<(), Future: Send> + Clone + Send + 'static {
    let (slow, counts) = (Arc::clone(&world.slow_ms), Arc::clone(&world.counts));
    Balance::builder(&world.orders)
        .policy(policy)
        .build(move |instance: &Instance| {
            let at = instance.address().to_string();
            let (slow, counts) = (Arc::clone(&slow), Arc::clone(&counts));
            service_fn(move |(): ()| {
                *counts.lock().unwrap().entry(at.clone()).or_default() += 1;
                let ms = if at == address(9) {
                    slow.load(SeqCst)
                } else {
                    USUAL
                };
                async move {
                    tokio::time::sleep(Duration::from_millis(ms)).await;
                    Ok::<_, io::Error>(())
                }
            })
        })
}

#[tokio::test(start_paused = true)]
async fn peak_ewma_sheds_ten_times_the_latency_within_a_second_and_gives_it_back() {
    let world = World::new();
    let balance = balance(&world, PeakEwma::new());
    let second = Duration::from_secs(1);
    let well = world.share(&balance, 9, second).await;
    assert!((well - 0.1).abs() < 0.02, "{well}");
    world.slow_ms.store(10 * USUAL, SeqCst);
    let slow = world.share(&balance, 9, second).await;
    assert!(slow < 0.03, "{slow}");
    assert!(world.share(&balance, 9, 10 * second).await < 0.03);
    world.slow_ms.store(USUAL, SeqCst);
    // What it was fades by 1/e in 10 s: half of the share is back after two of those (20 s
    // measured), and nearly all after six.
    world.share(&balance, 9, 20 * second).await;
    let half = world.share(&balance, 9, 5 * second).await;
    assert!(half >= 0.05, "{half}");
    world.share(&balance, 9, 35 * second).await;
    let back = world.share(&balance, 9, 5 * second).await;
    assert!(back > 0.08, "{back}");
}

#[tokio::test(start_paused = true)]
async fn peak_ewma_gives_a_new_instance_half_its_share_within_its_decay() {
    let mut world = World::new();
    let balance = balance(&world, PeakEwma::new());
    world.share(&balance, 0, Duration::from_secs(2)).await;
    world.list(11);
    let share = world.share(&balance, 10, Duration::from_secs(10)).await;
    assert!(share > 0.5 / 11.0 && share < 2.0 / 11.0, "{share}");
}

#[tokio::test(start_paused = true)]
async fn p2c_gives_a_dead_slow_instance_less_than_a_third_of_its_share() {
    let world = World::new();
    let balance = balance(&world, P2c::new());
    world.slow_ms.store(60_000, SeqCst);
    let share = world.share(&balance, 9, Duration::from_secs(5)).await;
    assert!(share < 0.3 / 10.0, "{share}");
    world.slow_ms.store(3 * USUAL, SeqCst);
    let share = world.share(&balance, 9, Duration::from_secs(5)).await;
    assert!(share < 0.08, "three times as slow: {share}");
}

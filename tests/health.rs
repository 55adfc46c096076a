//! What is known of an instance's health, and what follows from it, in virtual time.

#![allow(
    clippy::disallowed_methods,
    reason = "a test owns its tasks and its clock"
)]

mod discover_support;

use std::{
    collections::HashMap,
    future::Future,
    io,
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use discover_support::{idle_context, instance, now, registry};
use futures_util::future::BoxFuture;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};
use tower::{Service, ServiceExt};
use tower_nacos::{
    Balance, Instance as NacosInstance,
    balance::{Outliers, Pickable, WeightedRoundRobin},
    directory::{Subscription, Writer},
    endpoint::{MakeEndpoint, Outcome, Verdict},
};

const A: &str = "10.0.0.1:80";
const B: &str = "10.0.0.2:80";
const C: &str = "10.0.0.3:80";

/// What an instance does.
#[derive(Clone, Copy, PartialEq)]
enum Does {
    Answer,
    Refuse,
    Lose,
    Hang,
}

/// Instances, what they do, and what they were asked. Probes end when they are told to.
#[derive(Clone, Default)]
struct World(Arc<Inner>);

#[derive(Default)]
struct Inner {
    does: Mutex<HashMap<String, Does>>,
    called: Mutex<HashMap<String, usize>>,
    probes: Mutex<usize>,
    /// Whether probes wait to be told.
    held: Mutex<bool>,
    told: Notify,
}

#[derive(Clone)]
struct Actor(World, String);

impl World {
    fn set(&self, address: &str, does: Does) {
        self.0.does.lock().unwrap().insert(address.to_owned(), does);
    }

    fn does(&self, address: &str) -> Does {
        let does = self.0.does.lock().unwrap();
        does.get(address).copied().unwrap_or(Does::Answer)
    }

    fn called(&self, address: &str) -> usize {
        let called = self.0.called.lock().unwrap();
        called.get(address).copied().unwrap_or(0)
    }

    fn probes(&self) -> usize {
        *self.0.probes.lock().unwrap()
    }

    fn hold(&self, held: bool) {
        *self.0.held.lock().unwrap() = held;
        self.0.told.notify_waiters();
    }
}

impl MakeEndpoint for World {
    type Service = Actor;

    fn make(&self, instance: &NacosInstance) -> Actor {
        Actor(self.clone(), instance.address().to_string())
    }

    fn probe(&self, instance: &NacosInstance) -> Option<BoxFuture<'static, Result<(), String>>> {
        let (world, address) = (self.clone(), instance.address().to_string());
        *self.0.probes.lock().unwrap() += 1;
        Some(Box::pin(async move {
            while *world.0.held.lock().unwrap() {
                world.0.told.notified().await;
            }
            match world.does(&address) {
                Does::Refuse => Err("refused".to_owned()),
                _ => Ok(()),
            }
        }))
    }
}

impl Service<()> for Actor {
    type Response = String;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<String>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        *self
            .0
            .0
            .called
            .lock()
            .unwrap()
            .entry(self.1.clone())
            .or_default() += 1;
        let (does, address) = (self.0.does(&self.1), self.1.clone());
        Box::pin(async move {
            match does {
                Does::Answer => Ok(address),
                Does::Refuse => Err(io::ErrorKind::ConnectionRefused.into()),
                Does::Lose => Err(io::ErrorKind::ConnectionReset.into()),
                Does::Hang => std::future::pending().await,
            }
        })
    }
}

fn verdict(error: &io::Error) -> Verdict {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Verdict::unreachable(error),
        io::ErrorKind::ConnectionReset => Verdict::lost(error),
        _ => Verdict::Reachable,
    }
}

fn list(addresses: &[&str]) -> (Writer, Subscription) {
    let (mut writer, orders) = registry();
    writer.publish(addresses.iter().map(|a| instance(a)), now());
    (writer, orders)
}

macro_rules! balance {
    ($orders:expr, $world:expr) => {
        Balance::builder($orders)
            .policy(WeightedRoundRobin::seeded(1))
            .classify(verdict)
            .build($world.clone())
    };
}

/// Has the janitor work.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_share_one_dial_and_whoever_leaves_leaves_it_to_the_others() {
    for comes_back in [true, false] {
        let (_writer, orders) = list(&[A]);
        let world = World::default();
        let balance = balance!(&orders, world);
        world.set(A, Does::Refuse);
        assert!(balance.clone().oneshot(()).await.unwrap_err().is_inner());
        let error = balance.clone().oneshot(()).await.unwrap_err();
        assert!(error.is_all_unreachable(), "just dialled: {error}");
        assert_eq!(world.probes(), 0);

        sleep(Duration::from_millis(300)).await;
        world.hold(true);
        let mut calls: Vec<_> = (0..10_000)
            .map(|_| Box::pin(balance.clone().oneshot(())))
            .collect();
        // Some leave before the dial has begun, some as it is on its way.
        for call in &mut calls {
            assert!(call.as_mut().poll(&mut idle_context()).is_pending());
        }
        calls.drain(..3_000);
        settle().await;
        assert_eq!(world.probes(), 1, "one for all of them");
        calls.truncate(4_000);
        for call in &mut calls {
            assert!(call.as_mut().poll(&mut idle_context()).is_pending());
        }
        settle().await;
        assert_eq!((world.probes(), world.called(A)), (1, 1));
        if comes_back {
            world.set(A, Does::Answer);
        }
        world.hold(false);
        let began = Instant::now();
        for call in calls {
            match call.await {
                Ok(answer) => assert!(comes_back && answer == A),
                Err(error) => assert!(!comes_back && error.is_all_unreachable(), "{error}"),
            }
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert_eq!(world.probes(), 1);
        assert_eq!(balance.counts(), [0, 0, 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_suspect_is_passed_over_and_waited_for_only_by_who_has_nobody_else() {
    let (_writer, orders) = list(&[A, B]);
    let world = World::default();
    let balance = balance!(&orders, world);
    world.set(A, Does::Lose);
    world.hold(true);
    let mut lost = 0;
    while lost == 0 {
        lost += usize::from(balance.clone().oneshot(()).await.is_err());
    }
    let suspect = balance.explain(&A.parse().unwrap());
    assert_eq!(suspect.verdict, Pickable::Suspect, "{suspect}");
    for _ in 0..10 {
        assert_eq!(balance.clone().oneshot(()).await.unwrap(), B);
    }
    settle().await;
    assert_eq!(world.probes(), 1);
    // An answer that arrives meanwhile, or the dial, settles it; nobody was ejected.
    world.set(A, Does::Answer);
    world.hold(false);
    settle().await;
    assert!(balance.explain(&A.parse().unwrap()).is_pickable());
    assert_eq!(balance.counters().ejections, 0);
}

#[tokio::test(start_paused = true)]
async fn who_loses_five_in_a_row_is_out_by_default_and_never_the_last_nor_half_of_three() {
    let (_writer, orders) = list(&[A, B, C]);
    let world = World::default();
    let balance = balance!(&orders, world);
    world.set(A, Does::Lose);
    for _ in 0..100 {
        let _ = balance.clone().oneshot(()).await;
        settle().await;
    }
    assert_eq!(world.called(A), 5);
    let told = balance.explain(&A.parse().unwrap());
    assert!(matches!(told.verdict, Pickable::Outlier { .. }), "{told}");
    assert_eq!(balance.counters().outlier_ejections, 1);
    // All of them do: then it is nobody's fault.
    world.set(B, Does::Lose);
    world.set(C, Does::Lose);
    for _ in 0..100 {
        let error = balance.clone().oneshot(()).await.unwrap_err();
        assert!(error.is_inner(), "nobody is refused for it: {error}");
        settle().await;
    }
    // After 30 s a call finds out, and an answer brings it back.
    world.set(A, Does::Answer);
    sleep(Duration::from_secs(31)).await;
    for _ in 0..3 {
        let _ = balance.clone().oneshot(()).await;
        settle().await;
    }
    assert!(balance.explain(&A.parse().unwrap()).is_pickable());

    // Turned off, and alone.
    for (addresses, most) in [(&[A, B, C][..], 0), (&[A][..], 5)] {
        let (_writer, orders) = list(addresses);
        let world = World::default();
        let balance = Balance::builder(&orders)
            .max_lost(most)
            .classify(verdict)
            .build(world.clone());
        world.set(A, Does::Lose);
        for _ in 0..60 {
            let _ = balance.clone().oneshot(()).await;
            settle().await;
        }
        assert!(world.called(A) > 10, "{}", world.called(A));
        assert_eq!(balance.counters().ejections, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn calls_given_up_count_against_who_hangs_and_not_for_who_is_impatient() {
    for (patience, out) in [(99, false), (100, true)] {
        let (_writer, orders) = list(&[A, B, C]);
        let world = World::default();
        let judge = |result: Result<&String, &io::Error>| match result {
            Ok(_) => Outcome::Success,
            Err(_) => Outcome::Ignored,
        };
        let balance = Balance::builder(&orders)
            .policy(WeightedRoundRobin::seeded(1))
            .classify(verdict)
            .outliers(Outliers::new(), judge)
            .build(world.clone());
        world.set(A, Does::Hang);
        for _ in 0..60 {
            let call = balance.clone().oneshot(());
            let _ = timeout(Duration::from_millis(patience), call).await;
        }
        let told = balance.explain(&A.parse().unwrap());
        let is_outlier = matches!(told.verdict, Pickable::Outlier { .. });
        assert_eq!(is_outlier, out, "{patience} ms: {told}");
        assert_eq!(balance.counts(), [0, 0, 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn who_usually_takes_long_is_waited_for_three_times_as_long() {
    let (_writer, orders) = list(&[A, B, C]);
    let slow = Arc::new(Mutex::new(Duration::from_millis(200)));
    let inner = Arc::clone(&slow);
    let balance = Balance::builder(&orders)
        .policy(WeightedRoundRobin::seeded(1))
        .outliers(Outliers::new(), |_: Result<&(), &io::Error>| {
            Outcome::Success
        })
        .build(move |instance: &NacosInstance| {
            let (slow, is_a) = (Arc::clone(&inner), instance.address().to_string() == A);
            tower::service_fn(move |(): ()| {
                let takes = if is_a {
                    *slow.lock().unwrap()
                } else {
                    Duration::ZERO
                };
                async move {
                    sleep(takes).await;
                    Ok::<_, io::Error>(())
                }
            })
        });
    let run = async |patience: u64| {
        for _ in 0..60 {
            let call = balance.clone().oneshot(());
            let _ = timeout(Duration::from_millis(patience), call).await;
        }
        matches!(
            balance.explain(&A.parse().unwrap()).verdict,
            Pickable::Outlier { .. }
        )
    };
    assert!(!run(1_000).await, "200 ms is usual");
    *slow.lock().unwrap() = Duration::from_secs(60);
    assert!(!run(590).await, "given up too soon to say anything");
    assert!(run(610).await);
}

#[tokio::test(start_paused = true)]
async fn a_dial_alone_does_not_end_the_back_off() {
    let (_writer, orders) = list(&[A, B]);
    let world = World::default();
    let balance = balance!(&orders, world);
    let at = A.parse().unwrap();
    let rest = || match balance.explain(&at).verdict {
        Pickable::Ejected { probe_in, .. } => probe_in.map(|rest| rest.as_secs_f64().round()),
        _ => None,
    };
    // The port accepts, and whoever is let in is refused: 1, 2, 4 s, as if it had never answered.
    let mut rests = Vec::new();
    for _ in 0..4 {
        world.set(A, Does::Refuse);
        while rest().is_none() {
            let _ = balance.clone().oneshot(()).await;
        }
        rests.push(rest().unwrap());
        world.set(A, Does::Hang); // what a probe finds to be there
        sleep(Duration::from_secs_f64(rests[rests.len() - 1] + 0.1)).await;
        let told = balance.explain(&at);
        assert!(told.is_pickable() && told.on_probation, "{told}");
    }
    assert_eq!(rests, [1.0, 2.0, 4.0, 8.0]);
    world.set(A, Does::Answer);
    for _ in 0..4 {
        balance.clone().oneshot(()).await.unwrap();
    }
    assert!(!balance.explain(&at).on_probation);
}

#[tokio::test]
async fn a_loop_of_failing_calls_lets_others_work() {
    let (_writer, orders) = list(&[A]);
    let world = World::default();
    let balance = balance!(&orders, world);
    world.set(A, Does::Refuse);
    let other = tokio::spawn(async { tokio::task::yield_now().await });
    let mut calls = 0_u64;
    while !other.is_finished() {
        assert!(balance.clone().oneshot(()).await.is_err());
        calls += 1;
        assert!(calls < 5_000, "the task beside it never ran"); // for long before a dial is waited for
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_admitted_nowhere_is_not_let_in_where_its_instance_was_ejected_meanwhile() {
    // Ready only later; by then another call has found that A is gone.
    #[derive(Clone)]
    struct Later(
        Arc<Mutex<bool>>,
        Arc<Notify>,
        String,
        Arc<Mutex<Vec<String>>>,
    );
    impl Service<bool> for Later {
        type Response = String;
        type Error = io::Error;
        type Future = std::future::Ready<io::Result<String>>;
        fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            if *self.0.lock().unwrap() {
                return Poll::Ready(Ok(()));
            }
            let (told, waker) = (Arc::clone(&self.1), cx.waker().clone());
            tokio::spawn(async move {
                told.notified().await;
                waker.wake();
            });
            Poll::Pending
        }
        fn call(&mut self, fails: bool) -> Self::Future {
            self.3.lock().unwrap().push(self.2.clone());
            std::future::ready(if fails {
                Err(io::ErrorKind::ConnectionRefused.into())
            } else {
                Ok(self.2.clone())
            })
        }
    }
    let (mut writer, orders) = list(&[A]);
    let ready = Arc::new(Mutex::new(true));
    let (told, called) = (Arc::new(Notify::new()), Arc::default());
    let maker = (Arc::clone(&ready), Arc::clone(&told), Arc::clone(&called));
    let balance =
        Balance::builder(&orders)
            .classify(verdict)
            .build(move |instance: &NacosInstance| {
                let (ready, told, called) = maker.clone();
                Later(ready, told, instance.address().to_string(), called)
            });
    balance.clone().oneshot(false).await.unwrap();
    *ready.lock().unwrap() = false;
    let mut waits = pin!(balance.clone().oneshot(false));
    assert!(waits.as_mut().poll(&mut idle_context()).is_pending());
    *ready.lock().unwrap() = true;
    assert!(balance.clone().oneshot(true).await.is_err());
    writer.publish([instance(A), instance(B)], now());
    assert_eq!(waits.await.unwrap(), B);
}

#[tokio::test(start_paused = true)]
async fn load_is_by_weight_for_the_default_policy_and_for_towers_balancers() {
    use tower::{discover::Change, load::Load};

    let weights = [(A, 1.0), (B, 4.0)];
    let (mut writer, orders) = registry();
    let listed = weights.map(|(address, weight)| instance(address).with_weight(weight));
    writer.publish(listed, now());
    let world = World::default();
    world.set(A, Does::Hang);
    world.set(B, Does::Hang);
    let balance = Balance::builder(&orders).build(world.clone());
    let mut calls: Vec<_> = (0..500)
        .map(|_| Box::pin(balance.clone().oneshot(())))
        .collect();
    for call in &mut calls {
        assert!(call.as_mut().poll(&mut idle_context()).is_pending());
    }
    // A fifth of the weight; by calls alone more than a third would go there.
    assert!((80..=120).contains(&world.called(A)), "{}", world.called(A));

    let mut discovery = pin!(orders.discover_with().build(world.clone()));
    for _ in weights {
        let next =
            std::future::poll_fn(|cx| futures_core::Stream::poll_next(discovery.as_mut(), cx));
        let Some(Ok(Change::Insert(_, mut guarded))) = next.await else {
            panic!("two instances");
        };
        let mut call = Box::pin(guarded.call(()));
        let before = world.called(A);
        assert!(call.as_mut().poll(&mut idle_context()).is_pending());
        let weight = if world.called(A) > before { 1.0 } else { 4.0 };
        assert_eq!(guarded.load(), 1.0 / weight);
    }
}

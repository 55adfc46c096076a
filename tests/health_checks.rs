//! Health checks as balancers obey them: in virtual time by checks of one's own, and over sockets.

#![allow(
    clippy::disallowed_methods,
    reason = "a test owns its clock and its tasks"
)]

mod discover_support;
#[path = "health_checks/sockets.rs"]
mod sockets;
#[path = "health_checks/wire.rs"]
mod wire;

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use discover_support::{Book, Echo, instance, logs::Logs, now, registry};
use tokio::time::sleep;
use tower::ServiceExt;
use tower_nacos::{
    Balance, Client, Instance,
    balance::{BalanceExplanation, Hints, Pickable, Subset, WeightedRoundRobin},
    directory::{Subscription, Writer},
    endpoint::HealthCheck,
    grpc, http,
};

const A: &str = "10.0.0.1:80";
const B: &str = "10.0.0.2:80";
const C: &str = "10.0.0.3:80";
const D: &str = "10.0.0.4:80";

/// Who is ill, and who was asked how often.
#[derive(Clone, Default)]
struct World {
    ill: Arc<Mutex<HashSet<String>>>,
    asked: Arc<AtomicUsize>,
    book: Book,
}

impl World {
    /// Asks each second; one failure is enough.
    fn check(&self) -> HealthCheck {
        let world = self.clone();
        let check = HealthCheck::custom(move |instance: Instance| {
            world.asked.fetch_add(1, SeqCst);
            let ill = world.ill.lock().unwrap();
            let ill = ill.contains(&instance.address().to_string());
            async move {
                if ill {
                    Err("it has lost its database")
                } else {
                    Ok(())
                }
            }
        });
        check
            .interval(Duration::from_secs(1))
            .interval_jitter(0.0)
            .unhealthy_threshold(1)
    }

    async fn set_ill(&self, addresses: &[&str]) {
        *self.ill.lock().unwrap() = addresses.iter().map(|a| (*a).to_owned()).collect();
        sleep(Duration::from_millis(1_500)).await;
    }

    fn balance(&self, orders: &Subscription) -> Balance<Echo, WeightedRoundRobin> {
        Balance::builder(orders)
            .policy(WeightedRoundRobin::seeded(1))
            .health_check(self.check())
            .build(self.book.maker())
    }

    /// Whom forty calls went to.
    async fn called(&self, balance: &Balance<Echo, WeightedRoundRobin>) -> Vec<&'static str> {
        let all = [A, B, C, D];
        let before = all.map(|address| self.book.called(address));
        for n in 0..40 {
            balance.clone().oneshot(n).await.unwrap();
        }
        let mut called = Vec::new();
        for (address, before) in all.into_iter().zip(before) {
            if self.book.called(address) > before {
                called.push(address);
            }
        }
        called
    }
}

fn listed(addresses: &[&str]) -> (Writer, Subscription) {
    let (mut writer, orders) = registry();
    writer.publish(addresses.iter().map(|a| instance(a)), now());
    (writer, orders)
}

fn explained(balance: &Balance<Echo, WeightedRoundRobin>, address: &str) -> BalanceExplanation {
    balance.explain(&address.parse().unwrap())
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_gets_no_call_until_it_passes_and_explain_says_why() {
    let (world, (_writer, orders)) = (World::default(), listed(&[A, B, C]));
    let balance = world.balance(&orders);
    assert_eq!(
        world.called(&balance).await,
        [A, B, C],
        "before anybody was asked"
    );
    world.set_ill(&[B]).await;
    assert_eq!(world.called(&balance).await, [A, C]);
    let explanation = explained(&balance, B);
    assert!(
        matches!(&explanation.verdict, Pickable::Refused { reason, .. } if &**reason == "it has lost its database")
    );
    let text = explanation.to_string();
    assert!(
        text.starts_with("not picked: its health check refuses it: it has lost its database"),
        "{text}"
    );
    assert!(explained(&balance, A).is_pickable());
    assert_eq!(
        (balance.counters().refusals, balance.counters().panics),
        (1, 0)
    );
    world.set_ill(&[]).await;
    assert_eq!(world.called(&balance).await, [A, B, C]);
    assert_eq!(explained(&balance, B).refusal, None);
}

#[tokio::test(start_paused = true)]
async fn beyond_the_panic_threshold_all_are_called_and_that_is_visible() {
    let (logs, _guard) = Logs::begin();
    let (world, (_writer, orders)) = (World::default(), listed(&[A, B, C, D]));
    let balance = world.balance(&orders);
    world.set_ill(&[A, B]).await;
    assert_eq!(
        world.called(&balance).await,
        [C, D],
        "half is not more than half"
    );
    world.set_ill(&[A, B, C]).await;
    assert_eq!(world.called(&balance).await, [A, B, C, D]);
    let explanation = explained(&balance, A);
    assert!(explanation.is_pickable());
    assert_eq!(
        explanation.refusal.as_deref(),
        Some("it has lost its database")
    );
    let panic = explanation.panic.unwrap();
    assert_eq!((panic.out, panic.callable), (3, 4));
    let text = explanation.to_string();
    for part in [
        "its health check refuses it: it has lost",
        "panic: 3 of 4 are out",
        "or for what its health check says",
    ] {
        assert!(text.contains(part), "{text}");
    }
    world.set_ill(&[A, B, C, D]).await;
    assert_eq!(
        world.called(&balance).await,
        [A, B, C, D],
        "a check that is wrong everywhere"
    );
    assert_eq!(balance.counters().panics, 1);
    assert_eq!(logs.lines("panic: so many instances are out").len(), 1);
    world.set_ill(&[A]).await;
    assert_eq!(
        world.called(&balance).await,
        [B, C, D],
        "and it is obeyed again"
    );
    assert_eq!(explained(&balance, B).panic, None);
}

#[tokio::test(start_paused = true)]
async fn the_only_instance_is_called_whatever_its_check_says() {
    let (world, (_writer, orders)) = (World::default(), listed(&[A]));
    let balance = world.balance(&orders);
    world.set_ill(&[A]).await;
    assert_eq!(world.called(&balance).await, [A]);
    assert!(explained(&balance, A).refusal.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_has_nobody_else_goes_to_one_that_is_refused() {
    let (world, (mut writer, orders)) = (World::default(), registry());
    let second = instance(C).with_metadata([("version", "2")].into_iter().collect());
    writer.publish([instance(A), instance(B), second], now());
    let balance = Balance::builder(&orders)
        .health_check(world.check())
        .hints(|version: &u32| match version {
            2 => Hints::new().only(("version", "2")),
            _ => Hints::new(),
        })
        .build(world.book.maker());
    world.set_ill(&[C]).await;
    for _ in 0..20 {
        let asked: u32 = 1;
        balance.clone().oneshot(asked).await.unwrap();
    }
    assert_eq!(world.book.called(C), 0);
    assert_eq!(balance.clone().oneshot(2).await.unwrap().to_string(), C);
    for _ in 0..20 {
        balance.clone().oneshot(1).await.unwrap();
    }
    assert_eq!(
        world.book.called(C),
        1,
        "it is open to nobody else for that"
    );
}

#[tokio::test(start_paused = true)]
async fn persistent_instances_are_the_servers_to_check_unless_told_otherwise() {
    let (world, (mut writer, orders)) = (World::default(), registry());
    let persistent = instance(B).with_ephemeral(false);
    writer.publish([instance(A), persistent, instance(C)], now());
    let balance = world.balance(&orders);
    world.set_ill(&[B]).await;
    assert_eq!(world.asked.load(SeqCst), 2 * 2, "two of three, twice");
    assert_eq!(world.called(&balance).await, [A, B, C]);
    let included = Balance::builder(&orders)
        .health_check(world.check().include_persistent(true))
        .build(world.book.maker());
    sleep(Duration::from_millis(1_500)).await;
    let explanation = included.explain(&B.parse().unwrap());
    assert!(
        matches!(explanation.verdict, Pickable::Refused { .. }),
        "{explanation}"
    );
}

#[tokio::test(start_paused = true)]
async fn checks_follow_the_list_and_end_with_the_last_balancer() {
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let (world, (mut writer, orders)) = (World::default(), listed(&[A, B, C]));
    let before = tasks();
    let balance = world.balance(&orders);
    sleep(Duration::from_millis(500)).await;
    assert_eq!(
        (world.asked.load(SeqCst), tasks()),
        (3, before + 4),
        "and the janitor"
    );
    writer.publish([instance(A), instance(D)], now());
    sleep(Duration::from_millis(100)).await;
    assert_eq!(tasks(), before + 3);
    assert_eq!(world.asked.load(SeqCst), 4, "who is new is asked at once");
    sleep(Duration::from_secs(10)).await;
    let kept = balance.clone();
    drop(balance);
    let asked = world.asked.load(SeqCst);
    sleep(Duration::from_secs(10)).await;
    assert!(world.asked.load(SeqCst) >= asked + 18, "a clone holds them");
    drop(kept);
    sleep(Duration::from_millis(1)).await;
    let asked = world.asked.load(SeqCst);
    sleep(Duration::from_secs(100)).await;
    assert_eq!((world.asked.load(SeqCst), tasks()), (asked, before));
}

/// Others come in for a subset that is out, and only if most of the service is there is panic.
#[tokio::test(start_paused = true)]
async fn with_a_subset_all_are_asked_and_count_towards_panic() {
    let all: Vec<_> = (1..=10).map(|n| format!("10.0.0.{n}:80")).collect();
    let (mut writer, orders) = registry();
    writer.publish(all.iter().map(|address| instance(address)), now());
    let world = World::default();
    let balance = Balance::builder(&orders)
        .policy(WeightedRoundRobin::seeded(1))
        .subset(Subset::of(2).caller("checkout-0"))
        .health_check(world.check())
        .build(world.book.maker());
    let called = async || {
        let before: Vec<_> = all.iter().map(|at| world.book.called(at)).collect();
        for n in 0..40 {
            balance.clone().oneshot(n).await.unwrap();
        }
        let now = all.iter().zip(before);
        let called = now.filter(|(at, before)| world.book.called(at) > *before);
        called.map(|(at, _)| at.as_str()).collect::<Vec<_>>()
    };
    let subset = called().await;
    assert!((1..=3).contains(&subset.len()), "{subset:?}");
    world.set_ill(&subset).await;
    assert!(world.asked.load(SeqCst) >= all.len());
    let others = called().await;
    assert!(!others.is_empty());
    assert!(others.iter().all(|at| !subset.contains(at)), "{others:?}");
    assert!(explained(&balance, &all[0]).panic.is_none());
    let most: Vec<_> = all.iter().map(String::as_str).take(6).collect();
    world.set_ill(&most).await;
    let panic = explained(&balance, &all[0]).panic.unwrap();
    assert_eq!((panic.out, panic.callable), (6, 10));
    assert_eq!(balance.counters().panics, 1);
}

/// It is given each as it is listed now.
#[tokio::test(start_paused = true)]
async fn an_instance_that_changes_is_asked_as_it_is() {
    let (mut writer, orders) = registry();
    let drained = |said: &str| instance(A).with_metadata([("drained", said)].into_iter().collect());
    writer.publish([drained("no"), instance(B), instance(C)], now());
    let check =
        HealthCheck::custom(
            async |instance: Instance| match instance.metadata().get("drained") {
                Some("yes") => Err("it is drained"),
                _ => Ok(()),
            },
        );
    let balance = Balance::builder(&orders)
        .health_check(
            check
                .interval(Duration::from_secs(1))
                .unhealthy_threshold(1),
        )
        .build(Book::default().maker());
    let refusal = || balance.explain(&A.parse().unwrap()).refusal;
    sleep(Duration::from_secs(3)).await;
    assert_eq!(refusal(), None);
    writer.publish([drained("yes"), instance(B), instance(C)], now());
    sleep(Duration::from_secs(3)).await;
    assert_eq!(refusal().as_deref(), Some("it is drained"));
    writer.publish([drained("no"), instance(B), instance(C)], now());
    sleep(Duration::from_secs(3)).await;
    assert_eq!(refusal(), None);
}

/// Whoever keeps a balancer whose runtime has ended is not left with what nobody checks any more.
#[test]
fn with_their_runtime_refusals_end() {
    let (world, (_writer, orders)) = (World::default(), listed(&[A, B, C]));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let balance = runtime.block_on(async {
        let balance = world.balance(&orders);
        world.set_ill(&[B]).await;
        assert!(!explained(&balance, B).is_pickable());
        balance
    });
    drop(runtime);
    let explanation = explained(&balance, B);
    assert!(
        explanation.is_pickable() && explanation.refusal.is_none(),
        "{explanation}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_path_that_is_none_is_an_error_of_every_builder_and_checks_nobody() {
    let (_writer, orders) = listed(&[A, B]);
    let nacos = Client::connect_lazy("127.0.0.1:1").unwrap();
    for (path, why) in [
        ("", "(it is empty)"),
        ("health", "(it does not begin with a slash)"),
        ("/health#deep", "(no server is sent a fragment: \"#deep\")"),
        ("/health check", "(write %20 for ' ')"),
    ] {
        let (logs, _guard) = Logs::begin();
        let check = || HealthCheck::http(path);
        let builder = Balance::builder(&orders).health_check(check());
        let error = builder.check().unwrap_err().to_string();
        let begins = format!("health check: {path:?} is no path to ask for {why}");
        assert!(error.starts_with(&begins), "{error}");
        let client = http::Client::builder(&nacos).health_check(check());
        assert_eq!(client.try_build().unwrap_err().to_string(), error);
        let channel = grpc::Channel::builder(&orders).health_check(check());
        assert_eq!(channel.try_build().unwrap_err().to_string(), error);
        // Who builds all the same is warned.
        let balance = builder.build(Book::default().maker());
        balance.oneshot(7).await.unwrap();
        let said = logs.lines(&format!("ignored: {error}"));
        assert_eq!(said.len(), 1, "{said:?}");
    }
    let check = || HealthCheck::http("/health?deep=1");
    let builder = Balance::builder(&orders).health_check(check());
    builder.check().unwrap();
    let client = http::Client::builder(&nacos).health_check(check());
    client.try_build().unwrap();
    let channel = grpc::Channel::builder(&orders).health_check(check());
    channel.try_build().unwrap();
}

/// As that of the other options of instances.
#[tokio::test]
async fn a_subset_of_nobody_is_an_error_of_every_builder() {
    let (_writer, orders) = listed(&[A, B]);
    let nacos = Client::connect_lazy("127.0.0.1:1").unwrap();
    for (subset, why) in [
        (Subset::of(0), "a subset of 0 instances: nobody could"),
        (Subset::of(2).min(3), "a subset of 2 instances of which at"),
    ] {
        let builder = Balance::builder(&orders).subset(subset.clone());
        let error = builder.check().unwrap_err().to_string();
        assert!(error.starts_with(why), "{error}");
        let client = http::Client::builder(&nacos).subset(subset.clone());
        assert_eq!(client.try_build().unwrap_err().to_string(), error);
        let channel = grpc::Channel::builder(&orders).subset(subset);
        assert_eq!(channel.try_build().unwrap_err().to_string(), error);
    }
}

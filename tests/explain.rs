//! Every answer that `Balance::explain` gives, and the sentence that goes with it.

#![allow(
    clippy::disallowed_methods,
    reason = "a test owns its clock and its tasks"
)]

mod discover_support;

use std::{
    future::{Future, pending, ready},
    io,
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use discover_support::{Book, idle_context, instance, now, registry};
use tower::{Service, ServiceExt, service_fn};
use tower_nacos::{
    Balance, Instance,
    balance::{BalanceExplanation, Outliers, Pickable, SlowStart},
    directory::{Origin, Subscription, Writer},
    endpoint::{Outcome, Verdict},
    model::Listing,
};

const A: &str = "10.0.0.1:80";
const B: &str = "10.0.0.2:80";
const C: &str = "10.0.0.3:80";

fn registry_of(list: impl IntoIterator<Item = Instance>) -> (Writer, Subscription) {
    let (mut writer, orders) = registry();
    writer.publish(list, now());
    (writer, orders)
}

#[track_caller]
fn says(explained: &BalanceExplanation, parts: &[&str]) {
    let text = explained.to_string();
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

/// Explains A and B, of a balancer that does nothing else.
fn two(orders: &Subscription) -> [BalanceExplanation; 2] {
    let balance = Balance::builder(orders).build(Book::default().maker());
    [A, B].map(|address| balance.explain(&address.parse().unwrap()))
}

#[test]
fn picked_and_for_how_much() {
    let (_writer, orders) = registry_of([instance(A).with_weight(3.0), instance(B)]);
    let [a, b] = two(&orders);
    assert!(a.is_pickable() && a.tier.is_none());
    says(
        &a,
        &["picked, 75.0 % of the weight", "weight 3, cluster DEFAULT"],
    );
    says(&b, &["picked, 25.0 % of the weight"]);
}

#[test]
fn another_cluster_and_its_share() {
    let home = |address| instance(address).with_cluster("HZ");
    let (mut writer, orders) = registry_of([home(A), instance(B), instance(C)]);
    let balance = Balance::builder(&orders)
        .prefer_cluster("HZ")
        .build(Book::default().maker());
    let explain = |address: &str| balance.explain(&address.parse().unwrap());
    says(
        &explain(A),
        &["picked, 100.0 %", "cluster HZ gets 100.0 % of the calls"],
    );
    let b = explain(B);
    assert!(matches!(b.verdict, Pickable::OtherCluster { .. }), "{b}");
    assert_eq!(b.share, 0.0);
    says(
        &b,
        &["not picked: cluster HZ takes all calls", "cluster DEFAULT"],
    );
    // Half of home is gone: 0.7 for it, and the rest for the others.
    writer.publish([home(A).with_weight(0.5), instance(B), instance(C)], now());
    let b = explain(B);
    assert!((b.share - 0.15).abs() < 1e-9, "{b}");
    assert!((b.tier.as_ref().unwrap().share - 0.3).abs() < 1e-9);
    says(
        &b,
        &[
            "picked, 15.0 %",
            "the clusters that are not preferred get 30.0 %",
        ],
    );
    // Nobody is at home.
    writer.publish([instance(B)], now());
    says(&explain(B), &["picked, 100.0 %"]);
}

#[test]
fn weight_zero_and_what_it_drains() {
    let (mut writer, orders) = registry_of([instance(A)]);
    let mut balance = Balance::builder(&orders)
        .build(|_: &Instance| service_fn(|(): ()| pending::<io::Result<()>>()));
    let mut calls: Vec<_> = (0..3).map(|_| Box::pin(balance.call(()))).collect();
    for call in &mut calls {
        assert!(call.as_mut().poll(&mut idle_context()).is_pending());
    }
    writer.publish([instance(A).with_weight(0.0), instance(B)], now());
    let drained = balance.explain(&A.parse().unwrap());
    assert_eq!(drained.verdict, Pickable::NotCallable);
    says(&drained, &["not picked; draining 3", "its weight is 0"]);
    // Gone altogether, with calls in flight still.
    writer.publish([instance(B)], now());
    let gone = balance.explain(&A.parse().unwrap());
    says(&gone, &["not picked; draining 3", "gone:"]);
    calls.truncate(1);
    says(&balance.explain(&A.parse().unwrap()), &["draining 1"]);
    calls.clear();
    let gone = balance.explain(&A.parse().unwrap());
    assert!(
        gone.activity.is_none() && !gone.to_string().contains("draining"),
        "{gone}"
    );
}

#[test]
fn what_came_back_while_its_former_presence_drains_is_picked() {
    let (mut writer, orders) = registry_of([instance(A)]);
    let mut balance = Balance::builder(&orders)
        .build(|_: &Instance| service_fn(|(): ()| pending::<io::Result<()>>()));
    let mut call = Box::pin(balance.call(()));
    assert!(call.as_mut().poll(&mut idle_context()).is_pending());
    writer.publish([instance(B)], now());
    writer.publish([instance(A), instance(B)], now());
    let back = balance.explain(&A.parse().unwrap());
    assert!(back.is_pickable() && back.share == 0.5, "{back}");
    assert_eq!(back.activity.unwrap_or_default().in_flight, 0, "{back}");
}

#[test]
fn a_rung_of_health_that_is_not_in_force() {
    let (_writer, orders) = registry_of([instance(A).with_healthy(false), instance(B)]);
    let [a, b] = two(&orders);
    says(&a, &["not picked", "unhealthy, and others are not"]);
    says(&b, &["picked, 100.0 %"]);
}

#[test]
fn disabled_and_outside_of_the_selection() {
    let (_writer, orders) = registry_of([
        instance(A).with_enabled(false),
        instance(B).with_cluster("SH"),
        instance(C).with_cluster("HZ"),
    ]);
    let [a, b] = two(&orders.only_cluster("HZ"));
    says(
        &b,
        &["not picked", "outside of this subscription's selection"],
    );
    assert!(!a.is_pickable());
    says(&two(&orders)[0], &["not picked", "disabled by an operator"]);
}

#[test]
fn held_by_the_collapse_guard() {
    let list = |range: std::ops::Range<u8>| range.map(|at| instance(&format!("10.0.0.{at}:80")));
    let (mut writer, orders) = registry_of(list(1..11));
    writer.handle_disconnected(now());
    writer.handle_connected(now());
    writer.apply(Listing::new(list(5..11)), Origin::FirstAnswer, now());
    let [a, _] = two(&orders);
    assert!(a.is_pickable());
    says(&a, &["picked, 10.0 %", "held by the collapse guard"]);
}

#[tokio::test(start_paused = true)]
async fn ejected_until_and_unusable_because() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let (_writer, orders) = registry_of([instance(A), instance(B), instance(C)]);
    let balance = Balance::builder(&orders)
        .classify(|error: &io::Error| Verdict::unreachable(error))
        .build(|instance: &Instance| {
            let address = instance.address().to_string();
            assert!(address != B, "no key for {address}");
            service_fn(move |(): ()| {
                let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
                ready(if address == A { Err(refused) } else { Ok(()) })
            })
        });
    for _ in 0..50 {
        let _ = balance.clone().oneshot(()).await;
    }
    std::panic::set_hook(hook);
    says(
        &balance.explain(&A.parse().unwrap()),
        &[
            "not picked: it could not be reached; next probe in 1.0 s",
            "1 failed",
        ],
    );
    tokio::time::sleep(Duration::from_millis(400)).await;
    says(
        &balance.explain(&A.parse().unwrap()),
        &["next probe in 0.6 s"],
    );
    says(
        &balance.explain(&B.parse().unwrap()),
        &["not picked: making its service panicked: no key for 10.0.0.2:80"],
    );
}

#[tokio::test(start_paused = true)]
async fn an_outlier_until() {
    let (_writer, orders) = registry_of([instance(A), instance(B)]);
    let balance = Balance::builder(&orders)
        .outliers(
            Outliers::new(),
            |result: Result<&u16, &io::Error>| match result {
                Ok(500) => Outcome::Failure,
                _ => Outcome::Success,
            },
        )
        .build(|instance: &Instance| {
            let status = if instance.address().to_string() == A {
                500
            } else {
                200
            };
            service_fn(move |(): ()| ready(Ok::<u16, io::Error>(status)))
        });
    for _ in 0..100 {
        balance.clone().oneshot(()).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    let a = balance.explain(&A.parse().unwrap());
    assert!(matches!(a.verdict, Pickable::Outlier { .. }), "{a}");
    says(
        &a,
        &[
            "not picked: it answered badly too often; next probe in 20.0 s",
            "5 calls",
        ],
    );
}

#[tokio::test(start_paused = true)]
async fn warming_up_at_so_much() {
    let (mut writer, orders) = registry_of([instance(A), instance(C)]);
    let balance = Balance::builder(&orders)
        .slow_start(SlowStart::new())
        .build(Book::default().maker());
    balance.clone().oneshot(1).await.unwrap();
    writer.publish([A, B, C].map(instance), now());
    balance.clone().oneshot(1).await.unwrap();
    tokio::time::sleep(Duration::from_millis(15_100)).await;
    let b = balance.explain(&B.parse().unwrap());
    says(&b, &["picked, 20.0 %", "warming up, at 50 % of its weight"]);
}

#[test]
fn what_nobody_knows() {
    let (_writer, orders) = registry();
    says(&two(&orders)[0], &["not picked"]);
    let (_writer, orders) = registry_of([instance(B)]);
    says(&two(&orders)[0], &["not picked", "not listed"]);
    let mut none = Balance::builder(&orders).build(Book::default().maker());
    let call: Pin<&mut dyn Future<Output = _>> = pin!(none.call(1));
    assert!(matches!(call.poll(&mut idle_context()), Poll::Ready(Ok(_))));
}

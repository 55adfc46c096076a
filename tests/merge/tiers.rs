//! Sources in tiers: shares of calls beside the formula, and what stock tower is given.

use std::{
    collections::BTreeMap,
    future::{Future, Ready, ready},
    io,
    pin::{Pin, pin},
    task::Poll,
};

use futures_core::Stream;
use tower::{Service, discover::Change, service_fn};
use tower_nacos::{
    Balance, Instance, Subscription,
    balance::{Pickable, Random},
    directory::{Writer, channel},
    endpoint::Verdict,
    model::ServiceKey,
};

use crate::discover_support::{idle_context, instance, now};

const CALLS: usize = 20_000;
const TOLERANCE: f64 = 0.015;

fn source(name: &str) -> (Writer, Subscription) {
    let key = ServiceKey::new("dev", name.parse().unwrap()).unwrap();
    channel(key, Default::default())
}

/// Instance `at` of the source of that number.
fn member(source: u8, at: u8) -> Instance {
    instance(&format!("10.{source}.0.{at}:80"))
}

fn list(writer: &mut Writer, source: u8, size: u8) {
    writer.publish((0..size).map(|at| member(source, at)), now());
}

/// A balancer whose calls answer with the source of whom they reach; whom `dead` names is refused.
fn start(
    orders: &Subscription,
    cluster: Option<&'static str>,
    dead: fn(&Instance) -> bool,
) -> impl Service<(), Response = String, Future: Unpin> + Clone {
    let mut builder = Balance::builder(orders);
    if let Some(cluster) = cluster {
        builder = builder.prefer_cluster(cluster);
    }
    let balance = builder
        .classify(|error: &io::Error| Verdict::unreachable(error))
        .build(move |instance: &Instance| {
            let tier = instance.source().map(|source| source.tier().to_string());
            let name = format!("{} {}", tier.unwrap_or_default(), instance.cluster());
            let name = (!dead(instance)).then_some(name);
            service_fn(move |(): ()| -> Ready<io::Result<String>> {
                ready(name.clone().ok_or_else(|| io::Error::other("refused")))
            })
        });
    tower::util::MapFuture::new(balance, |future| Box::pin(future))
}

fn shares(
    mut balance: impl Service<(), Response = String, Future: Unpin> + Clone,
) -> BTreeMap<String, f64> {
    Random::seed_thread(7);
    let mut shares = BTreeMap::new();
    let mut answered = 0.0;
    for _ in 0..CALLS {
        let Poll::Ready(answer) = pin!(balance.call(())).poll(&mut idle_context()) else {
            panic!("all of it happens in the first poll");
        };
        if let Ok(name) = answer {
            *shares.entry(name).or_default() += 1.0;
            answered += 1.0;
        }
    }
    shares.values_mut().for_each(|n| *n /= answered);
    shares
}

#[track_caller]
fn assert_shares(shares: &BTreeMap<String, f64>, expected: &[(&str, f64)]) {
    for (name, share) in expected {
        let got = shares.get(*name).copied().unwrap_or(0.0);
        assert!((got - share).abs() <= TOLERANCE, "{name}: {shares:?}");
        assert!(*share > 0.0 || got == 0.0, "{name} gets none: {shares:?}");
    }
}

const fn alive(_: &Instance) -> bool {
    false
}

#[test]
fn the_lower_tier_takes_all_until_more_than_28_percent_are_gone() {
    let ((mut near, a), (mut far, b)) = (source("orders"), source("orders"));
    let orders = Subscription::merge([(&b, 5), (&a, 2)]);
    let balance = start(&orders, None, alive);
    list(&mut near, 1, 10);
    list(&mut far, 2, 10);
    assert_shares(
        &shares(balance.clone()),
        &[("2 DEFAULT", 1.0), ("5 DEFAULT", 0.0)],
    );
    list(&mut near, 1, 8);
    assert_shares(&shares(balance.clone()), &[("2 DEFAULT", 1.0)]);
    list(&mut near, 1, 7);
    assert_shares(
        &shares(balance.clone()),
        &[("2 DEFAULT", 0.98), ("5 DEFAULT", 0.02)],
    );
    list(&mut near, 1, 1);
    assert_shares(
        &shares(balance.clone()),
        &[("2 DEFAULT", 0.14), ("5 DEFAULT", 0.86)],
    );
    list(&mut near, 1, 0);
    assert_shares(&shares(balance.clone()), &[("5 DEFAULT", 1.0)]);
    list(&mut near, 1, 10);
    assert_shares(&shares(balance), &[("2 DEFAULT", 1.0), ("5 DEFAULT", 0.0)]);
}

#[test]
fn it_spills_without_a_push_when_they_cannot_be_reached() {
    let ((mut near, a), (mut far, b)) = (source("orders"), source("orders"));
    list(&mut near, 1, 10);
    list(&mut far, 2, 10);
    let orders = Subscription::merge([(&a, 0), (&b, 1)]);
    // Nine of ten refuse.
    let dead = |i: &Instance| i.address().to_string().starts_with("10.1.0.") && *i != *first(i);
    let balance = start(&orders, None, dead);
    shares(balance.clone());
    assert_shares(
        &shares(balance),
        &[("0 DEFAULT", 0.14), ("1 DEFAULT", 0.86)],
    );
}

/// The first of the near source, as it is listed in the merged set.
fn first(of: &Instance) -> Box<Instance> {
    let is_first = *of.address() == *member(1, 0).address();
    Box::new(if is_first { of.clone() } else { member(9, 9) })
}

#[test]
fn sources_of_one_tier_are_one_pool() {
    let ((mut old, a), (mut new, b)) = (source("orders"), source("orders"));
    list(&mut old, 1, 9);
    list(&mut new, 2, 1);
    let orders = Subscription::merge([(&a, 0), (&b, 0)]);
    let balance = Balance::builder(&orders).picker();
    Random::seed_thread(7);
    let mut moved = 0;
    for _ in 0..CALLS {
        let picked = pin!(balance.pick()).poll(&mut idle_context());
        let Poll::Ready(Ok(lease)) = picked else {
            panic!("somebody is there");
        };
        moved += u32::from(lease.instance().address() == member(2, 0).address());
    }
    let share = f64::from(moved) / CALLS as f64;
    assert!((share - 0.1).abs() <= TOLERANCE, "{share}");
    let told = balance.explain(member(2, 0).address());
    assert!(told.tier.is_none() && told.is_pickable(), "{told}");
}

#[test]
fn clusters_are_preferred_within_each_tier() {
    let ((mut near, a), (mut far, b)) = (source("orders"), source("orders"));
    let in_two = |writer: &mut Writer, source: u8, hz: u8| {
        let hz = (0..hz).map(|at| member(source, at).with_cluster("HZ"));
        let others = (100..104).map(|at| member(source, at));
        writer.publish(hz.chain(others), now());
    };
    in_two(&mut near, 1, 4);
    in_two(&mut far, 2, 4);
    let orders = Subscription::merge([(&a, 0), (&b, 1)]);
    let balance = start(&orders, Some("HZ"), alive);
    assert_shares(&shares(balance.clone()), &[("0 HZ", 1.0)]);
    in_two(&mut near, 1, 1);
    let spilt = [("0 HZ", 0.35), ("0 DEFAULT", 0.65), ("1 HZ", 0.0)];
    assert_shares(&shares(balance.clone()), &spilt);
    near.publish([], now());
    assert_shares(&shares(balance), &[("1 HZ", 1.0), ("1 DEFAULT", 0.0)]);
}

#[test]
fn a_balancer_explains_source_and_tier() {
    let ((mut near, a), (mut far, b)) = (source("G@@orders"), source("orders"));
    list(&mut near, 1, 2);
    list(&mut far, 2, 1);
    let orders = Subscription::merge([(&a, 0), (&b, 1)]);
    let balance = Balance::builder(&orders).picker();
    let here = balance.explain(member(1, 0).address());
    assert_eq!(here.tier.as_ref().unwrap().source, Some(0));
    let text = here.to_string();
    assert!(
        text.contains("; tier 0 gets 100.0 % of the calls"),
        "{text}"
    );
    assert!(
        text.contains("; from G@@orders in namespace dev (tier 0)"),
        "{text}"
    );
    let there = balance.explain(member(2, 0).address());
    assert!(
        matches!(there.verdict, Pickable::OtherTier { taken_by: 0, .. }),
        "{there}"
    );
    let text = there.to_string();
    assert!(text.contains("sources of tier 0 take all calls"), "{text}");
}

/// What a stock balancer was given, by the second number of the address.
fn given<S>(discover: &mut S, set: &mut BTreeMap<String, ()>)
where
    S: Stream + Unpin,
    S::Item: Into<Given>,
{
    while let Poll::Ready(Some(change)) = Pin::new(&mut *discover).poll_next(&mut idle_context()) {
        match change.into() {
            Given::In(address) => assert!(set.insert(address, ()).is_none()),
            Given::Out(address) => assert!(set.remove(&address).is_some()),
        }
    }
}

enum Given {
    In(String),
    Out(String),
}

impl<S, E: std::fmt::Debug> From<Result<Change<tower_nacos::discover::Key, S>, E>> for Given {
    fn from(change: Result<Change<tower_nacos::discover::Key, S>, E>) -> Self {
        match change.unwrap() {
            Change::Insert(key, _) => Self::In(key.to_string()),
            Change::Remove(key) => Self::Out(key.to_string()),
        }
    }
}

#[test]
fn stock_tower_is_given_the_lowest_tier_that_has_anybody() {
    let ((mut near, a), (mut far, b)) = (source("orders"), source("orders"));
    list(&mut near, 1, 2);
    list(&mut far, 2, 2);
    let orders = Subscription::merge([(&a, 0), (&b, 1)]);
    let mut discover =
        orders.discover(|_: &Instance| service_fn(|(): ()| ready(Ok::<_, io::Error>(()))));
    let mut set = BTreeMap::new();
    let keys = |set: &BTreeMap<String, ()>| set.keys().cloned().collect::<Vec<_>>();
    given(&mut discover, &mut set);
    assert_eq!(keys(&set), ["10.1.0.0:80", "10.1.0.1:80"]);
    list(&mut near, 1, 0);
    given(&mut discover, &mut set);
    assert_eq!(keys(&set), ["10.2.0.0:80", "10.2.0.1:80"]);
    list(&mut near, 1, 1);
    given(&mut discover, &mut set);
    assert_eq!(keys(&set), ["10.1.0.0:80"]);
}

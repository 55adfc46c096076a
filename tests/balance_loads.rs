//! What choosing goes by: calls for the weight, who was tried, turns that are spread out.

#![allow(
    clippy::disallowed_methods,
    reason = "a test owns its clock and its tasks"
)]

mod discover_support;

use std::{
    collections::HashMap,
    future::{Future, pending, poll_fn},
    io,
    pin::pin,
    sync::{Arc, Mutex},
    task::Poll,
};

use discover_support::{idle_context, instance, now, registry};
use futures_core::Stream;
use tower::{Service, ServiceExt, discover::Change, load::Load};
use tower_nacos::{
    Balance, Instance,
    balance::{Candidate, Loads, P2c, PickContext, Policy, Random, WeightedRoundRobin},
    directory::Subscription,
    endpoint::{Recover, Recovered},
    model::Weight,
};

fn weighing(address: &str, weight: f64) -> Instance {
    instance(address).with_weight(Weight::new(weight))
}

fn listed(weights: &[f64]) -> (Vec<String>, Subscription) {
    let addresses: Vec<_> = (1..=weights.len())
        .map(|at| format!("10.0.0.{at}:80"))
        .collect();
    let (mut writer, orders) = registry();
    let instances = addresses.iter().zip(weights);
    writer.publish(instances.map(|(a, w)| weighing(a, *w)), now());
    (addresses, orders)
}

#[tokio::test]
async fn under_load_calls_in_flight_are_as_the_weights_are() {
    Random::seed_thread(3);
    let (addresses, orders) = listed(&[1.0, 9.0]);
    let book = Arc::new(Mutex::new(HashMap::<String, usize>::new()));
    let counted = Arc::clone(&book);
    let balance = Balance::builder(&orders)
        .policy(P2c::new())
        .build(move |instance: &Instance| {
            let (address, book) = (instance.address().to_string(), Arc::clone(&counted));
            tower::service_fn(move |(): ()| {
                *book.lock().unwrap().entry(address.clone()).or_default() += 1;
                pending::<Result<(), io::Error>>()
            })
        });
    let mut calls: Vec<_> = (0..1_000)
        .map(|_| Box::pin(balance.clone().oneshot(())))
        .collect();
    for call in &mut calls {
        assert!(call.as_mut().poll(&mut idle_context()).is_pending());
    }
    let book = book.lock().unwrap();
    let light = book[&addresses[0]];
    // By the number of calls alone half of the draws would go to each.
    assert!((80..=120).contains(&light), "{light} of 1,000");
}

#[tokio::test]
async fn tower_is_told_the_calls_in_flight_for_the_weight() {
    let (addresses, orders) = listed(&[0.5, 4.0]);
    let discovery = orders
        .discover(|_: &Instance| tower::service_fn(|(): ()| pending::<Result<(), io::Error>>()));
    let mut discovery = pin!(discovery);
    let mut loads = Vec::new();
    let mut calls = Vec::new();
    for _ in 0..2 {
        let change = poll_fn(|cx| match discovery.as_mut().poll_next(cx) {
            Poll::Ready(change) => Poll::Ready(change.unwrap().unwrap()),
            Poll::Pending => Poll::Pending,
        })
        .await;
        let Change::Insert(key, mut guarded) = change else {
            panic!("nobody has left");
        };
        assert_eq!(guarded.load(), 0.0);
        for _ in 0..2 {
            let mut call = Box::pin(guarded.call(()));
            assert!(call.as_mut().poll(&mut idle_context()).is_pending());
            calls.push(call);
        }
        loads.push((key.address().unwrap().to_string(), guarded.load()));
    }
    loads.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(
        loads,
        [(addresses[0].clone(), 4.0), (addresses[1].clone(), 0.5)]
    );
}

/// Always the first.
struct First;

impl Policy for First {
    type Table = ();

    fn build(&self, _: &[Candidate]) {}

    fn pick(&self, (): &(), _: &dyn Loads, _: &mut Random, _: &PickContext) -> Option<usize> {
        Some(0)
    }
}

/// No error says that its instance cannot be reached, and each gives the request back: only that
/// it was tried keeps a call from going there again.
struct GiveBack;

impl Recover<u32, io::Error> for GiveBack {
    fn recover(&self, _: &mut io::Error) -> Option<Recovered<u32>> {
        Some(Recovered::Unsent(7))
    }
}

async fn visits(policy: impl Policy) -> Vec<usize> {
    let (addresses, orders) = listed(&[1.0; 4]);
    let book = Arc::new(Mutex::new(HashMap::<String, usize>::new()));
    let counted = Arc::clone(&book);
    let balance = Balance::builder(&orders)
        .policy(policy)
        .recover(GiveBack)
        .build(move |instance: &Instance| {
            let (address, book) = (instance.address().to_string(), Arc::clone(&counted));
            tower::service_fn(move |_: u32| {
                *book.lock().unwrap().entry(address.clone()).or_default() += 1;
                std::future::ready(Err::<(), _>(io::Error::other("not taken")))
            })
        });
    balance.oneshot(7).await.unwrap_err();
    let book = book.lock().unwrap();
    let visits = addresses.iter().map(|a| book.get(a).copied().unwrap_or(0));
    visits.collect()
}

#[tokio::test]
async fn a_call_goes_to_nobody_twice_whatever_the_policy_picks() {
    for seed in 0..50 {
        Random::seed_thread(seed);
        assert_eq!(visits(First).await, [1; 4]);
        assert_eq!(visits(P2c::new()).await, [1; 4]);
        assert_eq!(visits(WeightedRoundRobin::seeded(seed)).await, [1; 4]);
    }
}

/// Loads that are all the same.
struct Idle;

impl Loads for Idle {
    fn load(&self, _: usize) -> f64 {
        0.0
    }
    fn calls(&self, _: usize) -> u64 {
        0
    }
    fn weight(&self, _: usize) -> f64 {
        1.0
    }
    fn latency(&self, _: usize) -> f64 {
        0.0
    }
}

#[test]
fn of_equal_small_weights_some_are_called_in_each_round() {
    let policy = WeightedRoundRobin::seeded(1);
    let weights = [2.0, 1.0, 1.0, 1.0, 1.0];
    let candidates: Vec<_> = weights
        .iter()
        .enumerate()
        .map(|(at, weight)| Candidate::new(Arc::new(weighing(&format!("10.0.0.{at}:80"), *weight))))
        .collect();
    let table = policy.build(&candidates);
    let mut random = Random::seeded(1);
    let picks: Vec<_> = (0..600)
        .map(|_| policy.pick(&table, &Idle, &mut random, &PickContext::new(None)))
        .collect();
    // Were all in step, the first would be alone in every other round.
    let twice = picks.windows(2).filter(|two| two[0] == two[1]).count();
    assert_eq!(twice, 0, "the same twice in a row");
    let heavy = picks.iter().filter(|at| **at == Some(0)).count();
    assert!((195..=205).contains(&heavy), "{heavy} of 600");
}

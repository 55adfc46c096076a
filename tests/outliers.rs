//! Ejection for what instances answer.

#![allow(
    clippy::disallowed_methods,
    reason = "a test owns its clock and its tasks"
)]

mod discover_support;

use std::{
    collections::{HashMap, HashSet},
    future::ready,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use discover_support::{instance, now, registry};
use tower::{Service, ServiceExt, load::CompleteOnResponse, service_fn};
use tower_nacos::{
    Balance, Instance,
    balance::{BalanceExplanation, Hints, Outliers, Pickable, Random, WeightedRoundRobin},
    directory::{Subscription, Writer},
    endpoint::{NeverRecover, Outcome, Verdict},
};

const A: &str = "10.0.0.1:80";
const B: &str = "10.0.0.2:80";
const C: &str = "10.0.0.3:80";
const D: &str = "10.0.0.4:80";

/// What instances do, and what they were asked.
#[derive(Clone, Default)]
struct World {
    bad: Arc<Mutex<HashSet<String>>>,
    refusing: Arc<Mutex<HashSet<String>>>,
    called: Arc<Mutex<HashMap<String, usize>>>,
}

type Answer = Result<(String, u16), io::Error>;
type Rules = fn(Result<&(String, u16), &io::Error>) -> Outcome;
type Unlucky = fn(&io::Error) -> Verdict;
type Judged = Balance<
    Boxed,
    WeightedRoundRobin,
    NeverRecover,
    CompleteOnResponse,
    tower_nacos::endpoint::WithOutcomes<Unlucky, Rules>,
    fn(&Hints) -> Hints,
>;
type Boxed = tower::util::BoxCloneSyncService<Hints, (String, u16), io::Error>;

fn judge(result: Result<&(String, u16), &io::Error>) -> Outcome {
    match result {
        Ok((_, 500..)) => Outcome::Failure,
        Ok((_, 400..)) => Outcome::Ignored,
        Ok(_) => Outcome::Success,
        Err(_) => Outcome::Failure,
    }
}

fn refused(error: &io::Error) -> Verdict {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Verdict::unreachable(error),
        _ => Verdict::Reachable,
    }
}

impl World {
    fn balance(&self, orders: &Subscription, outliers: Outliers) -> Judged {
        let world = self.clone();
        let classify: Unlucky = refused;
        let outcomes: Rules = judge;
        let hints: fn(&Hints) -> Hints = Clone::clone;
        Balance::builder(orders)
            .policy(WeightedRoundRobin::seeded(1))
            .classify(classify)
            .outliers(outliers, outcomes)
            .hints(hints)
            .build(move |instance: &Instance| {
                let (address, world) = (instance.address().to_string(), world.clone());
                Boxed::new(service_fn(move |_: Hints| ready(world.answer(&address))))
            })
    }

    fn answer(&self, address: &str) -> Answer {
        *self
            .called
            .lock()
            .unwrap()
            .entry(address.to_owned())
            .or_default() += 1;
        if self.refusing.lock().unwrap().contains(address) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let bad = self.bad.lock().unwrap().contains(address);
        Ok((address.to_owned(), if bad { 503 } else { 200 }))
    }

    fn set_bad(&self, addresses: &[&str]) {
        *self.bad.lock().unwrap() = addresses.iter().map(|a| (*a).to_owned()).collect();
    }

    fn set_refusing(&self, addresses: &[&str]) {
        *self.refusing.lock().unwrap() = addresses.iter().map(|a| (*a).to_owned()).collect();
    }

    fn called(&self, address: &str) -> usize {
        self.called
            .lock()
            .unwrap()
            .get(address)
            .copied()
            .unwrap_or(0)
    }
}

fn list(addresses: &[&str]) -> (Writer, Subscription) {
    let (mut writer, orders) = registry();
    writer.publish(addresses.iter().map(|a| instance(a)), now());
    (writer, orders)
}

async fn calls(balance: &Judged, count: usize) -> usize {
    let mut errors = 0;
    for _ in 0..count {
        errors += usize::from(balance.clone().oneshot(Hints::new()).await.is_err());
    }
    errors
}

fn explain(balance: &Judged, address: &str) -> BalanceExplanation {
    balance.explain(&address.parse().unwrap())
}

fn rest(balance: &Judged, address: &str) -> Option<u64> {
    match explain(balance, address).verdict {
        Pickable::Outlier { probe_in, .. } => Some(probe_in.map_or(0, |d| d.as_secs())),
        _ => None,
    }
}

#[tokio::test(start_paused = true)]
async fn five_bad_answers_in_a_row_put_an_instance_out_for_30_seconds() {
    let (_writer, orders) = list(&[A, B, C]);
    let world = World::default();
    let balance = world.balance(&orders, Outliers::new());
    world.set_bad(&[B]);
    calls(&balance, 60).await;
    assert_eq!(world.called(B), 5);
    let explained = explain(&balance, B);
    assert_eq!(rest(&balance, B), Some(30), "{explained}");
    let text = explained.to_string();
    assert!(
        text.contains("answered badly too often; next probe in 30.0 s"),
        "{text}"
    );
    assert_eq!(explain(&balance, A).share, 0.5);
    // Nothing before the time, then one call, which goes well.
    tokio::time::sleep(Duration::from_millis(29_900)).await;
    calls(&balance, 30).await;
    assert_eq!(world.called(B), 5);
    world.set_bad(&[]);
    tokio::time::sleep(Duration::from_millis(200)).await;
    calls(&balance, 1).await;
    assert_eq!(world.called(B), 6, "the next call is the probe");
    assert!(explain(&balance, B).is_pickable());
    calls(&balance, 30).await;
    assert_eq!(world.called(B), 16);
}

#[tokio::test(start_paused = true)]
async fn each_further_time_is_30_seconds_longer_up_to_300() {
    let (_writer, orders) = list(&[A, B, C]);
    let world = World::default();
    let balance = world.balance(&orders, Outliers::new());
    world.set_bad(&[B]);
    calls(&balance, 60).await;
    let mut rests = vec![rest(&balance, B).unwrap()];
    for _ in 0..11 {
        let due = rests[rests.len() - 1];
        tokio::time::sleep(Duration::from_millis(due * 1_000 + 100)).await;
        calls(&balance, 3).await; // one of them is the probe, and fails
        rests.push(rest(&balance, B).expect("out again"));
    }
    let expected: Vec<u64> = (1..=12).map(|times| (30 * times).min(300)).collect();
    assert_eq!(rests, expected);
    assert_eq!(world.called(B), 5 + 11);
}

#[tokio::test(start_paused = true)]
async fn a_good_answer_between_bad_ones_keeps_an_instance_in() {
    let (_writer, orders) = list(&[A, B, C]);
    let world = World::default();
    let balance = world.balance(&orders, Outliers::new());
    for round in 0..20 {
        let bad: &[&str] = if round % 5 == 4 { &[] } else { &[B] };
        world.set_bad(bad);
        calls(&balance, 3).await;
    }
    assert_eq!(world.called(B), 20);
    assert!(explain(&balance, B).is_pickable());
}

#[tokio::test(start_paused = true)]
async fn no_more_than_half_are_ejected_and_all_bad_is_nobodys_fault() {
    let (_writer, orders) = list(&[A, B, C, D]);
    let world = World::default();
    let balance = world.balance(&orders, Outliers::new());
    world.set_bad(&[A, B, C, D]);
    assert_eq!(calls(&balance, 400).await, 0);
    let out = [A, B, C, D].iter().filter(|a| rest(&balance, a).is_some());
    assert_eq!(out.count(), 2);
    // A single one, and one of two.
    let (_writer, orders) = list(&[A]);
    let balance = world.balance(
        &orders,
        Outliers::new().max_ejection(1.0).panic_threshold(1.0),
    );
    assert_eq!(calls(&balance, 50).await, 0);
    assert!(rest(&balance, A).is_none(), "the last one stays");
}

#[tokio::test(start_paused = true)]
async fn when_more_than_half_are_out_for_any_reason_outliers_are_let_back_in() {
    let (_writer, orders) = list(&[A, B, C, D]);
    let world = World::default();
    let balance = world.balance(&orders, Outliers::new());
    world.set_bad(&[A, B]);
    calls(&balance, 80).await;
    assert!(rest(&balance, A).is_some() && rest(&balance, B).is_some());
    world.set_refusing(&[C]);
    while !matches!(explain(&balance, C).verdict, Pickable::Ejected { .. }) {
        calls(&balance, 1).await;
    }
    assert!(
        explain(&balance, A).is_pickable(),
        "{}",
        explain(&balance, A)
    );
    assert!(explain(&balance, B).is_pickable());
    // From here on one of the two at most: with C that makes half.
    calls(&balance, 200).await;
    let out = [A, B].iter().filter(|a| rest(&balance, a).is_some());
    assert_eq!(out.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn no_call_fails_because_all_that_is_left_are_outliers() {
    let (mut writer, orders) = list(&[A, B, C, D]);
    let world = World::default();
    let balance = world.balance(&orders, Outliers::new());
    world.set_bad(&[A, B]);
    calls(&balance, 80).await;
    assert!(rest(&balance, A).is_some() && rest(&balance, B).is_some());
    // Before the janitor has had a look: the first call after the push.
    writer.publish([A, B].map(instance), now());
    assert_eq!(calls(&balance, 20).await, 0);
    // The same for a request that may only go to an outlier.
    let (_writer, orders) = list(&[A, B, C, D]);
    let balance = world.balance(&orders, Outliers::new());
    calls(&balance, 80).await;
    assert!(rest(&balance, A).is_some());
    let but = Hints::new().exclude([B, C, D].map(|a| a.parse().unwrap()));
    assert_eq!(balance.clone().oneshot(but).await.unwrap().0, A);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_cannot_be_reached_makes_it_a_matter_of_the_connection() {
    let (_writer, orders) = list(&[A, B, C]);
    let world = World::default();
    let balance = world.balance(&orders, Outliers::new());
    world.set_bad(&[B]);
    calls(&balance, 60).await;
    world.set_refusing(&[B]);
    tokio::time::sleep(Duration::from_secs(31)).await;
    calls(&balance, 3).await;
    assert!(matches!(
        explain(&balance, B).verdict,
        Pickable::Ejected { .. }
    ));
    world.set_refusing(&[]);
    world.set_bad(&[]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    calls(&balance, 3).await;
    assert!(
        explain(&balance, B).is_pickable(),
        "{}",
        explain(&balance, B)
    );
}

#[tokio::test(start_paused = true)]
async fn good_behaviour_is_remembered_and_so_is_bad() {
    let (_writer, orders) = list(&[A, B, C]);
    let world = World::default();
    let balance = world.balance(&orders, Outliers::new());
    let out = async || {
        world.set_bad(&[B]);
        calls(&balance, 60).await;
        let rest = rest(&balance, B).unwrap();
        world.set_bad(&[]);
        tokio::time::sleep(Duration::from_secs(rest + 1)).await;
        calls(&balance, 3).await;
        assert!(explain(&balance, B).is_pickable());
        rest
    };
    assert_eq!(out().await, 30);
    assert_eq!(out().await, 60, "soon after");
    // As Envoy's and A50's: each interval of 10 s that it is in takes one off.
    tokio::time::sleep(Duration::from_millis(9_900)).await;
    assert_eq!(out().await, 90, "10 s are not over");
    tokio::time::sleep(Duration::from_millis(10_100)).await;
    assert_eq!(out().await, 90, "one of three is forgotten");
    tokio::time::sleep(Duration::from_millis(20_100)).await;
    assert_eq!(out().await, 60, "two of three are");
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(out().await, 30, "and all of them");
}

#[tokio::test(start_paused = true)]
async fn who_is_out_is_what_was_ejected_and_not_let_back_in() {
    const ALL: [&str; 4] = [A, B, C, D];
    let (_writer, orders) = list(&ALL);
    let mut seen = [0_u64; 3];
    for seed in 0..40 {
        let world = World::default();
        let balance = world.balance(&orders, Outliers::new());
        let mut random = Random::seeded(seed);
        for _ in 0..60 {
            let some = |random: &mut Random| -> Vec<&str> {
                ALL.into_iter().filter(|_| random.below(3) == 0).collect()
            };
            world.set_bad(&some(&mut random));
            world.set_refusing(&some(&mut random));
            calls(&balance, 30).await;
            let rest = Duration::from_millis(random.below(20_000) as u64);
            tokio::time::sleep(rest).await;
            let out = ALL.iter().filter(|address| {
                let verdict = explain(&balance, address).verdict;
                matches!(verdict, Pickable::Ejected { .. } | Pickable::Outlier { .. })
            });
            let counters = balance.counters();
            let out = out.count() as u64;
            assert_eq!(
                counters.ejections - counters.restorations,
                out,
                "seed {seed}: {counters:?}"
            );
            assert!(counters.outlier_ejections <= counters.ejections);
        }
        let counters = balance.counters();
        seen[0] += counters.ejections - counters.outlier_ejections;
        seen[1] += counters.outlier_ejections;
        seen[2] += counters.restorations;
    }
    assert!(seen.iter().all(|seen| *seen > 100), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn a_rest_without_end_is_told_as_one() {
    let (_writer, orders) = list(&[A, B, C]);
    let world = World::default();
    let endless = Outliers::new().base(Duration::MAX).longest(Duration::MAX);
    let balance = world.balance(&orders, endless);
    world.set_bad(&[B]);
    calls(&balance, 60).await;
    assert!(rest(&balance, B).is_some_and(|rest| rest > 1_000_000_000));
    tokio::time::sleep(Duration::from_secs(1_000_000)).await;
    assert_eq!(calls(&balance, 60).await, 0);
    assert_eq!(world.called(B), 5);
}

#[tokio::test(start_paused = true)]
async fn what_is_ignored_counts_neither_way() {
    let (_writer, orders) = list(&[A, B, C]);
    let world = World::default();
    let asked = Arc::clone(&world.called);
    let balance = Balance::builder(&orders)
        .policy(WeightedRoundRobin::seeded(1))
        .outliers(
            Outliers::new().consecutive(2),
            |result: Result<&u16, &io::Error>| match result {
                Ok(404) => Outcome::Ignored,
                Ok(200) => Outcome::Success,
                _ => Outcome::Failure,
            },
        )
        .build(move |instance: &Instance| {
            let (address, asked) = (instance.address().to_string(), Arc::clone(&asked));
            service_fn(move |(): ()| {
                let mut asked = asked.lock().unwrap();
                let count = asked.entry(address.clone()).or_default();
                *count += 1;
                // Bad, ignored, ignored, bad: two in a row.
                let status = if address != B || [2, 3].contains(count) {
                    404
                } else {
                    500
                };
                ready(Ok::<_, io::Error>(if address == B { status } else { 200 }))
            })
        });
    for _ in 0..60 {
        balance.clone().oneshot(()).await.unwrap();
    }
    assert_eq!(world.called(B), 4);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_nobody_judges_leaves_the_next_to_another() {
    let (_writer, orders) = list(&[A, B, C]);
    let asked = Arc::new(Mutex::new(HashMap::<String, usize>::new()));
    let inner = Arc::clone(&asked);
    let balance = Balance::builder(&orders)
        .outliers(
            Outliers::new(),
            |result: Result<&u16, &io::Error>| match result {
                Ok(500) => Outcome::Failure,
                Ok(404) => Outcome::Ignored,
                _ => Outcome::Success,
            },
        )
        .build(move |instance: &Instance| {
            let (address, asked) = (instance.address().to_string(), Arc::clone(&inner));
            service_fn(move |(): ()| {
                let mut asked = asked.lock().unwrap();
                let count = asked.entry(address.clone()).or_default();
                *count += 1;
                let bad = if *count > 6 {
                    200
                } else if *count == 6 {
                    404
                } else {
                    500
                };
                ready(Ok::<_, io::Error>(if address == B { bad } else { 200 }))
            })
        });
    let of_b = || asked.lock().unwrap().get(B).copied().unwrap_or(0);
    let call = async |count: usize| {
        for _ in 0..count {
            balance.clone().oneshot(()).await.unwrap();
        }
    };
    call(200).await;
    assert_eq!(of_b(), 5);
    tokio::time::sleep(Duration::from_secs(31)).await;
    call(10).await;
    assert_eq!(of_b(), 6, "the probe's answer said nothing");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    call(1).await;
    assert_eq!(of_b(), 7);
    assert!(balance.explain(&B.parse().unwrap()).is_pickable());
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_probe_is_offered_again() {
    let (_writer, orders) = list(&[A, B, C]);
    let world = World::default();
    let balance = world.balance(&orders, Outliers::new());
    world.set_bad(&[B]);
    calls(&balance, 60).await;
    world.set_bad(&[]);
    tokio::time::sleep(Duration::from_secs(31)).await;
    drop(balance.clone().call(Hints::new())); // never polled: it took nothing
    calls(&balance, 1).await;
    assert!(explain(&balance, B).is_pickable());
    assert_eq!(balance.counts(), [0, 0, 0]);
}

#[tokio::test]
async fn classify_after_outliers_takes_them_back_and_says_so() {
    let (_writer, orders) = list(&[A, B]);
    let classify: Unlucky = refused;
    let outcomes: Rules = judge;
    let balance = Balance::builder(&orders)
        .outliers(Outliers::new(), outcomes)
        .classify(classify)
        .build(|_: &Instance| {
            service_fn(|(): ()| ready(Ok::<_, io::Error>((String::new(), 500_u16))))
        });
    for _ in 0..50 {
        balance.clone().oneshot(()).await.unwrap();
    }
    assert!(balance.explain(&A.parse().unwrap()).is_pickable());
}

#[tokio::test(start_paused = true)]
async fn what_leases_report_counts_where_that_is_asked_for() {
    let (_writer, orders) = list(&[A, B, C]);
    let picker = Balance::builder(&orders)
        .policy(WeightedRoundRobin::seeded(1))
        .eject_outliers(Outliers::new())
        .picker();
    let mut asked = 0;
    for _ in 0..60 {
        let mut lease = picker.pick().await.unwrap();
        if lease.address().to_string() == B {
            asked += 1;
            lease.failed(Verdict::Reachable);
        } else {
            lease.succeeded();
        }
    }
    assert_eq!(asked, 5);
    let told = picker.explain(&B.parse().unwrap());
    assert!(matches!(told.verdict, Pickable::Outlier { .. }), "{told}");
}

#[tokio::test]
async fn over_http_a_status_of_503_counts() {
    use tower_nacos::{
        http::BuildHttp,
        transport::{Body, Transport},
    };

    let mut instances = Vec::new();
    for status in [200_u16, 503, 200] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        instances.push(instance(&listener.local_addr().unwrap().to_string()));
        let status = http::StatusCode::from_u16(status).unwrap();
        let app = axum::Router::new().fallback(async move || status);
        tokio::spawn(async move { axum::serve(listener, app).await });
    }
    let bad = instances[1].address().clone();
    let (mut writer, orders) = registry();
    writer.publish(instances, now());
    let balance = Balance::builder(&orders)
        .policy(WeightedRoundRobin::seeded(1))
        .eject_outliers(Outliers::new())
        .build_http(Transport::builder().build());
    let mut failures = 0;
    for _ in 0..60 {
        let request = http::Request::get("/").body(Body::empty()).unwrap();
        let response = balance.clone().oneshot(request).await.unwrap();
        failures += usize::from(response.status() == 503);
    }
    assert_eq!(failures, 5);
    let told = balance.explain(&bad);
    assert!(matches!(told.verdict, Pickable::Outlier { .. }), "{told}");
}

#[tokio::test]
async fn over_http_who_has_too_much_to_do_is_slowed_down_in_place_of_that() {
    use tower_nacos::{
        balance::AdaptiveConcurrency,
        http::BuildHttp,
        transport::{Body, Transport},
    };

    let mut instances = Vec::new();
    for status in [503_u16, 200] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        instances.push(instance(&listener.local_addr().unwrap().to_string()));
        let status = http::StatusCode::from_u16(status).unwrap();
        let asked = [(http::header::RETRY_AFTER, "1")];
        let app = axum::Router::new().fallback(async move || (status, asked));
        tokio::spawn(async move { axum::serve(listener, app).await });
    }
    // The other is there so that one may be ejected.
    let [busy, idle] = [instances.remove(0), instances.remove(0)];
    let address = busy.address().clone();
    let (mut writer, orders) = registry();
    writer.publish([busy, idle.with_weight(0.001)], now());
    let builder = || Balance::builder(&orders).eject_outliers(Outliers::new());
    for limits in [None, Some(AdaptiveConcurrency::new())] {
        let builder = match limits {
            None => builder(),
            Some(limits) => builder().adaptive_concurrency(limits),
        };
        let balance = builder.build_http(Transport::builder().build());
        let call = || {
            let request = http::Request::get("/").body(Body::empty()).unwrap();
            balance.clone().oneshot(request)
        };
        let limit = || {
            balance
                .explain(&address)
                .activity
                .and_then(|told| told.limit)
        };
        if limits.is_none() {
            for _ in 0..30 {
                let _ = call().await;
            }
            assert_eq!(limit(), None);
            assert_eq!(balance.counters().outlier_ejections, 1);
            continue;
        }
        while limit() != Some(1) {
            let _ = call().await;
        }
        assert_eq!(balance.counters().outlier_ejections, 0);
    }
}

//! Clusters in order, with fixed seeds where chance decides: measured shares beside the formula.

#![allow(
    clippy::disallowed_methods,
    reason = "a test owns its clock and its tasks"
)]

mod discover_support;
#[path = "tiers/zones.rs"]
mod zones;

use std::{
    collections::BTreeMap,
    future::Future,
    io,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::Poll,
    time::Duration,
};

use discover_support::{idle_context, instance, logs::Logs, now, registry};
use tower::{Service, service_fn};
use tower_nacos::{
    Balance, Instance,
    balance::{
        BalanceBuilder, Candidate, Hints, Maglev, PeakEwma, Pickable, Policy, Random,
        WeightedRandom, WeightedRoundRobin, stable_hash,
    },
    directory::{Subscription, Writer},
    endpoint::{CallError, Verdict},
};

const CALLS: usize = 100_000;
/// 1 % of all calls; chance, with the one seed that all use, is within it.
const TOLERANCE: f64 = 0.01;

type Shares = BTreeMap<String, f64>;

/// Instance `at` of a cluster; the cluster shows in its address.
fn member(cluster: u8, at: usize, weight: f64) -> Instance {
    let name = ["DEFAULT", "HZ", "SH", "BJ"][usize::from(cluster)];
    instance(&format!("10.{cluster}.{}.{}:80", at / 250, at % 250))
        .with_cluster(name)
        .with_weight(weight)
}

fn cluster(cluster: u8, size: usize) -> impl Iterator<Item = Instance> {
    (0..size).map(move |at| member(cluster, at, 1.0))
}

fn registry_of(list: impl IntoIterator<Item = Instance>) -> (Writer, Subscription) {
    let (mut writer, orders) = registry();
    writer.publish(list, now());
    (writer, orders)
}

/// Calls that answer with the second number of the address, and fail where `dead` says so.
fn start<P, K>(
    builder: BalanceBuilder<
        P,
        tower_nacos::endpoint::NeverRecover,
        tower::load::CompleteOnResponse,
        tower_nacos::endpoint::Unclassified,
        K,
    >,
    dead: fn(&Instance) -> bool,
) -> impl Service<u32, Response = String, Error = CallError, Future: Unpin> + Clone
where
    P: Policy,
    K: tower_nacos::balance::HintsOf<u32> + Send + Sync + 'static,
{
    let balance = builder
        .classify(|error: &io::Error| Verdict::unreachable(error))
        .build(move |instance: &Instance| {
            let answer = if dead(instance) {
                None
            } else {
                Some(instance.cluster().to_string())
            };
            service_fn(move |_: u32| {
                let answer = answer.clone();
                std::future::ready(answer.ok_or_else(|| io::Error::other("refused")))
            })
        });
    tower::util::MapFuture::new(balance, |future| Box::pin(future))
}

fn shares<S>(balance: &S, calls: usize) -> Shares
where
    S: Service<u32, Response = String, Error = CallError> + Clone,
{
    Random::seed_thread(7);
    let mut balance = balance.clone();
    let mut shares = Shares::new();
    let mut answered = 0;
    for request in 0..calls {
        let Poll::Ready(answer) = pin!(balance.call(request as u32)).poll(&mut idle_context())
        else {
            panic!("all of it happens in the first poll");
        };
        if let Ok(cluster) = answer {
            *shares.entry(cluster).or_default() += 1.0;
            answered += 1;
        }
    }
    shares.values_mut().for_each(|n| *n /= f64::from(answered));
    shares
}

#[track_caller]
fn assert_shares(shares: &Shares, expected: &[(&str, f64)]) {
    for (cluster, share) in expected {
        let got = shares.get(*cluster).copied().unwrap_or(0.0);
        assert!((got - share).abs() <= TOLERANCE, "{cluster}: {shares:?}");
        assert!(
            *share > 0.0 || got == 0.0,
            "{cluster} gets none: {shares:?}"
        );
    }
}

const fn alive(_: &Instance) -> bool {
    false
}

#[test]
fn all_stay_at_home_while_home_is_whole() {
    let (_writer, orders) = registry_of(cluster(1, 10).chain(cluster(2, 10)));
    let balance = start(Balance::builder(&orders).prefer_cluster("HZ"), alive);
    assert_shares(&shares(&balance, CALLS), &[("HZ", 1.0), ("SH", 0.0)]);
}

#[test]
fn one_survivor_of_ten_gets_14_percent() {
    let (mut writer, orders) = registry_of(cluster(1, 10).chain(cluster(2, 10)));
    let balance = start(Balance::builder(&orders).prefer_cluster("HZ"), alive);
    shares(&balance, 10);
    writer.publish(cluster(1, 1).chain(cluster(2, 10)), now());
    assert_shares(&shares(&balance, CALLS), &[("HZ", 0.14), ("SH", 0.86)]);
}

#[test]
fn three_of_ten_that_are_drained_by_weight_count_as_missing() {
    let (mut writer, orders) = registry_of(cluster(1, 10).chain(cluster(2, 10)));
    let balance = start(Balance::builder(&orders).prefer_cluster("HZ"), alive);
    shares(&balance, 10);
    let drained = (0..10).map(|at| member(1, at, if at < 3 { 0.0 } else { 1.0 }));
    writer.publish(drained.chain(cluster(2, 10)), now());
    assert_shares(&shares(&balance, CALLS), &[("HZ", 0.98), ("SH", 0.02)]);
}

#[test]
fn a_home_of_weight_zero_gets_nothing_and_costs_nothing() {
    let zero = || (0..3).map(|at| member(1, at, 0.0));
    let (mut writer, orders) = registry_of(zero().chain(cluster(2, 2)));
    let balance = start(Balance::builder(&orders).prefer_cluster("HZ"), alive);
    assert_shares(&shares(&balance, 1_000), &[("HZ", 0.0), ("SH", 1.0)]);
    // The same when it weighed something before.
    writer.publish(cluster(1, 3).chain(cluster(2, 2)), now());
    assert_shares(&shares(&balance, 1_000), &[("HZ", 1.0), ("SH", 0.0)]);
    writer.publish(zero().chain(cluster(2, 2)), now());
    assert_shares(&shares(&balance, 1_000), &[("HZ", 0.0), ("SH", 1.0)]);
}

#[test]
fn a_caller_that_starts_after_the_loss_is_told_what_home_weighs() {
    let (_writer, orders) = registry_of(cluster(1, 1).chain(cluster(2, 10)));
    let unaware = start(Balance::builder(&orders).prefer_cluster("HZ"), alive);
    assert_shares(&shares(&unaware, 1_000), &[("HZ", 1.0), ("SH", 0.0)]);
    let builder = Balance::builder(&orders)
        .prefer_cluster("HZ")
        .expected_weight(10.0);
    let told = start(builder, alive);
    assert_shares(&shares(&told, CALLS), &[("HZ", 0.14), ("SH", 0.86)]);
}

#[test]
fn clusters_take_what_is_left_in_the_order_that_was_said() {
    let list = cluster(1, 1).chain(cluster(2, 2)).chain(cluster(3, 4));
    let (_writer, orders) = registry_of(list);
    let builder = || Balance::builder(&orders).prefer_clusters(["HZ", "SH"]);
    let expected =
        |builder: BalanceBuilder| builder.expected_weight(10.0).expected_weight_of("SH", 10.0);
    let balance = start(expected(builder()), alive);
    assert_shares(
        &shares(&balance, CALLS),
        &[("HZ", 0.14), ("SH", 0.28), ("BJ", 0.58)],
    );
    // All below 1 together: in proportion.
    let balance = start(
        expected(builder().prefer_cluster("BJ")).expected_weight_of("BJ", 40.0),
        alive,
    );
    assert_shares(
        &shares(&balance, CALLS),
        &[("HZ", 0.25), ("SH", 0.5), ("BJ", 0.25)],
    );
}

#[test]
fn every_policy_keeps_the_shares_of_clusters() {
    fn at<P: Policy>(policy: P) {
        let (_writer, orders) = registry_of(cluster(1, 5).chain(cluster(2, 5)));
        let builder = Balance::builder(&orders)
            .policy(policy)
            .prefer_cluster("HZ")
            .expected_weight(10.0);
        let balance = start(builder, alive);
        assert_shares(&shares(&balance, CALLS), &[("HZ", 0.7), ("SH", 0.3)]);
    }
    at(tower_nacos::balance::P2c::new());
    at(PeakEwma::new());
    at(WeightedRandom::new());
    at(WeightedRoundRobin::new());
    at(Maglev::new());
}

#[test]
fn a_key_keeps_its_cluster_and_instance() {
    let (_writer, orders) = registry_of(cluster(1, 5).chain(cluster(2, 5)));
    let builder = || {
        Balance::builder(&orders)
            .policy(Maglev::new())
            .prefer_cluster("HZ")
            .expected_weight(10.0)
            .hash_key(|request: &u32| Some(stable_hash(&request.to_le_bytes())))
    };
    let (mut one, mut other) = (start(builder(), alive), start(builder(), alive));
    let mut counts = Shares::new();
    for key in 0..20_000 {
        let first = finish(one.call(key));
        assert_eq!(first, finish(other.call(key)));
        *counts.entry(first).or_default() += 1.0 / 20_000.0;
    }
    assert!((counts["HZ"] - 0.7).abs() < 0.015, "{counts:?}");
}

fn finish<F: Future<Output = Result<String, CallError>>>(future: F) -> String {
    match pin!(future).poll(&mut idle_context()) {
        Poll::Ready(output) => output.unwrap(),
        Poll::Pending => panic!("all of it happens in the first poll"),
    }
}

#[test]
fn a_home_that_cannot_be_reached_fails_over_without_a_push() {
    let (_writer, orders) = registry_of(cluster(1, 4).chain(cluster(2, 4)));
    let builder = || Balance::builder(&orders).prefer_cluster("HZ");
    let home = start(builder(), |instance| &**instance.cluster() == "HZ");
    shares(&home, 4); // each refuses one call
    assert_shares(&shares(&home, 10_000), &[("HZ", 0.0), ("SH", 1.0)]);
    // Part of it: as if the rest had left.
    let part = start(builder(), |instance| {
        &**instance.cluster() == "HZ" && !instance.address().to_string().starts_with("10.1.0.3")
    });
    shares(&part, 200);
    assert_shares(&shares(&part, CALLS), &[("HZ", 0.35), ("SH", 0.65)]);
}

#[test]
fn what_leaves_while_tried_is_followed_in_the_same_snapshot() {
    let (mut writer, orders) = registry_of(cluster(1, 2).chain(cluster(2, 2)));
    let balance = start(Balance::builder(&orders).prefer_cluster("HZ"), alive);
    assert_shares(&shares(&balance, 100), &[("HZ", 1.0)]);
    writer.publish(cluster(2, 2), now());
    assert_shares(&shares(&balance, 100), &[("SH", 1.0)]);
    writer.publish(cluster(1, 2).chain(cluster(2, 2)), now());
    assert_shares(&shares(&balance, 100), &[("HZ", 1.0)]);
}

#[test]
fn an_address_that_two_clusters_list_is_in_both() {
    let twin = |cluster: &str| instance("10.9.0.1:80").with_cluster(cluster);
    let list = [twin("HZ"), twin("SH")];
    let (_writer, orders) = registry_of(list.into_iter().chain(cluster(3, 3)));
    for own in ["HZ", "SH"] {
        let builder = Balance::builder(&orders).prefer_cluster(own);
        let balance = builder
            .build(|_: &Instance| service_fn(|(): ()| std::future::ready(Ok::<_, io::Error>(()))));
        let twin = balance.explain(&"10.9.0.1:80".parse().unwrap());
        assert_eq!(twin.share, 1.0, "{own}: {twin}");
        let other = balance.explain(&"10.3.0.0:80".parse().unwrap());
        assert!(
            matches!(&other.verdict, Pickable::OtherCluster { taken_by: Some(c), .. } if **c == *own),
            "{other}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn ten_minutes_after_a_loss_home_is_what_is_left() {
    let (mut writer, orders) = registry_of(cluster(1, 10).chain(cluster(2, 10)));
    let balance = start(Balance::builder(&orders).prefer_cluster("HZ"), alive);
    shares(&balance, 10);
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    writer.publish(cluster(1, 1).chain(cluster(2, 10)), now());
    shares(&balance, 10);
    tokio::time::sleep(Duration::from_secs(599)).await;
    assert_shares(&shares(&balance, CALLS), &[("HZ", 0.14), ("SH", 0.86)]);
    // Without a push and without a call.
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_shares(&shares(&balance, 1_000), &[("HZ", 1.0), ("SH", 0.0)]);
}

#[test]
fn a_request_may_put_another_cluster_first_and_ask_for_metadata_within_it() {
    let gray =
        |c, at| member(c, at, 1.0).with_metadata([("version", "gray")].into_iter().collect());
    let list = cluster(1, 4)
        .chain(cluster(2, 4))
        .chain([gray(1, 200), gray(2, 200)]);
    let (_writer, orders) = registry_of(list);
    let of = |hints: Hints| {
        let builder = Balance::builder(&orders)
            .prefer_cluster("HZ")
            .hints(move |_: &u32| hints.clone());
        shares(&start(builder, alive), 2_000)
    };
    assert_shares(&of(Hints::new()), &[("HZ", 1.0)]);
    assert_shares(&of(Hints::new().cluster("SH")), &[("SH", 1.0)]);
    let only = Hints::new().only(("version", "gray"));
    assert_shares(&of(only.clone()), &[("HZ", 1.0)]);
    assert_shares(&of(only.cluster("SH")), &[("SH", 1.0)]);
}

#[test]
fn tables_are_built_for_candidates_of_one_cluster_each() {
    /// Writes down how many it was built of.
    #[derive(Clone, Default)]
    struct Sizes(Arc<Mutex<Vec<usize>>>);
    impl Policy for Sizes {
        type Table = usize;
        fn build(&self, candidates: &[Candidate]) -> usize {
            self.0.lock().unwrap().push(candidates.len());
            candidates.len()
        }
        fn pick(
            &self,
            table: &usize,
            _: &dyn tower_nacos::balance::Loads,
            random: &mut Random,
            _: &tower_nacos::balance::PickContext,
        ) -> Option<usize> {
            Some(random.below(*table))
        }
    }
    let sizes = Sizes::default();
    let (_writer, orders) = registry_of(cluster(1, 2).chain(cluster(2, 3)).chain(cluster(3, 4)));
    let builder = Balance::builder(&orders)
        .policy(sizes.clone())
        .prefer_clusters(["SH", "HZ"]);
    let balance = start(builder, alive);
    shares(&balance, 100);
    assert_eq!(*sizes.0.lock().unwrap(), [3, 2, 4], "once each, in order");
}

#[test]
fn a_cluster_that_nobody_is_in_is_warned_of_once() {
    let (logs, _guard) = Logs::begin();
    let (mut writer, orders) = registry_of(cluster(2, 2).chain(cluster(3, 1)));
    let builder = Balance::builder(&orders)
        .prefer_cluster("Hangzhou")
        .expected_weight(-1.0);
    let balance = start(builder, alive);
    shares(&balance, 10);
    writer.publish(cluster(2, 3).chain(cluster(3, 1)), now());
    shares(&balance, 10);
    let text = logs.text();
    let warned = text
        .matches("no instance is in the preferred cluster")
        .count();
    assert_eq!(warned, 1, "{text}");
    assert!(text.contains("Clusters seen: BJ, SH"), "{text}");
    assert!(text.contains("ignored: expected weight -1"), "{text}");
}

#[test]
fn a_selector_that_nobody_matches_and_a_cluster_that_is_asked_for_in_vain_are_warned_of_once() {
    let (logs, _guard) = Logs::begin();
    let (mut writer, orders) = registry_of(cluster(2, 2));
    let builder = Balance::builder(&orders).hints(|request: &u32| match request % 2 {
        0 => Hints::new().prefer(("version", "gray")),
        _ => Hints::new().cluster("Mars"),
    });
    let balance = start(builder, alive);
    assert_shares(&shares(&balance, 1_000), &[("SH", 1.0)]);
    writer.publish(cluster(2, 3), now());
    shares(&balance, 100);
    let text = logs.text();
    assert_eq!(text.matches("version=gray").count(), 1, "{text}");
    assert_eq!(text.matches("Mars").count(), 1, "{text}");
}

#[test]
fn a_home_that_was_there_and_died_is_no_unknown_cluster() {
    let (logs, _guard) = Logs::begin();
    let (mut writer, orders) = registry_of(cluster(1, 2).chain(cluster(2, 1)));
    let balance = start(Balance::builder(&orders).prefer_cluster("HZ"), alive);
    shares(&balance, 10);
    writer.publish(cluster(2, 3), now());
    shares(&balance, 10);
    assert!(
        !logs.text().contains("preferred cluster"),
        "{}",
        logs.text()
    );
}

#[test]
fn of_ten_thousand_instances_clusters_get_their_shares() {
    let (_writer, orders) = registry_of(cluster(1, 2_000).chain(cluster(2, 8_000)));
    let builder = Balance::builder(&orders)
        .prefer_cluster("HZ")
        .expected_weight(4_000.0);
    let balance = start(builder, alive);
    assert_shares(&shares(&balance, CALLS), &[("HZ", 0.7), ("SH", 0.3)]);
}

#[tokio::test]
async fn a_home_that_comes_back_takes_its_calls_back() {
    let (_writer, orders) = registry_of(cluster(1, 2).chain(cluster(2, 2)));
    let down = Arc::new(AtomicBool::new(true));
    let inner = Arc::clone(&down);
    let balance = Balance::builder(&orders)
        .prefer_cluster("HZ")
        .classify(|error: &io::Error| Verdict::unreachable(error))
        .build(move |instance: &Instance| {
            let (cluster, down) = (instance.cluster().to_string(), Arc::clone(&inner));
            service_fn(move |_: u32| {
                let dead = cluster == "HZ" && down.load(SeqCst);
                let answer = (!dead).then(|| cluster.clone());
                std::future::ready(answer.ok_or_else(|| io::Error::other("refused")))
            })
        });
    let mut caller = balance.clone();
    for _ in 0..4 {
        let _ = caller.call(1).await;
    }
    assert_eq!(caller.call(1).await.unwrap(), "SH");
    down.store(false, SeqCst);
    let home = async {
        let mut in_a_row = 0;
        while in_a_row < 50 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let answer = caller.call(1).await.unwrap();
            in_a_row = if answer == "HZ" { in_a_row + 1 } else { 0 };
        }
    };
    tokio::time::timeout(Duration::from_secs(20), home)
        .await
        .expect("probes bring it back");
}

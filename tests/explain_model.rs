//! What `explain` says is what is picked, in random states.

#![allow(
    clippy::disallowed_methods,
    reason = "a test owns its clock and its tasks"
)]

mod discover_support;

use std::{collections::HashMap, time::Duration};

use discover_support::{instance, now, registry};
use futures_util::FutureExt;
use tower_nacos::{
    Balance, Instance, Subscription,
    balance::{
        Hints, Lease, Maglev, Outliers, P2c, PeakEwma, Pickable, Picker, Policy, Random, SlowStart,
        TrafficSplit, WeightedRandom, WeightedRoundRobin,
    },
    endpoint::Verdict,
};

const PICKS: u32 = 2_000;
const CLUSTERS: [&str; 4] = ["HZ", "SH", "BJ", "GZ"];

const VERSIONS: [&str; 4] = ["1", "2", "3", ""];
const SPLITS: [&str; 4] = [
    "version=2: 5, *: 95",
    "version=3: 0, version=2: 30, version=1: 70",
    "version=2: 100",
    "version=9: 20, version=1: 80",
];

fn address(at: usize) -> String {
    format!("10.0.0.{at}:80")
}

fn any_instance(at: usize, random: &mut Random) -> Instance {
    let version = VERSIONS[random.below(4)];
    let metadata = [("version", version)].into_iter();
    instance(&address(at))
        .with_metadata(
            metadata
                .filter(|(_, version)| !version.is_empty())
                .collect(),
        )
        .with_cluster(CLUSTERS[random.below(4)])
        .with_weight([0.0, 0.5, 1.0, 1.0, 3.0][random.below(5)])
        .with_healthy(random.below(6) > 0)
        .with_enabled(random.below(8) > 0)
}

#[tokio::test(start_paused = true)]
async fn what_explain_says_is_what_is_picked() {
    let mut verdicts: HashMap<&str, u32> = HashMap::new();
    for seed in 0..60 {
        let mut random = Random::seeded(seed);
        let (mut writer, orders) = registry();
        let mut builder = Balance::builder(&orders)
            .policy(WeightedRandom::new())
            .eject_outliers(Outliers::new().consecutive(1));
        builder = builder.prefer_clusters(CLUSTERS.into_iter().take(random.below(3)));
        if random.below(2) == 0 {
            builder = builder.slow_start(SlowStart::new());
        }
        if random.below(2) == 0 {
            let shares = SPLITS[random.below(4)].parse().unwrap();
            let below = [0.0, 0.7][random.below(2)];
            builder = builder.split(&TrafficSplit::new(shares).spill_below(below));
        }
        let picker = builder.picker();
        let mut list = vec![instance("10.0.0.99:80").with_cluster("BJ")];
        writer.publish(list.clone(), now());
        for step in 0..12 {
            for _ in 0..random.below(5) {
                let at = 1 + random.below(12);
                list.retain(|i| i.address().to_string() != address(at));
                if random.below(3) > 0 {
                    list.push(any_instance(at, &mut random));
                }
            }
            let at = now() + Duration::from_secs(seed * 1_000 + step);
            writer.publish(list.clone(), at);
            if random.below(3) == 0 {
                tokio::time::sleep(Duration::from_millis(random.below(9_000) as u64)).await;
            }
            if let (0, Ok(mut lease)) = (random.below(2), picker.try_pick()) {
                lease.failed(match random.below(2) {
                    0 => Verdict::unreachable("gone"),
                    _ => Verdict::Reachable,
                });
            }
            // Probes that are on offer go first, whoever they are of.
            for _ in 0..12 {
                if let Ok(lease) = picker.try_pick() {
                    drop(lease);
                }
            }
            let mut picked: HashMap<String, u32> = HashMap::new();
            for _ in 0..PICKS {
                if let Ok(lease) = picker.try_pick() {
                    *picked.entry(lease.address().to_string()).or_default() += 1;
                }
            }
            let total: u32 = picked.values().sum();
            let mut shares = 0.0;
            for instance in &list {
                let address = instance.address();
                let explained = picker.explain(address);
                let picks = picked.get(&address.to_string()).copied().unwrap_or(0);
                let share = f64::from(picks) / f64::from(PICKS);
                let close = 0.005 + 5.0 * (share * (1.0 - share) / f64::from(PICKS)).sqrt();
                assert!(
                    (explained.share - share).abs() <= close,
                    "seed {seed} step {step} {address}: picked {share}, {explained}"
                );
                assert!(
                    explained.is_pickable() || picks == 0,
                    "{address}: {explained}"
                );
                assert!(
                    !explained.is_pickable() || explained.share > 0.0,
                    "{explained}"
                );
                let verdict = match explained.verdict {
                    Pickable::Yes => "yes",
                    Pickable::NotCallable => "not callable",
                    Pickable::OtherCluster { .. } => "other cluster",
                    Pickable::NoShare => "no share",
                    Pickable::Ejected { .. } => "ejected",
                    Pickable::Outlier { .. } => "outlier",
                    _ => "other",
                };
                *verdicts.entry(verdict).or_default() += 1;
                shares += explained.share;
            }
            let expected = f64::from(u8::from(total > 0));
            assert!(
                (shares - expected).abs() < 1e-9,
                "seed {seed} step {step}: {shares}"
            );
            assert_eq!(picker.counts(), [0, 0, 0]);
        }
    }
    let seen = [
        "yes",
        "not callable",
        "other cluster",
        "no share",
        "ejected",
        "outlier",
    ];
    for verdict in seen {
        assert!(
            verdicts.get(verdict).is_some_and(|n| *n > 20),
            "{verdicts:?}"
        );
    }
}

/// A rack whose instances have neighbouring addresses cannot be reached, and is still listed.
fn without_a_rack<P: Policy>(orders: &Subscription, policy: P) -> Picker<P> {
    let picker = Balance::builder(orders).policy(policy).picker();
    let rack: Vec<_> = (15..35).map(address).collect();
    let (mut out, mut key) = (0, 0_u64);
    while out < rack.len() {
        key += 1;
        let mut lease = pick(&picker, key);
        if rack.contains(&lease.address().to_string()) {
            lease.failed(Verdict::unreachable("gone"));
            out += 1;
        }
    }
    picker
}

fn pick<P: Policy>(picker: &Picker<P>, key: u64) -> Lease {
    let picked = picker.pick_by(Hints::new().key(key.to_le_bytes()));
    // Thousands in one go, which would use up the task's budget.
    let picked = tokio::task::unconstrained(picked);
    picked.now_or_never().expect("no waiting").unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_a_lost_rack_got_is_spread_over_all_others() {
    fn check<P: Policy + Clone>(policy: P, keyed: bool) {
        let name = std::any::type_name::<P>();
        let (mut writer, orders) = registry();
        writer.publish((10..40).map(|at| instance(&address(at))), now());
        let picker = without_a_rack(&orders, policy.clone());
        let other = without_a_rack(&orders, policy);
        let mut picked: HashMap<String, f64> = HashMap::new();
        for key in 0..20_000 {
            let at = if keyed {
                let at = pick(&picker, key).address().to_string();
                assert_eq!(
                    pick(&other, key).address().to_string(),
                    at,
                    "of another caller"
                );
                at
            } else {
                picker.try_pick().unwrap().address().to_string()
            };
            *picked.entry(at).or_default() += 1.0 / 20_000.0;
        }
        let shares: Vec<_> = picked.values().collect();
        assert_eq!(picked.len(), 10, "{name}");
        let even = shares.iter().all(|share| (0.08..0.12).contains(*share));
        assert!(even, "{name}: {shares:?}");
    }
    check(WeightedRandom::new(), false);
    check(WeightedRoundRobin::new(), false);
    check(P2c::new(), false);
    check(PeakEwma::new(), false);
    check(Maglev::new(), true);
}

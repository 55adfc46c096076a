//! Random changes of a list with clusters and metadata, and a balancer with tiers and selectors
//! that is compared with a model after each.

mod discover_support;

use std::{collections::BTreeMap, future::Future, pin::pin, task::Poll};

use discover_support::{Book, idle_context, instance, now, registry};
use proptest::prelude::*;
use tower::Service;
use tower_nacos::{Balance, balance::Hints};

/// By the last byte of the address: cluster, weight, whether healthy, version.
type List = BTreeMap<u8, (u8, u8, bool, u8)>;

const CLUSTERS: [&str; 3] = ["HZ", "SH", "BJ"];

fn address(at: u8) -> String {
    format!("10.0.0.{at}:80")
}

/// What may be called: of some weight, and healthy, or unhealthy if none is healthy.
fn callable(list: &List) -> List {
    let healthy = list
        .values()
        .any(|(_, weight, healthy, _)| *weight > 0 && *healthy);
    let able = list
        .iter()
        .filter(|(_, (_, w, h, _))| *w > 0 && (*h || !healthy));
    able.map(|(at, what)| (*at, *what)).collect()
}

/// By cluster in order, what is listed of it.
fn weights(list: &List) -> [f64; 3] {
    let mut weights = [0.0; 3];
    for (cluster, weight, ..) in list.values() {
        weights[usize::from(*cluster)] += f64::from(*weight);
    }
    weights
}

/// As the design says it, in other words than the code.
fn shares(callable: &List, highest: [f64; 3]) -> BTreeMap<u8, f64> {
    let open = weights(callable);
    let mut taken = [0.0; 3];
    for tier in 0..3 {
        if highest[tier] > 0.0 {
            let able: f64 = 1.4 * open[tier] / highest[tier];
            let before: f64 = taken[..tier].iter().sum();
            taken[tier] = able.min(1.0).min(1.0 - before);
        }
    }
    let total: f64 = taken.iter().sum();
    callable
        .iter()
        .map(|(at, (cluster, weight, ..))| {
            let tier = usize::from(*cluster);
            let of_tier = f64::from(*weight) / open[tier];
            (*at, taken[tier] / total * of_tier)
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn after_every_change_clusters_and_selectors_are_as_the_model_says(
        lists in prop::collection::vec(
            prop::collection::btree_map(
                1_u8..16,
                (0_u8..3, 0_u8..4, prop::bool::weighted(0.8), 0_u8..3),
                0..12,
            ),
            1..20,
        ),
    ) {
        let (mut writer, orders) = registry();
        // A first answer that is empty counts as none for 3 s.
        writer.publish([instance("10.0.1.1:80").with_cluster("BJ")], now());
        let book = Book::default();
        let balance = Balance::builder(&orders)
            .prefer_clusters(["HZ", "SH"])
            .hints(|version: &u32| match version {
                0..3 => Hints::new().only(("version", version.to_string())),
                3..6 => Hints::new().prefer(("version", (version - 3).to_string())),
                _ => Hints::new(),
            })
            .build(book.maker());
        let mut caller = balance.clone();
        let mut call = |version: u32| {
            match pin!(caller.call(version)).poll(&mut idle_context()) {
                Poll::Ready(answer) => answer.map(|address| address.to_string()),
                Poll::Pending => panic!("nothing to wait for"),
            }
        };
        prop_assert!(call(9).is_ok());
        let mut highest = [0.0, 0.0, 1.0];
        for list in &lists {
            let listed = list.iter().map(|(at, (cluster, weight, healthy, version))| {
                instance(&address(*at))
                    .with_cluster(CLUSTERS[usize::from(*cluster)])
                    .with_weight(f64::from(*weight))
                    .with_healthy(*healthy)
                    .with_metadata([("version", version.to_string())].into_iter().collect())
            });
            writer.publish(listed, now());
            for (highest, weight) in highest.iter_mut().zip(weights(list)) {
                *highest = f64::max(*highest, weight);
            }
            let callable = callable(list);
            for version in 0..3_u8 {
                let of = |at: &str| {
                    let at: u8 = at.strip_prefix("10.0.0.").unwrap().strip_suffix(":80").unwrap().parse().unwrap();
                    callable.get(&at).map(|(_, _, _, version)| *version)
                };
                let there = callable.values().any(|(.., v)| *v == version);
                for _ in 0..5 {
                    match call(u32::from(version)) {
                        Ok(at) => prop_assert_eq!(of(&at), Some(version)),
                        Err(error) => {
                            prop_assert!(!there, "{}", error);
                            prop_assert_eq!(error.is_no_match(), !callable.is_empty());
                        }
                    }
                    match call(u32::from(version) + 3) {
                        Ok(at) => {
                            let found = of(&at);
                            prop_assert!(found.is_some());
                            prop_assert!(!there || found == Some(version));
                        }
                        Err(error) => prop_assert!(callable.is_empty(), "{}", error),
                    }
                }
            }
            prop_assert_eq!(call(9).is_ok(), !callable.is_empty());
            let model = shares(&callable, highest);
            for at in list.keys() {
                let explained = balance.explain(&address(*at).parse().unwrap());
                let share = model.get(at).copied().unwrap_or(0.0);
                prop_assert!((explained.share - share).abs() < 1e-9, "{share} for {explained}");
            }
            prop_assert_eq!(balance.counts(), [0, 0, 0]);
        }
        prop_assert_eq!(balance.counters().calls_after_evict, 0);
    }
}

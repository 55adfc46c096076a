//! Random changes of the list, and a balancer that is compared with a model after each.

mod discover_support;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::pin,
    sync::{Arc, Mutex},
    task::Poll,
};

use discover_support::{Book, idle_context, instance, now, registry};
use proptest::prelude::*;
use tower::Service;
use tower_nacos::{
    Balance,
    balance::{Alias, Candidate, Loads, PickContext, Pickable, Policy, Random},
};

/// What was listed, by the last byte of the address: weight, whether enabled, whether healthy.
type List = BTreeMap<u8, (u8, bool, bool)>;

/// Writes down what its tables are made of, and picks by weight.
#[derive(Clone, Default)]
struct Recorded(Arc<Mutex<Vec<(String, f64)>>>);

impl Policy for Recorded {
    type Table = Alias;

    fn build(&self, candidates: &[Candidate]) -> Alias {
        *self.0.lock().unwrap() = candidates
            .iter()
            .map(|c| (c.instance().address().to_string(), c.weight()))
            .collect();
        Alias::new(candidates)
    }

    fn pick(
        &self,
        table: &Alias,
        _: &dyn Loads,
        random: &mut Random,
        _: &PickContext,
    ) -> Option<usize> {
        table.draw(random)
    }
}

fn address(at: u8) -> String {
    format!("10.0.0.{at}:80")
}

/// What may be called: enabled, of some weight, and healthy, or unhealthy if none is healthy.
fn model(list: &List) -> BTreeMap<String, f64> {
    let able = || {
        list.iter()
            .filter(|(_, (weight, enabled, _))| *weight > 0 && *enabled)
    };
    let healthy = able().any(|(_, (_, _, healthy))| *healthy);
    able()
        .filter(|(_, (_, _, h))| *h || !healthy)
        .map(|(at, (weight, ..))| (address(*at), f64::from(*weight)))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn after_every_change_the_table_is_what_the_model_says(
        lists in prop::collection::vec(
            prop::collection::btree_map(1_u8..12, (0_u8..4, prop::bool::weighted(0.9), any::<bool>()), 0..8),
            1..20,
        ),
        idle in any::<u64>(),
    ) {
        let (mut writer, orders) = registry();
        // A first answer that is empty counts as none for 3 s.
        writer.publish([instance("10.0.1.1:80")], now());
        let (policy, book) = (Recorded::default(), Book::default());
        let mut balance = Balance::builder(&orders).policy(policy.clone()).build(book.maker());
        let mut seen = BTreeSet::new();
        for (step, list) in lists.iter().enumerate() {
            let listed = list.iter().map(|(at, (weight, enabled, healthy))| {
                instance(&address(*at))
                    .with_weight(f64::from(*weight))
                    .with_enabled(*enabled)
                    .with_healthy(*healthy)
            });
            seen.extend(list.keys().copied());
            writer.publish(listed, now());
            if idle >> step & 1 == 1 {
                continue; // changes that no call sees
            }
            let model = model(list);
            let total: f64 = model.values().sum();
            for _ in 0..30 {
                let Poll::Ready(answer) = pin!(balance.call(1)).poll(&mut idle_context()) else {
                    panic!("nothing to wait for");
                };
                match answer {
                    Ok(address) => {
                        prop_assert!(model.contains_key(&address.to_string()), "{address}");
                    }
                    Err(error) => {
                        prop_assert!(error.is_no_instances() && model.is_empty(), "{error}");
                    }
                }
            }
            let table: BTreeMap<_, _> = policy.0.lock().unwrap().iter().cloned().collect();
            prop_assert_eq!(&table, &model);
            for at in &seen {
                let explained = balance.explain(&address(*at).parse().unwrap());
                let weight = model.get(&address(*at));
                prop_assert_eq!(explained.verdict == Pickable::Yes, weight.is_some());
                let share = weight.map_or(0.0, |weight| weight / total);
                prop_assert!((explained.share - share).abs() < 1e-9, "{}", explained);
            }
            prop_assert_eq!(balance.counts(), [0, 0, 0]);
        }
        prop_assert_eq!(balance.counters().calls_after_evict, 0);
    }
}

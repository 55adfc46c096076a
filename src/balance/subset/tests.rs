use std::{collections::BTreeSet, sync::Arc};

use proptest::prelude::*;

use super::{
    keys::{Draw, Drawn},
    lot::{self, Known, Lot},
    options::{Crowd, InvalidSubset, Subset},
    share::{DEALT, Sizes, deal, fill_up, share},
};
use crate::{
    Subscription,
    balance::{Candidate, Random, hash::mix},
    model::Instance,
};

fn candidates(weights: &[f64]) -> Vec<Candidate> {
    let instance = |(at, weight): (usize, &f64)| {
        let address = format!("10.0.{}.{}:80", at >> 8, at & 255);
        Candidate::new(Arc::new(
            Instance::parse(&address).unwrap().with_weight(*weight),
        ))
    };
    weights.iter().enumerate().map(instance).collect()
}

fn drawn(weights: &[f64]) -> Vec<Drawn> {
    let drawn = |(at, weight): (usize, &f64)| Drawn {
        hash: mix(at as u64 + 1),
        weight: *weight,
    };
    weights.iter().enumerate().map(drawn).collect()
}

fn shuffled<T: Clone>(of: &[T], seed: u64) -> Vec<T> {
    let (mut all, mut random) = (of.to_vec(), Random::seeded(seed));
    for at in (1..all.len()).rev() {
        all.swap(at, random.below(at + 1));
    }
    all
}

/// By hash, so that it does not matter who stands where.
fn taken(known: &Known, drawn: &[Drawn], about: usize) -> Option<BTreeSet<u64>> {
    let draw = Draw::new(drawn.iter().copied());
    let share = share(known, &draw, Sizes { about })?;
    let taken: BTreeSet<u64> = share
        .taken
        .iter()
        .map(|at| drawn[*at as usize].hash)
        .collect();
    assert_eq!(taken.len(), share.taken.len(), "nobody twice");
    Some(taken)
}

fn known(at: usize, of: usize) -> Known {
    Known::All(Lot::of(lot::place(at), (0..of).map(lot::place)))
}

fn crowd(subset: &Subset) -> Crowd {
    let mut crowd = None;
    assert!(subset.look(&mut crowd));
    assert!(!subset.look(&mut crowd), "they are known now");
    crowd.unwrap()
}

fn weights() -> impl Strategy<Value = Vec<f64>> {
    let weight = prop_oneof![Just(1.0), Just(1.0), Just(3.0), 0.01_f64..100.0];
    prop_oneof![
        (1_usize..300).prop_map(|n| vec![1.0; n]),
        prop::collection::vec(weight, 1..300),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The same for everybody who knows the same, in whatever order the lists came; never more or fewer
    /// than was said; everything if there is no more.
    #[test]
    fn a_share_follows_from_who_there_is(
        weights in weights(), about in 1_usize..40, at in 0_usize..50, more in 1_usize..50, seed in any::<u64>(),
    ) {
        let (drawn, callers) = (drawn(&weights), at + more);
        let others: Vec<u64> = (0..callers).map(lot::place).collect();
        let other_order = Known::All(Lot::of(lot::place(at), shuffled(&others, seed).into_iter()));
        let sizes = Sizes { about };
        for (known, again) in [
            (known(at, callers), other_order),
            (Known::Alone(7), Known::Alone(7)),
        ] {
            let share = taken(&known, &drawn, about);
            prop_assert_eq!(&share, &taken(&again, &shuffled(&drawn, seed), about));
            match share {
                None => prop_assert!(drawn.len() <= about),
                Some(share) => {
                    let fewest = sizes.fewest().min(drawn.len());
                    prop_assert!((fewest..=sizes.most()).contains(&share.len()), "{}", share.len());
                }
            }
        }
    }

    /// Who is alone keeps all but one that left, and gives one away for one that came at most.
    #[test]
    fn an_instance_more_or_less_is_one_connection_for_a_caller_that_is_alone(
        weights in weights(), about in 1_usize..40, gone in any::<prop::sample::Index>(), caller in any::<u64>(),
    ) {
        let before = drawn(&weights);
        let mut after = before.clone();
        let gone = after.remove(gone.index(before.len())).hash;
        let caller = Known::Alone(mix(caller));
        if let (Some(before), Some(after)) = (taken(&caller, &before, about), taken(&caller, &after, about)) {
            let opened = after.difference(&before).count();
            prop_assert_eq!(opened, usize::from(before.contains(&gone)));
        }
    }

    /// As many as were asked for can be called, while there are so many; nobody stands in for nothing;
    /// and a table is built anew just when it is not so.
    #[test]
    fn at_least_min_can_be_called(
        n in 1_usize..120, about in 1_usize..30, min in 0_usize..30, shut in any::<u64>(), again in any::<u64>(),
        odds in 0_u64..5,
    ) {
        let tier = candidates(&vec![1.0; n]);
        let subset = Subset::of(about).min(min.min(about)).place(1, 7);
        let min = min.min(about);
        let crowd = crowd(&subset);
        let narrow = subset.narrow(&crowd, 1);
        let is_open = |seed: u64| move |at: usize| mix(seed ^ at as u64) % 4 >= odds.min(4);
        let open = (0..n).filter(|at| is_open(shut)(*at)).count();
        let mut kept = None;
        let Some(part) = narrow.part(&tier, is_open(shut), &mut kept) else {
            prop_assert!(n <= about);
            return Ok(());
        };
        let callable = part.members.iter().filter(|at| is_open(shut)(**at as usize)).count();
        prop_assert!(callable >= min.min(open), "{callable} of {open}");
        prop_assert!(part.more == 0 || callable == min.min(open));
        prop_assert!(part.members.is_sorted() && part.share.iter().all(|at| part.members.contains(at)));
        if callable >= min {
            prop_assert!(!narrow.is_off(&part, is_open(shut)));
        }
        // As others are open, the share stays, and it is noticed if that makes a difference.
        let then = narrow.part(&tier, is_open(again), &mut kept).unwrap();
        prop_assert_eq!(&then.share, &part.share);
        let callable = part.members.iter().filter(|at| is_open(again)(**at as usize)).count();
        let open = (0..n).filter(|at| is_open(again)(*at)).count();
        if callable < min.min(open) || then.more < part.more {
            prop_assert!(narrow.is_off(&part, is_open(again)));
        }
    }
}

/// What part of all calls each instance gets, if each caller sends as many, by pull.
fn loads(weights: &[f64], callers: usize, about: usize) -> Vec<f64> {
    let (draw, sizes) = (Draw::new(drawn(weights).into_iter()), Sizes { about });
    let rate = draw.rate(about as f64 * DEALT);
    let lot = Lot::of(lot::place(0), (0..callers).map(lot::place));
    let mut loads = vec![0.0; weights.len()];
    for (caller, taken) in lot
        .callers
        .iter()
        .zip(deal(&lot, &draw, rate, sizes.most()))
    {
        let taken = fill_up(*caller, &draw, taken, sizes);
        let pull = |at: &u32| draw.pull(rate, *at as usize).unwrap_or(1.0);
        let total: f64 = taken.iter().map(pull).sum();
        for at in &taken {
            loads[*at as usize] += pull(at) / total / callers as f64;
        }
    }
    loads
}

/// The heaviest is in nearly every subset; one alone weighs as much as fifty.
#[test]
fn instances_get_calls_by_weight() {
    let weight = |at: usize| match at {
        0 => 50.0,
        1..40 => 5.0,
        40..100 => 2.0,
        _ => 1.0,
    };
    let weights: Vec<f64> = (0..400).map(weight).collect();
    let total: f64 = weights.iter().sum();
    let loads = loads(&weights, 2_000, 20);
    let mut classes = std::collections::BTreeMap::<u32, Vec<f64>>::new();
    for (weight, load) in weights.iter().zip(&loads) {
        let fair = weight / total;
        classes.entry(*weight as u32).or_default().push(load / fair);
    }
    for (weight, ratios) in classes {
        let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
        assert!(
            (0.93..1.07).contains(&mean),
            "weight {weight}: {mean} of what is fair"
        );
        let off = ratios
            .iter()
            .map(|ratio| (ratio - 1.0).abs())
            .fold(0.0, f64::max);
        assert!(off < 0.3, "weight {weight}: one is {off} off");
    }
}

#[test]
fn weights_that_are_none_choose_somebody() {
    let weights = [f64::NAN, f64::INFINITY, -1.0, 0.0, 1e-300, 1.0, 2.0, 1e300];
    for known in [known(0, 3), Known::Alone(7)] {
        let share = taken(&known, &drawn(&weights), 3).unwrap();
        assert!((3..=4).contains(&share.len()), "{share:?}");
    }
    let draw = Draw::new(drawn(&weights).into_iter());
    let rate = draw.rate(3.0);
    let taken: f64 = (0..weights.len()).map(|at| draw.chance(rate, at)).sum();
    assert!((taken - 3.0).abs() < 1e-6, "{taken}");
    let pulls = (0..weights.len()).map(|at| draw.pull(rate, at).unwrap());
    assert!(pulls.into_iter().all(|pull| pull.is_finite() && pull > 0.0));
}

#[test]
fn a_caller_that_is_not_listed_yet_counts_as_if_it_were() {
    let list = |names: &[&str]| {
        Subscription::fixed(names.iter().map(|name| Instance::parse(name).unwrap()))
    };
    let own = "10.1.0.3:80".parse().unwrap();
    let before = Subset::of(5).among(&list(&["10.1.0.1:80", "10.1.0.2:80"]), own);
    let own = "10.1.0.3:80".parse().unwrap();
    let listed = list(&["10.1.0.3:80", "10.1.0.2:80", "10.1.0.1:80"]);
    let after = Subset::of(5).among(&listed, own);
    let tier = candidates(&[1.0; 40]);
    let part = |subset: &Subset| {
        let crowd = crowd(subset);
        let part = subset.narrow(&crowd, 1).part(&tier, |_| true, &mut None);
        part.unwrap()
    };
    assert_eq!(part(&before), part(&after));
}

/// Both call the same, which is all that can be wrong: nobody can tell them apart.
#[test]
fn two_callers_of_one_name_call_the_same() {
    let tier = candidates(&[1.0; 40]);
    let part = |name: &str| {
        let subset = Subset::of(5).caller(name);
        let crowd = crowd(&subset);
        subset
            .narrow(&crowd, 1)
            .part(&tier, |_| true, &mut None)
            .unwrap()
    };
    assert_eq!(part("web-1"), part("web-1"));
    assert_ne!(part("web-1"), part("web-2"));
}

#[test]
fn what_cannot_be_meant_is_said_and_left_out() {
    let settle = |subset: Subset| {
        let mut said = Vec::new();
        let settled = subset.settle(|invalid| said.push(invalid));
        (settled.is_some(), said)
    };
    assert_eq!(settle(Subset::of(0)), (false, vec![InvalidSubset::Empty]));
    let above = InvalidSubset::MinAboveSize { min: 9, size: 5 };
    assert_eq!(settle(Subset::of(5).min(9)), (true, vec![above]));
    let none = InvalidSubset::NoSuchPlace { at: 3, of: 3 };
    assert_eq!(settle(Subset::of(5).place(3, 3)), (true, vec![none]));
    let many = InvalidSubset::TooMany {
        at: 3,
        of: usize::MAX,
    };
    assert_eq!(
        settle(Subset::of(5).place(3, usize::MAX)),
        (true, vec![many])
    );
    let most = Subset::of(usize::MAX).min(usize::MAX).place(0, 1);
    assert_eq!(settle(most), (true, vec![]));
    assert_eq!(
        above.to_string(),
        "a subset of 5 instances of which at least 9 are to be callable; name 5 at most"
    );
}

//! A share of the calls for a version, and what a first choice gets that has lost instances.

mod discover_support;

use std::{collections::BTreeMap, future::Future, pin::pin, task::Poll, time::Duration};

use discover_support::{Book, Echo, idle_context, instance, logs::Logs, now, registry};
use tower::{Service, load::CompleteOnResponse};
use tower_nacos::{
    Balance, Instance,
    balance::{Hints, Maglev, P2c, Random, Shares, TrafficSplit},
    directory::{Subscription, Writer},
    endpoint::{NeverRecover, Unclassified},
};

type Hinted<P> =
    Balance<Echo, P, NeverRecover, CompleteOnResponse, Unclassified, fn(&u32) -> Hints>;

fn versions(list: &[(&str, &str)]) -> Vec<Instance> {
    let with = |(address, version): &(&str, &str)| {
        instance(address).with_metadata([("version", *version)].into_iter().collect())
    };
    list.iter().map(with).collect()
}

fn ones_and_two(ones: usize) -> Vec<Instance> {
    let addresses: Vec<String> = (1..=ones).map(|at| format!("10.0.1.{at}:80")).collect();
    let mut list: Vec<_> = addresses.iter().map(|a| (a.as_str(), "1")).collect();
    list.push(("10.0.2.1:80", "2"));
    versions(&list)
}

fn of(list: Vec<Instance>) -> (Writer, Subscription) {
    let (mut writer, orders) = registry();
    writer.publish(list, now());
    (writer, orders)
}

/// A request is its key; 0 is none.
fn keyed(request: &u32) -> Hints {
    match request {
        0 => Hints::new(),
        key => Hints::new().key(key.to_string()),
    }
}

fn ask<P: tower_nacos::balance::Policy>(balance: &mut Hinted<P>, request: u32) -> String {
    match pin!(balance.call(request)).poll(&mut idle_context()) {
        Poll::Ready(answer) => answer.unwrap().to_string(),
        Poll::Pending => panic!("all of it happens in the first poll"),
    }
}

/// What part of so many calls each version gets; by the third number of the address.
fn parts(balance: &mut Hinted<P2c>, requests: impl Iterator<Item = u32>) -> BTreeMap<char, f64> {
    let mut counts = BTreeMap::<char, f64>::new();
    let mut total = 0.0;
    for request in requests {
        let address = ask(balance, request);
        *counts.entry(address.chars().nth(5).unwrap()).or_default() += 1.0;
        total += 1.0;
    }
    counts.values_mut().for_each(|count| *count /= total);
    counts
}

fn part(parts: &BTreeMap<char, f64>, version: char) -> f64 {
    parts.get(&version).copied().unwrap_or(0.0)
}

#[track_caller]
fn assert_close(part: f64, expected: f64) {
    assert!((part - expected).abs() < 0.015, "{part} for {expected}");
}

fn split(text: &str) -> TrafficSplit {
    TrafficSplit::new(text.parse().unwrap())
}

fn balance(orders: &Subscription, split: &TrafficSplit) -> Hinted<P2c> {
    let hints: fn(&u32) -> Hints = keyed;
    Balance::builder(orders)
        .split(split)
        .hints(hints)
        .build(Book::default().maker())
}

#[test]
fn a_version_gets_its_share_whatever_its_number_of_instances_and_it_changes_while_it_runs() {
    Random::seed_thread(1);
    let (_writer, orders) = of(ones_and_two(4));
    let split = split("version=2: 5, *: 95");
    let mut balance = balance(&orders, &split);
    let calls = || std::iter::repeat_n(0, 20_000);
    assert_close(part(&parts(&mut balance, calls()), '2'), 0.05);
    for percent in [50.0, 0.0, 100.0, 12.5] {
        split.set(Shares::with_rest([(percent, ("version", "2"))]).unwrap());
        assert_close(part(&parts(&mut balance, calls()), '2'), percent / 100.0);
        let told = balance.explain(&"10.0.2.1:80".parse().unwrap());
        assert_close(told.share, percent / 100.0);
    }
    split.set(Shares::none());
    assert_close(part(&parts(&mut balance, calls()), '2'), 0.2);
}

#[test]
fn a_key_sticks_to_its_part_and_stays_in_it_when_that_grows() {
    let (_writer, orders) = of(ones_and_two(4));
    let split = split("version=2: 5, *: 95");
    let mut balances = [balance(&orders, &split), balance(&orders, &split)];
    let gray = |balance: &mut Hinted<P2c>| -> Vec<u32> {
        let keys = 1..10_000;
        keys.filter(|key| ask(balance, *key).starts_with("10.0.2."))
            .collect()
    };
    let [first, second] = balances.each_mut().map(gray);
    assert_eq!(first, second, "also with another caller");
    assert_close(first.len() as f64 / 10_000.0, 0.05);
    split.set("version=2: 10, *: 90".parse().unwrap());
    let more = gray(&mut balances[0]);
    assert!(first.iter().all(|key| more.contains(key)));
    assert_close(more.len() as f64 / 10_000.0, 0.10);
}

/// A part is not a piece of what a consistent hash does with the same key.
#[test]
fn with_maglev_the_keys_of_a_part_fall_to_all_of_its_instances() {
    let list = [
        ("10.0.1.1:80", "1"),
        ("10.0.1.2:80", "1"),
        ("10.0.2.1:80", "2"),
        ("10.0.2.2:80", "2"),
        ("10.0.2.3:80", "2"),
    ];
    let (_writer, orders) = of(versions(&list));
    let hints: fn(&u32) -> Hints = keyed;
    let mut balance = Balance::builder(&orders)
        .policy(Maglev::with_size(5_003))
        .split(&split("version=2: 5, *: 95"))
        .hints(hints)
        .build(Book::default().maker());
    let mut counts = BTreeMap::<String, u32>::new();
    for key in 1..60_000 {
        let address = ask(&mut balance, key);
        assert_eq!(ask(&mut balance, key), address);
        *counts.entry(address).or_default() += 1;
    }
    let gray: Vec<u32> = counts
        .iter()
        .filter(|(a, _)| a.starts_with("10.0.2."))
        .map(|(_, n)| *n)
        .collect();
    assert_eq!(gray.len(), 3);
    assert!(
        gray.iter().all(|count| (800..1_200).contains(count)),
        "{counts:?}"
    );
}

/// Nor is it a cluster's.
#[test]
fn the_keys_of_a_part_are_of_all_clusters() {
    let in_cluster = |address: &str, cluster: &str, version: &str| {
        versions(&[(address, version)])
            .remove(0)
            .with_cluster(cluster)
    };
    let (_writer, orders) = of(vec![
        in_cluster("10.0.1.1:80", "HZ", "1"),
        in_cluster("10.0.1.2:80", "SH", "1"),
        in_cluster("10.0.2.1:80", "HZ", "2"),
        in_cluster("10.0.2.2:80", "SH", "2"),
    ]);
    let hints: fn(&u32) -> Hints = keyed;
    let mut balance = Balance::builder(&orders)
        .prefer_cluster("HZ")
        .expected_weight(2.8) // 1.4 × 1 ÷ 2.8: half of each part at home
        .split(&split("version=2: 20, *: 80"))
        .hints(hints)
        .build(Book::default().maker());
    let mut counts = BTreeMap::<String, f64>::new();
    for key in 1..20_001 {
        *counts.entry(ask(&mut balance, key)).or_default() += 1.0 / 20_000.0;
    }
    let expected = [0.4, 0.4, 0.1, 0.1];
    assert_eq!(counts.len(), 4, "{counts:?}");
    for (part, expected) in counts.values().zip(expected) {
        assert_close(*part, expected);
    }
}

#[test]
fn a_part_of_nobody_goes_to_everybody() {
    Random::seed_thread(2);
    let (mut writer, orders) = of(ones_and_two(4));
    let mut balance = balance(
        &orders,
        &split("version=3: 50, version=2: 25, version=1: 25"),
    );
    let calls = || std::iter::repeat_n(0, 20_000);
    // Half of them by weight: a fifth of that to version 2.
    assert_close(part(&parts(&mut balance, calls()), '2'), 0.25 + 0.1);
    writer.publish(versions(&[("10.0.2.1:80", "2")]), now());
    assert_close(part(&parts(&mut balance, calls()), '2'), 1.0);
}

#[test]
fn a_request_that_has_chosen_for_itself_takes_no_part() {
    let (_writer, orders) = of(ones_and_two(2));
    let hints: fn(&u32) -> Hints = |request| match request {
        1 => Hints::new().only(("version", "1")),
        2 => Hints::new().exclude(["10.0.1.1:80".parse().unwrap()]),
        _ => Hints::new(),
    };
    let mut balance = Balance::builder(&orders)
        .split(&split("version=2: 100"))
        .hints(hints)
        .build(Book::default().maker());
    for _ in 0..100 {
        assert!(ask(&mut balance, 1).starts_with("10.0.1."));
        assert!(
            ask(&mut balance, 2).starts_with("10.0.2."),
            "to leave out is not to choose"
        );
        assert!(ask(&mut balance, 0).starts_with("10.0.2."));
    }
}

/// Four are preferred and one survives: it gets what it can be expected to take.
#[test]
fn one_survivor_of_a_first_choice_does_not_get_everything() {
    Random::seed_thread(3);
    let gray = ["10.0.2.1:80", "10.0.2.2:80", "10.0.2.3:80", "10.0.2.4:80"].map(|a| (a, "2"));
    let ones = ["10.0.1.1:80", "10.0.1.2:80", "10.0.1.3:80", "10.0.1.4:80"].map(|a| (a, "1"));
    let all = |gray: &[(&'static str, &'static str)]| versions(&[gray, &ones].concat());
    let (mut writer, orders) = of(all(&gray));
    let hints: fn(&u32) -> Hints = |request| {
        let prefer = Hints::new().prefer(("version", "2"));
        match request {
            0 => prefer,
            1 => prefer.spill_below(0.7),
            _ => prefer.spill_below(0.5),
        }
    };
    let mut balance = Balance::builder(&orders)
        .hints(hints)
        .build(Book::default().maker());
    let of = |balance: &mut Hinted<P2c>, request| {
        part(&parts(balance, std::iter::repeat_n(request, 20_000)), '2')
    };
    for request in 0..3 {
        assert_close(of(&mut balance, request), 1.0);
    }
    // Three of four are 75 %: enough.
    writer.publish(all(&gray[..3]), now());
    assert_close(of(&mut balance, 1), 1.0);
    // One of four: 0.25 ÷ 0.7 = 36 % and a fifth of the rest; 0.25 ÷ 0.5.
    writer.publish(all(&gray[..1]), now());
    assert_close(of(&mut balance, 0), 1.0);
    assert_close(of(&mut balance, 1), 0.357 + 0.643 / 5.0);
    assert_close(of(&mut balance, 2), 0.5 + 0.5 / 5.0);
    writer.publish(all(&[]), now());
    assert_close(of(&mut balance, 1), 0.0);
    writer.publish(all(&gray), now());
    assert_close(of(&mut balance, 1), 1.0);
}

/// The larger part of a split, too: when half of version 1 is gone, version 2 does not take its calls
/// alone.
#[test]
fn a_part_that_lost_instances_spills_to_everybody_by_weight() {
    Random::seed_thread(4);
    let (mut writer, orders) = of(ones_and_two(10));
    let strict = split("version=2: 5, *: 95").spill_below(0.0);
    let split = split("version=2: 5, *: 95");
    let (mut kind, mut strict) = (balance(&orders, &split), balance(&orders, &strict));
    let calls = || std::iter::repeat_n(0, 40_000);
    for balance in [&mut kind, &mut strict] {
        assert_close(part(&parts(balance, calls()), '2'), 0.05);
    }
    writer.publish(ones_and_two(5), now());
    // Half is 5/7 of what is enough, so 27 % spill, and a sixth of that comes to version 2.
    let spilt = 0.95 * (1.0 - 0.5 / 0.7) / 6.0;
    assert_close(part(&parts(&mut kind, calls()), '2'), 0.05 + spilt);
    assert_close(
        kind.explain(&"10.0.2.1:80".parse().unwrap()).share,
        0.05 + spilt,
    );
    assert_close(part(&parts(&mut strict, calls()), '2'), 0.05);
}

#[tokio::test(start_paused = true)]
#[allow(clippy::disallowed_methods, reason = "a test owns its clock")]
async fn what_is_usual_is_forgotten_after_ten_minutes() {
    Random::seed_thread(5);
    let (mut writer, orders) = of(ones_and_two(10));
    let mut balance = balance(&orders, &split("*: 50, version=2: 50"));
    let ones =
        |balance: &mut Hinted<P2c>| part(&parts(balance, std::iter::repeat_n(0, 20_000)), '1');
    assert_close(ones(&mut balance), 0.5);
    writer.publish(ones_and_two(1), now());
    let few = 0.5 * (0.1 / 0.7);
    assert_close(ones(&mut balance), few + (0.5 - few) / 2.0);
    tokio::time::sleep(Duration::from_secs(620)).await;
    assert_close(ones(&mut balance), 0.5);
}

/// An operator changes them in the registry, and makes a mistake.
#[test]
fn instances_say_their_version_s_share_and_nonsense_changes_nothing() {
    Random::seed_thread(6);
    let two = |share: &str| {
        let mut list = ones_and_two(4);
        let pairs = [("version", "2"), ("traffic-percent", share)];
        let gray = list.pop().unwrap();
        list.push(gray.with_metadata(pairs.into_iter().collect()));
        list
    };
    let (mut writer, orders) = of(ones_and_two(4));
    let hints: fn(&u32) -> Hints = keyed;
    let mut balance = Balance::builder(&orders)
        .split_by_metadata("version", "traffic-percent")
        .hints(hints)
        .build(Book::default().maker());
    let (logs, _guard) = Logs::begin();
    let gray =
        |balance: &mut Hinted<P2c>| part(&parts(balance, std::iter::repeat_n(0, 20_000)), '2');
    assert_close(gray(&mut balance), 0.2);
    for (share, expected) in [
        ("5", 0.05),
        ("50 %", 0.5),
        ("fifty", 0.5),
        ("500", 0.5),
        ("0", 0.0),
    ] {
        writer.publish(two(share), now());
        assert_close(gray(&mut balance), expected);
    }
    let lines = logs.lines("is not obeyed");
    assert_eq!(lines.len(), 2, "once for each mistake: {lines:?}");
    for (line, said) in lines.iter().zip(["fifty", "500"]) {
        assert!(line.contains("WARN") && line.contains(said), "{line}");
        assert!(
            line.contains("stay as they were (version=2: 50 %, *: 50 %)"),
            "{line}"
        );
    }
    writer.publish(ones_and_two(4), now());
    assert_close(gray(&mut balance), 0.2);
}

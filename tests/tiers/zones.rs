//! Zone-aware routing: measured shares beside Envoy's formula, and what cannot be meant.

use tower_nacos::{
    balance::{Selector, Shares as Split, TrafficSplit, ZoneAware},
    grpc, http,
};

use super::*;

/// `HZ` has a third of the callers and a fifth of the instances.
fn small_home() -> (Writer, Subscription) {
    registry_of(cluster(1, 2).chain(cluster(2, 4)).chain(cluster(3, 4)))
}

fn callers() -> impl Iterator<Item = Instance> {
    cluster(1, 1).chain(cluster(2, 1)).chain(cluster(3, 1))
}

#[test]
fn a_small_home_keeps_what_fits_and_the_rest_goes_where_there_is_room() {
    let (_writer, orders) = small_home();
    let (_callers, shop) = registry_of(callers());
    let from = |home: &str| {
        let zones = ZoneAware::new(home).callers(&shop);
        shares(
            &start(Balance::builder(&orders).zone_aware(zones), alive),
            CALLS,
        )
    };
    let small = from("HZ");
    assert_shares(&small, &[("HZ", 0.6), ("SH", 0.2), ("BJ", 0.2)]);
    let (sh, bj) = (from("SH"), from("BJ"));
    assert_shares(&sh, &[("HZ", 0.0), ("SH", 1.0), ("BJ", 0.0)]);
    assert_shares(&bj, &[("HZ", 0.0), ("SH", 0.0), ("BJ", 1.0)]);
    // All together each instance gets a tenth.
    for (zone, instances) in [("HZ", 2.0), ("SH", 4.0), ("BJ", 4.0)] {
        let of = |shares: &Shares| shares.get(zone).copied().unwrap_or(0.0);
        let load = (of(&small) + of(&sh) + of(&bj)) / 3.0;
        assert!(
            (load - instances / 10.0).abs() < TOLERANCE,
            "{zone}: {load}"
        );
    }
}

#[test]
fn shares_that_are_said_and_weights_count_as_they_are_said() {
    let light = |at| member(1, at, 0.5);
    let (_writer, orders) = registry_of((0..4).map(light).chain(cluster(2, 8)));
    let said = ZoneAware::new("HZ").caller_shares([("HZ", 40.0), ("SH", 60.0)]);
    let balance = start(Balance::builder(&orders).zone_aware(said.clone()), alive);
    assert_shares(&shares(&balance, CALLS), &[("HZ", 0.5), ("SH", 0.5)]);
    // Of half of the calls this is true; the others go by weight.
    let half = said.clone().routing_enabled(50.0);
    let balance = start(Balance::builder(&orders).zone_aware(half), alive);
    assert_shares(&shares(&balance, CALLS), &[("HZ", 0.35), ("SH", 0.65)]);
    let few = said.min_instances(13);
    let balance = start(Balance::builder(&orders).zone_aware(few), alive);
    assert_shares(&shares(&balance, CALLS), &[("HZ", 0.2), ("SH", 0.8)]);
}

#[test]
fn what_cannot_be_reached_is_no_capacity() {
    let (_writer, orders) = registry_of(cluster(1, 6).chain(cluster(2, 6)));
    let zones = ZoneAware::new("HZ").caller_shares([("HZ", 1.0), ("SH", 1.0)]);
    let balance = start(Balance::builder(&orders).zone_aware(zones), |instance| {
        let dead = ["10.1.0.0:80", "10.1.0.1:80", "10.1.0.2:80", "10.1.0.3:80"];
        dead.contains(&&*instance.address().to_string())
    });
    shares(&balance, 200);
    // Two of eight are at home, where half of the calls come from.
    assert_shares(&shares(&balance, CALLS), &[("HZ", 0.5), ("SH", 0.5)]);
}

#[tokio::test(start_paused = true)]
async fn callers_that_come_and_go_count_within_5_s() {
    let (_writer, orders) = small_home();
    let (mut writer, shop) = registry_of(callers());
    let zones = ZoneAware::new("HZ").callers(&shop);
    let balance = start(Balance::builder(&orders).zone_aware(zones), alive);
    assert_shares(&shares(&balance, CALLS), &[("HZ", 0.6)]);
    writer.publish(cluster(1, 1).chain(cluster(2, 4)), now());
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_shares(&shares(&balance, CALLS), &[("HZ", 1.0)]);
    writer.publish(cluster(1, 4), now());
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_shares(&shares(&balance, CALLS), &[("HZ", 0.2), ("SH", 0.4)]);
}

#[test]
fn a_zone_of_which_nothing_is_known_is_warned_of_once_and_goes_by_weight() {
    let list = [
        ("Mars", "no instance is in the preferred cluster \"Mars\""),
        ("BJ", "no caller is listed in the own zone \"BJ\""),
    ];
    let (_writer, orders) = small_home();
    let (_callers, shop) = registry_of(cluster(1, 1).chain(cluster(2, 1)));
    for (home, warning) in list {
        let (logs, _guard) = Logs::begin();
        let zones = ZoneAware::new(home).callers(&shop);
        let balance = start(Balance::builder(&orders).zone_aware(zones), alive);
        let by_weight = [("HZ", 0.2), ("SH", 0.4), ("BJ", 0.4)];
        assert_shares(&shares(&balance, CALLS), &by_weight);
        let text = logs.text();
        assert_eq!(text.matches(warning).count(), 1, "{text}");
        let callers = text.matches("Zones of the callers: HZ, SH").count();
        assert_eq!(callers, 1, "{text}");
    }
    let (logs, _guard) = Logs::begin();
    let (_callers, nobody) = registry_of([]);
    let zones = ZoneAware::new("HZ").callers(&nobody);
    let balance = start(Balance::builder(&orders).zone_aware(zones), alive);
    assert_shares(&shares(&balance, CALLS), &[("HZ", 0.2), ("SH", 0.4)]);
    let text = logs.text();
    assert_eq!(
        text.matches("nobody is listed as a caller").count(),
        1,
        "{text}"
    );
}

#[test]
fn it_holds_within_a_split_and_gives_way_to_a_request_that_names_a_cluster() {
    let version = |version: &str, of: Vec<Instance>| {
        let metadata = [("version", version)].into_iter().collect();
        let with = move |i: Instance| i.with_metadata(Clone::clone(&metadata));
        of.into_iter().map(with).collect::<Vec<_>>()
    };
    let new = version("2", cluster(1, 8).collect());
    let old = version("1", cluster(2, 8).collect());
    let (_writer, orders) = registry_of(new.into_iter().chain(old));
    let zones = ZoneAware::new("HZ").caller_shares([("HZ", 1.0), ("SH", 3.0)]);
    let all_home = Balance::builder(&orders).zone_aware(zones.clone());
    assert_shares(&shares(&start(all_home, alive), CALLS), &[("HZ", 1.0)]);
    let split = TrafficSplit::new(
        Split::new([(75.0, ("version", "1")), (25.0, ("version", "2"))]).unwrap(),
    );
    let balance = Balance::builder(&orders)
        .zone_aware(zones.clone())
        .split(&split);
    let expected = [("HZ", 0.25), ("SH", 0.75)];
    assert_shares(&shares(&start(balance, alive), CALLS), &expected);
    let balance = Balance::builder(&orders)
        .zone_aware(zones)
        .hints(|request: &u32| match request % 2 {
            0 => Hints::new().cluster("SH"),
            _ => Hints::new().only(Selector::from(("version", "1"))),
        });
    assert_shares(&shares(&start(balance, alive), CALLS), &[("SH", 1.0)]);
}

#[test]
fn explain_tells_the_zone_s_share() {
    let (_writer, orders) = small_home();
    let zones = ZoneAware::new("HZ").caller_shares([("HZ", 1.0), ("SH", 1.0), ("BJ", 1.0)]);
    let balance = Balance::builder(&orders)
        .zone_aware(zones)
        .build(|_: &Instance| service_fn(|(): ()| std::future::ready(Ok::<_, io::Error>(()))));
    let home = balance.explain(&"10.1.0.0:80".parse().unwrap());
    assert!((home.share - 0.3).abs() < 1e-9, "{home}");
    let text = home.to_string();
    assert!(
        text.contains("cluster HZ gets 60.0 % of the calls"),
        "{text}"
    );
}

/// The tiers of merged sources, each divided among the zones.
#[test]
fn sources_in_order_have_their_zones_each() {
    let (_a, near) = small_home();
    let (mut writer, far) = registry_of(cluster(1, 6).chain(cluster(2, 6)));
    writer.publish(
        cluster(1, 6).chain(cluster(2, 6)).map(|i| {
            instance(&i.address().to_string().replace("10.", "11."))
                .with_cluster(i.cluster().to_string())
        }),
        now(),
    );
    let merged = Subscription::merge([(near, 0), (far, 1)]);
    let zones = ZoneAware::new("HZ").caller_shares([("HZ", 1.0), ("SH", 1.0), ("BJ", 1.0)]);
    let dead = |i: &Instance| i.address().to_string().starts_with("10.");
    let builder = || Balance::builder(&merged).zone_aware(zones.clone());
    let expected = [("HZ", 0.6), ("SH", 0.2), ("BJ", 0.2)];
    assert_shares(&shares(&start(builder(), alive), CALLS), &expected);
    let second = start(builder(), dead);
    shares(&second, 200);
    assert_shares(&shares(&second, CALLS), &[("HZ", 1.0)]);
}

#[tokio::test]
async fn what_cannot_be_meant_is_said_by_try_build_and_left_out_by_build() {
    let (_writer, orders) = small_home();
    let given =
        |shares: &[(&'static str, f64)]| ZoneAware::new("HZ").caller_shares(shares.iter().copied());
    let wrong = [
        (ZoneAware::new("HZ"), "without callers(..)"),
        (
            ZoneAware::new("").callers(&orders),
            "without a name of the own zone",
        ),
        (given(&[]), "no share of the callers there"),
        (
            given(&[("HZ", 0.0), ("SH", 1.0)]),
            "no share of the callers there",
        ),
        (
            given(&[("HZ", 1.0), ("SH", f64::NAN)]),
            "a share of NaN of the callers in \"SH\"",
        ),
        (given(&[("HZ", -1.0)]), "a share of -1 of the callers"),
        (
            given(&[("HZ", f64::INFINITY)]),
            "a share of inf of the callers",
        ),
        (given(&[("HZ", f64::MAX), ("SH", f64::MAX)]), "have no sum"),
        (
            given(&[("HZ", 1.0)]).routing_enabled(f64::NAN),
            "for NaN % of the calls",
        ),
        (
            given(&[("HZ", 1.0)]).routing_enabled(101.0),
            "for 101 % of the calls",
        ),
    ];
    for (zones, reason) in wrong {
        let (logs, _guard) = Logs::begin();
        let builder = Balance::builder(&orders).zone_aware(zones.clone());
        let error = builder.check().unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
        let channel = grpc::Channel::builder(&orders).zone_aware(zones.clone());
        let error = channel.try_build().unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
        let nacos = tower_nacos::Client::connect_lazy("127.0.0.1:1").unwrap();
        let client = http::Client::builder(&nacos).zone_aware(zones);
        let error = client.try_build().unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
        let by_weight = [("HZ", 0.2), ("SH", 0.4), ("BJ", 0.4)];
        assert_shares(&shares(&start(builder, alive), CALLS), &by_weight);
        let text = logs.text();
        assert_eq!(text.matches("ignored: zone_aware").count(), 1, "{text}");
    }
    let (logs, _guard) = Logs::begin();
    let both = Balance::builder(&orders)
        .zone_aware(given(&[("HZ", 1.0), ("SH", 1.0)]))
        .prefer_cluster("SH");
    let error = both.check().unwrap_err().to_string();
    assert!(
        error.contains("prefer_cluster(\"SH\") beside zone_aware"),
        "{error}"
    );
    assert_shares(&shares(&start(both, alive), CALLS), &[("SH", 1.0)]);
    assert!(
        logs.text().contains("ignored: prefer_cluster"),
        "{}",
        logs.text()
    );
}

#[test]
fn of_a_hundred_zones_those_beyond_64_are_one() {
    let zone = |at: usize| {
        let instance = instance(&format!("10.7.{at}.1:80"));
        instance.with_cluster(format!("Z{at:03}"))
    };
    let (_writer, orders) = registry_of((0..100).map(zone));
    let callers = (0..100).map(|at| (format!("Z{at:03}"), if at == 50 { 2.0 } else { 1.0 }));
    let zones = ZoneAware::new("Z050").caller_shares(callers.collect::<Vec<_>>());
    let balance = start(Balance::builder(&orders).zone_aware(zones), alive);
    let shares = shares(&balance, CALLS);
    assert_eq!(shares.len(), 100, "what does not fit goes everywhere");
    assert!(
        (shares["Z050"] - 0.505).abs() < TOLERANCE,
        "{}",
        shares["Z050"]
    );
    for zone in ["Z000", "Z063", "Z064", "Z099"] {
        assert!(
            (shares[zone] - 0.005).abs() < 0.002,
            "{zone} {}",
            shares[zone]
        );
    }
}

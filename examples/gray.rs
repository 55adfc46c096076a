//! A gray release in two data centres: calls stay at home, some requests go to the new version
//! first, some to it only, and when home is lost the other data centre takes over without a pause.
//! And by share: 5 % of the users get the new version, then half of them, while calls go on.
//!
//! `cargo run --example gray`

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use tower::{ServiceExt, service_fn};
use tower_nacos::{
    Balance, Instance, ServiceKey,
    balance::{Hints, Selector, Shares, TrafficSplit, stable_hash},
    directory,
};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// What a request says of its user; an HTTP client would put [`Hints`] into the extensions.
#[derive(Clone, Copy)]
enum User {
    Ordinary,
    Tester,
    Auditor,
}

fn instance(address: &str, cluster: &str, version: &str) -> Result<Instance, Error> {
    let metadata = [("version", version)].into_iter().collect();
    let instance = Instance::parse(address)?.with_cluster(cluster);
    Ok(instance.with_metadata(metadata))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    // In the place of a registry: `client.subscribe("orders").await?` is the real one.
    let key = ServiceKey::new("public", "orders".parse()?)?;
    let (mut writer, orders) = directory::channel(key, directory::Options::default());

    // Made once; a clone for a request allocates nothing.
    let gray = Selector::from(("version", "gray"));
    let tester = Hints::new().prefer(gray.clone());
    let auditor = Hints::new().only(gray);
    let balance = Balance::builder(&orders)
        .prefer_cluster("HZ")
        .hints(move |user: &User| match user {
            User::Ordinary => Hints::new().prefer(("version", "1")),
            User::Tester => tester.clone(),
            User::Auditor => auditor.clone(),
        })
        .build(|instance: &Instance| {
            let address = instance.address().to_string();
            service_fn(move |_: User| {
                let address = address.clone();
                async move { Ok::<_, io::Error>(address) }
            })
        });

    let home = [
        instance("10.1.0.1:80", "HZ", "1")?,
        instance("10.1.0.2:80", "HZ", "1")?,
        instance("10.1.0.3:80", "HZ", "gray")?,
    ];
    let other = [
        instance("10.2.0.1:80", "SH", "1")?,
        instance("10.2.0.2:80", "SH", "1")?,
    ];
    #[expect(clippy::disallowed_methods, reason = "the program's own clock")]
    let now = std::time::Instant::now;

    let called = async |user: User| {
        let mut called = BTreeMap::<String, u32>::new();
        for _ in 0..1_000 {
            match balance.clone().oneshot(user).await {
                Ok(address) => *called.entry(address).or_default() += 1,
                Err(error) => return Err(error),
            }
        }
        Ok(called)
    };

    writer.publish(home.iter().chain(&other).cloned(), now());
    let ordinary = called(User::Ordinary).await?;
    let tester = called(User::Tester).await?;
    println!("all is well: ordinary {ordinary:?}, tester {tester:?}");
    assert!(
        ordinary
            .keys()
            .all(|a| a == "10.1.0.1:80" || a == "10.1.0.2:80")
    );
    assert!(tester.keys().eq(["10.1.0.3:80"]));

    // The gray instance goes: testers get the old version, auditors an error that says so. Home is
    // down to two of three, so it gets 1.4 × 2 ÷ 3 = 93 % of what asks for no version.
    writer.publish(home[..2].iter().chain(&other).cloned(), now());
    let tester = called(User::Tester).await?;
    let error = called(User::Auditor).await.unwrap_err();
    println!("no gray instance: tester {tester:?}\n  auditor: {error}");
    let at_home = tester["10.1.0.1:80"] + tester["10.1.0.2:80"];
    assert!(error.is_no_match() && (900..970).contains(&at_home));

    // Of the two with version 1 at home one is left: 1.4 × 1 ÷ 2 = 70 %, and not all the calls.
    writer.publish(home[..1].iter().chain(&other).cloned(), now());
    let ordinary = called(User::Ordinary).await?;
    println!("one of two at home: {ordinary:?}");
    assert!((640..760).contains(&ordinary["10.1.0.1:80"]));
    println!("  {}", balance.explain(&"10.2.0.1:80".parse()?));

    // Home is gone: the other cluster takes all, in the same snapshot.
    writer.publish(other.iter().cloned(), now());
    println!("home is gone: {:?}", called(User::Ordinary).await?);

    // By share, in place of by request: a user sticks to a version, and the 5 % are among the 50 %.
    writer.publish(home.iter().chain(&other).cloned(), now());
    let split = TrafficSplit::new("version=gray: 5 %, *: 95 %".parse()?);
    let by_share = Balance::builder(&orders)
        .split(&split)
        .hash_key(|user: &u64| Some(stable_hash(&user.to_le_bytes())))
        .build(|instance: &Instance| {
            let gray = instance.metadata().get("version") == Some("gray");
            service_fn(move |user: u64| async move { Ok::<_, io::Error>(gray.then_some(user)) })
        });
    let users = async || {
        let mut gray = BTreeSet::new();
        for user in 0..2_000 {
            gray.extend(by_share.clone().oneshot(user).await?);
        }
        Ok::<_, Error>(gray)
    };
    let few = users().await?;
    split.set("version=gray: 50 %, *: 50 %".parse()?);
    let half = users().await?;
    let of = half.len();
    println!(
        "of 2,000 users {} get the new version, and then {of}",
        few.len()
    );
    assert!((60..140).contains(&few.len()) && few.is_subset(&half));
    assert!((900..1_100).contains(&of));
    let wrong = "version=gray: 5 %, *: 90 %".parse::<Shares>();
    if let Err(error) = wrong {
        println!("a mistake is refused: {error}");
    }
    println!("gray: ok");
    Ok(())
}

//! What each policy does with the same instances: weights 4, 2 and 1, of which the last is slow.
//!
//! `cargo run --example policies`

use std::{collections::BTreeMap, io, time::Duration};

use futures_util::{StreamExt, stream};
use tower::{BoxError, ServiceExt, service_fn};
use tower_nacos::{
    Balance, Instance, Subscription,
    balance::{Hints, Maglev, P2c, PeakEwma, Policy, WeightedRandom, WeightedRoundRobin},
};

const WEIGHTS: [(&str, f64); 3] = [("10.0.0.1:80", 4.0), ("10.0.0.2:80", 2.0), (SLOW, 1.0)];
const SLOW: &str = "10.0.0.3:80";
const CALLS: u32 = 2_000;

/// A request: whose it is.
type User = u32;

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), BoxError> {
    println!("share of {CALLS} calls, 32 at a time      4     2     1 (slow)");
    shares("P2c", P2c::default()).await?;
    let swift = shares("PeakEwma", PeakEwma::new()).await?;
    shares("WeightedRandom", WeightedRandom::new()).await?;
    let exact = shares("WeightedRoundRobin", WeightedRoundRobin::new()).await?;
    shares("Maglev, by user", Maglev::new()).await?;
    assert!(
        swift[2] < exact[2] / 2.0,
        "peak EWMA turns from what is slow"
    );
    assert!((exact[0] - 4.0 / 7.0).abs() < 0.01, "round robin is exact");

    // A key sticks to its instance, and only the keys of one that leaves move.
    let before = homes(&WEIGHTS).await?;
    let after = homes(&WEIGHTS[1..]).await?;
    let others = before.iter().filter(|(_, home)| *home != WEIGHTS[0].0);
    let moved = others.filter(|(user, home)| after[user] != **home).count();
    println!(
        "Maglev, one of three left: {moved} of {} keys of the others moved",
        before.len()
    );
    assert!(moved < before.len() / 10);
    println!("policies: ok moved={moved}");
    Ok(())
}

fn instances(weights: &[(&str, f64)]) -> Result<Subscription, BoxError> {
    let listed = weights.iter();
    let listed = listed.map(|(at, weight)| Ok(Instance::parse(at)?.with_weight(*weight)));
    Ok(Subscription::fixed(
        listed.collect::<Result<Vec<_>, BoxError>>()?,
    ))
}

/// A balancer that tells which instance it took. Only Maglev looks at the key.
macro_rules! balance {
    ($orders:expr, $policy:expr) => {
        Balance::builder($orders)
            .policy($policy)
            .hints(|user: &User| Hints::new().key(user.to_be_bytes()))
            .build(|instance: &Instance| {
                let address = instance.address().to_string();
                let takes = if address == SLOW { 100 } else { 5 };
                service_fn(move |_: User| {
                    let address = address.clone();
                    async move {
                        tokio::time::sleep(Duration::from_millis(takes)).await;
                        Ok::<_, io::Error>(address)
                    }
                })
            })
    };
}

async fn shares<P: Policy>(name: &str, policy: P) -> Result<[f64; 3], BoxError> {
    let orders = instances(&WEIGHTS)?;
    let balance = balance!(&orders, policy);
    let calls = stream::iter(0..CALLS).map(|user| balance.clone().oneshot(user));
    let mut calls = calls.buffer_unordered(32);
    let mut counts = [0.0; 3];
    while let Some(address) = calls.next().await {
        let address = address?;
        let at = WEIGHTS.iter().position(|(listed, _)| *listed == address);
        counts[at.ok_or("an instance that is not listed")?] += 1.0 / f64::from(CALLS);
    }
    let [a, b, c] = counts.map(|share| share * 100.0);
    println!("{name:36} {a:4.0}% {b:4.0}% {c:4.0}%");
    Ok(counts)
}

/// Where each user's calls go.
async fn homes(weights: &[(&str, f64)]) -> Result<BTreeMap<User, String>, BoxError> {
    let orders = instances(weights)?;
    let balance = balance!(&orders, Maglev::new());
    let mut homes = BTreeMap::new();
    for user in 0..500 {
        let home = balance.clone().oneshot(user).await?;
        assert_eq!(balance.clone().oneshot(user).await?, home, "a key sticks");
        homes.insert(user, home);
    }
    Ok(homes)
}

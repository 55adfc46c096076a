//! Instances that answer badly, and instances that are new: the first get no call for a while, the
//! second get theirs little by little.
//!
//! `cargo run --example outliers`

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tower::{ServiceExt, service_fn};
use tower_nacos::{
    Balance, Instance, ServiceKey,
    balance::{Outliers, SlowStart},
    directory,
    endpoint::Outcome,
};

const BROKEN: &str = "10.0.0.3:80";
const NEW: &str = "10.0.0.4:80";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    // In the place of a registry: `client.subscribe("orders").await?` is the real one.
    let key = ServiceKey::new("public", "orders".parse()?)?;
    let (mut writer, orders) = directory::channel(key, directory::Options::default());
    let asked = Arc::new([AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0)]);
    let counts = Arc::clone(&asked);
    let balance = Balance::builder(&orders)
        .slow_start(SlowStart::new().window(Duration::from_secs(2)))
        // With `http::Response` this would look at `response.status()`.
        .outliers(
            Outliers::new(),
            |result: Result<&u16, &io::Error>| match result {
                Ok(500..) => Outcome::Failure,
                Ok(_) => Outcome::Success,
                Err(_) => Outcome::Failure,
            },
        )
        .build(move |instance: &Instance| {
            let (address, asked) = (instance.address().to_string(), Arc::clone(&counts));
            service_fn(move |(): ()| {
                let (of, status) = match &*address {
                    BROKEN => (1, 503),
                    NEW => (2, 200),
                    _ => (0, 200),
                };
                asked[of].fetch_add(1, Relaxed);
                async move { Ok::<u16, io::Error>(status) }
            })
        });
    let old = ["10.0.0.1:80", "10.0.0.2:80", BROKEN];
    let list = |addresses: &[&str]| addresses.iter().map(|a| Instance::parse(a)).collect();
    let list: Result<Vec<_>, _> = list(&old);
    let old = list?;
    #[expect(clippy::disallowed_methods, reason = "the program's own clock")]
    let now = std::time::Instant::now;
    let calls = async || {
        let before = asked.each_ref().map(|n| n.load(Relaxed));
        for _ in 0..3_000 {
            balance.clone().oneshot(()).await?;
        }
        let after = asked.each_ref().map(|n| n.load(Relaxed));
        Ok::<_, tower::BoxError>([0, 1, 2].map(|at| after[at] - before[at]))
    };

    writer.publish(old.iter().cloned(), now());
    let [_, broken, _] = calls().await?;
    println!("of 3000 calls the broken one got {broken}");
    println!("  {}", balance.explain(&BROKEN.parse()?));
    assert_eq!(broken, 5);

    writer.publish(old.iter().cloned().chain([Instance::parse(NEW)?]), now());
    for _ in 0..4 {
        let [_, _, new] = calls().await?;
        println!("the new one got {new}: {}", balance.explain(&NEW.parse()?));
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    let [others, _, new] = calls().await?;
    println!("and then {new}, the two others {others}");
    assert!((900..1_100).contains(&new));
    println!("outliers: ok");
    Ok(())
}

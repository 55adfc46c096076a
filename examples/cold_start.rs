//! A process that starts while its registry is away: what the process before it knew serves, from
//! the first call on, until the registry is back.
//!
//! `cargo run --example cold_start`

use std::time::{Duration, Instant};

use tokio::{net::TcpListener, time::timeout};
use tower_nacos::{
    Client, Instance,
    client::StartFrom,
    directory::{Origin, Status},
    http,
    testing::Registry,
};

type Error = Box<dyn std::error::Error + Send + Sync>;

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::main]
#[expect(clippy::disallowed_methods, reason = "a program has a clock and tasks")]
async fn main() -> Result<(), Error> {
    // The embedded registry, so that it can be away; and a provider.
    let registry = Registry::start().await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let provider = Instance::from(listener.local_addr()?);
    let app = axum::Router::new().fallback(async || "served\n");
    tokio::spawn(async move { axum::serve(listener, app).await });
    registry.register_as("provider", "orders", [&provider]);

    let folder =
        std::env::temp_dir().join(format!("tower-nacos-cold-start-{}", std::process::id()));
    let builder = || {
        Client::builder()
            .servers(registry.addr())
            .cache_dir(&folder)
            .start_from(StartFrom::CacheThenRegistry)
    };

    // The first process of all finds no file, and waits for the registry.
    let first = builder().connect().await?;
    let orders = first.subscribe("orders").await?;
    println!(
        "the first process: {}, {:?}",
        orders.status(),
        orders.origin()
    );
    assert!(orders.origin() != Some(Origin::Disk));
    first.close(MINUTE).await?;
    drop(orders);

    registry.stop().await;
    println!("the registry is away");

    let began = Instant::now();
    let second = builder().connect().await?;
    let http = http::Client::new(&second);
    let answer = http.get("nacos://orders/v1/items/7").await?;
    println!(
        "the second process: {} {:?} after it began",
        answer.status(),
        began.elapsed()
    );
    assert!(answer.status().is_success() && !second.state().is_connected());
    let orders = second.subscribe("orders").await?;
    assert_eq!(orders.origin(), Some(Origin::Disk));
    if let Status::Stale { since } = orders.status() {
        println!("what it goes by is {:?} old", since.elapsed());
    }

    // Back, and without data as after a restart: the set is held until the provider is back, too.
    registry.resume().await?;
    timeout(
        MINUTE,
        second.watch_state().wait_for(|state| state.is_connected()),
    )
    .await??;
    assert!(
        http.get("nacos://orders/v1/items/7")
            .await?
            .status()
            .is_success()
    );
    registry.register_as("provider", "orders", [&provider]);
    let mut changes = orders.status_changes();
    while let Some(status) = timeout(MINUTE, changes.next()).await? {
        println!("the registry is back: {status}");
        if status == Status::Fresh {
            break;
        }
    }
    assert!(
        http.get("nacos://orders/v1/items/7")
            .await?
            .status()
            .is_success()
    );
    second.close(MINUTE).await?;
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

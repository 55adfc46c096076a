//! A service moves from one registry to another while its callers call, and they are not restarted: their set
//! is both registries' as one. Says where each answer came from, and ends with a line that begins
//! `moving: ok` if no call failed.
//!
//! `OLD_SERVER=host:8848 NEW_SERVER=host:8848` to use registries of yours.

use std::{
    env,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::Router;
use tokio::{net::TcpListener, task::JoinSet};
use tower_nacos::{Client, Instance, Subscription, http, testing::Registry};

type Error = Box<dyn std::error::Error + Send + Sync>;

const SERVICE: &str = "orders";

#[tokio::main]
async fn main() -> Result<(), Error> {
    let here = [Registry::start().await?, Registry::start().await?];
    let addresses = [("OLD_SERVER", 0), ("NEW_SERVER", 1)]
        .map(|(variable, at)| env::var(variable).unwrap_or_else(|_| here[at].addr()));
    let [old, new] = [connect("old", &addresses[0]), connect("new", &addresses[1])];
    let (old, new) = (old.await?, new.await?);

    // The callers' side, once and for all. One tier: in a better one the first to move would get all calls.
    let sources = [
        (old.subscribe(SERVICE).await?, 0),
        (new.subscribe(SERVICE).await?, 0),
    ];
    let orders = Subscription::merge(sources);
    let of_all = orders.clone();
    let caller = http::Client::builder(&old)
        .subscribe_by(move |_| Ok(of_all.clone()))
        .build();

    // Two providers, each registered where they always were.
    let (mut serving, mut providers) = (JoinSet::new(), Vec::new());
    for _ in 0..2 {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let instance = Instance::from(listener.local_addr()?);
        let app = Router::new().fallback(async || "an order");
        serving.spawn(async move { axum::serve(listener, app).await });
        let client = connect("provider", &addresses[0]).await?;
        client.register(SERVICE, instance.clone()).await?;
        providers.push((instance, client));
    }
    orders.wait_for(2, Duration::from_secs(10)).await?;

    let stop = Arc::new(AtomicBool::new(false));
    let [calls, failed] = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
    let mut calling = JoinSet::new();
    calling.spawn({
        let (stop, calls, failed) = (stop.clone(), calls.clone(), failed.clone());
        async move {
            while !stop.load(Relaxed) {
                let answer = caller.get("nacos://orders/").await;
                calls.fetch_add(1, Relaxed);
                if let Err(error) = answer {
                    failed.fetch_add(1, Relaxed);
                    eprintln!("{error}");
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    });

    let mut moved = Vec::new();
    // First it is in both, then it leaves: to callers it is one endpoint all the time.
    for (instance, former) in providers {
        println!("{}", orders.explain(instance.address()));
        let client = connect("provider", &addresses[1]).await?;
        client.register(SERVICE, instance.clone()).await?;
        until(&new, &instance, true).await?;
        former.deregister(SERVICE).await?;
        until(&old, &instance, false).await?;
        println!("{}", orders.explain(instance.address()));
        moved.push(client); // registered for as long as that lives
    }
    drop(here.into_iter().next()); // the old registry is switched off
    old.close(Duration::from_secs(3)).await?;
    tokio::time::sleep(Duration::from_millis(200)).await; // some more calls
    stop.store(true, Relaxed);
    while let Some(ended) = calling.join_next().await {
        ended?;
    }
    let (calls, failed) = (calls.load(Relaxed), failed.load(Relaxed));
    if failed > 0 {
        return Err(format!("{failed} of {calls} calls failed").into());
    }
    println!("moving: ok: {calls} calls, none failed, none restarted");
    Ok(())
}

async fn connect(name: &str, server: &str) -> Result<Client, Error> {
    let builder = Client::builder().servers(server).client_name(name);
    Ok(builder.connect().await?)
}

/// Waits until a registry's subscribers have heard that an instance is there, or is not.
async fn until(nacos: &Client, instance: &Instance, there: bool) -> Result<(), Error> {
    let orders = nacos.subscribe(SERVICE).await?;
    let heard = async {
        let mut changes = orders.changes();
        while orders.snapshot().find(instance.address()).is_some() != there {
            changes.next().await;
        }
    };
    Ok(tokio::time::timeout(Duration::from_secs(10), heard).await?)
}

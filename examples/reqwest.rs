//! Calls a service by its name with reqwest, which is no tower service: `pick()` says whom to call,
//! and the lease that it returns counts the call and takes its outcome.
//!
//! `cargo run --example reqwest`

#![expect(clippy::disallowed_methods, reason = "a program spawns tasks")]

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{Router, routing::get};
use tokio::{net::TcpListener, time::timeout};
use tower_nacos::{
    Balance, Client, Instance, balance::Picker, endpoint::Verdict, model::Address,
    testing::Registry,
};

type Error = Box<dyn std::error::Error + Send + Sync>;

const CALLS: u32 = 300;
const HANG: Duration = Duration::from_secs(30);

/// What this example is about: one call of the service.
async fn call(http: &reqwest::Client, orders: &Picker, path: &str) -> Result<String, Error> {
    loop {
        let mut lease = orders.pick().await?;
        match http
            .get(format!("http://{}{path}", lease.address()))
            .send()
            .await
        {
            Ok(response) => {
                lease.succeeded();
                return Ok(response.text().await?); // in flight until the body is read
            }
            Err(error) if error.is_connect() => {
                // Nothing was sent. The instance is left out from here on, and another is picked,
                // until there is none: then `pick` says what happened to the last.
                lease.failed(Verdict::unreachable(&error));
            }
            Err(error) => {
                lease.failed(Verdict::Reachable);
                return Err(error.into());
            }
        }
    }
}

/// A provider: an HTTP server that says its name, and its registration.
struct Provider {
    nacos: Client,
    address: Address,
    served: Arc<AtomicU64>,
}

impl Provider {
    async fn start(name: &'static str, server: &str) -> Result<Self, Error> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let served = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&served);
        let says = move || {
            count.fetch_add(1, SeqCst);
            async move { name }
        };
        let router = Router::new().route("/v1/whoami", get(says));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let nacos = Client::connect(server).await?;
        let address = Address::from(address);
        let instance = Instance::new(address.clone());
        nacos.register("orders", instance).await?;
        Ok(Self {
            nacos,
            address,
            served,
        })
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let registry = Registry::start().await?;
    let server = registry.addr();
    let a = Provider::start("a", &server).await?;
    let b = Provider::start("b", &server).await?;

    let nacos = Client::connect(&*server).await?;
    let subscription = nacos.subscribe("orders").await?;
    subscription.wait_for(2, HANG).await?;
    let orders = Balance::builder(&subscription).picker();
    let http = reqwest::Client::new();

    let mut who = BTreeMap::<String, u32>::new();
    for _ in 0..CALLS {
        *who.entry(call(&http, &orders, "/v1/whoami").await?)
            .or_default() += 1;
    }
    println!("two providers: {who:?}");
    assert_eq!(who.len(), 2);

    // Somebody listed who does not answer: found by the first call, gone from the second on.
    let dead = TcpListener::bind("127.0.0.1:0").await?.local_addr()?; // closed again
    let owner = Client::connect(&*server).await?;
    owner
        .register("orders", Instance::parse(&dead.to_string())?)
        .await?;
    subscription.wait_for(3, HANG).await?;
    for _ in 0..CALLS {
        call(&http, &orders, "/v1/whoami").await?;
    }
    println!("{}", orders.explain(&dead.to_string().parse()?));

    // One goes offline in the registry and would still answer.
    b.nacos.deregister("orders").await?;
    timeout(HANG, subscription.wait_gone(&b.address)).await??;
    let before = b.served.load(SeqCst);
    for _ in 0..CALLS {
        assert_eq!(call(&http, &orders, "/v1/whoami").await?, "a");
    }
    let after = b.served.load(SeqCst) - before;
    let calls = a.served.load(SeqCst) + b.served.load(SeqCst);
    assert_eq!(after, 0);
    println!("reqwest: ok calls={calls} failed=0 after_eviction={after}");
    Ok(())
}

//! The status page of a process that calls: three providers, one of which is killed while it runs.
//!
//! `cargo run --example status` serves it until Ctrl-C and prints where; `-- --once` asks for its own page,
//! checks what that says, and ends with a line that begins `status: ok`. `STATUS_PORT=8080` for a port of yours.

use std::{env, net::SocketAddr, time::Duration};

use axum::{Router, routing::get};
use serde_json::Value;
use tokio::{net::TcpListener, runtime::Runtime, sync::oneshot, time::sleep};
use tower_nacos::{Client, http, status::StatusPage, testing::Registry};

type Error = Box<dyn std::error::Error + Send + Sync>;

const SERVICE: &str = "example-orders";

/// A server with a runtime of its own, so that it dies as a process does: with its connections.
struct Provider {
    address: SocketAddr,
    nacos: Client,
    runtime: Option<Runtime>,
}

impl Provider {
    async fn start(server: &str, address: SocketAddr) -> Result<Self, Error> {
        let listener = TcpListener::bind(address).await?.into_std()?;
        let address = listener.local_addr()?;
        let nacos = Client::connect(server).await?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let app = Router::new().route("/items", get(async || "a pen"));
        runtime.spawn(async move { axum::serve(TcpListener::from_std(listener)?, app).await });
        let provider = Self {
            address,
            nacos,
            runtime: Some(runtime),
        };
        provider.nacos.register(SERVICE, address.into()).await?;
        Ok(provider)
    }

    /// Without a word to the registry, which goes on listing it for as long as the client lives.
    fn kill(self) -> (SocketAddr, Client) {
        (self.address, self.nacos.clone())
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let once = env::args().any(|argument| argument == "--once");
    let registry = Registry::start().await?;
    let mut providers = Vec::new();
    for _ in 0..3 {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        providers.push(Provider::start(&registry.addr(), any).await?);
    }
    let nacos = Client::connect(&registry.addr()).await?;
    let http = http::Client::new(&nacos);
    http.service(SERVICE)?.subscription().ready().await?;

    let status = StatusPage::new(&nacos).with(&http);
    let port = env::var("STATUS_PORT")
        .ok()
        .map_or(Ok(0), |port| port.parse())?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let page = format!("http://{}/nacos", listener.local_addr()?);
    let app = Router::new().nest_service("/nacos", status.clone());
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = axum::serve(listener, app).with_graceful_shutdown(async move {
        let _ = stopped.await;
        status.close(); // pages that listen hold connections
    });
    #[expect(clippy::disallowed_methods, reason = "awaited below")]
    let serving = tokio::spawn(serving.into_future());
    println!("the page: {page}");

    let caller = http.clone();
    #[expect(clippy::disallowed_methods, reason = "it calls until the process ends")]
    let calling = tokio::spawn(async move {
        loop {
            if let Err(error) = caller.get(format!("nacos://{SERVICE}/items")).await {
                println!("{error}");
            }
            sleep(Duration::from_millis(20)).await;
        }
    });

    if once {
        sleep(Duration::from_millis(300)).await;
        let (killed, registered) = providers.remove(0).kill();
        println!("killed {killed}");
        let shown = ask_until(&page, |shown| {
            let mut events = shown["timeline"].as_array().into_iter().flatten();
            events
                .any(|event| event["kind"] == "ejected" && event["instance"] == killed.to_string())
        })
        .await?;
        let instances = shown["service"]["instances"]["items"].as_array();
        let is_killed = |i: &&Value| i["address"] == killed.to_string();
        let shown = instances
            .and_then(|all| all.iter().find(is_killed))
            .ok_or("it is not listed")?;
        let why = &shown["consumers"][0]["why"];
        println!("{killed}: {why}");
        assert_eq!(shown["state"], "ejected");
        let html = reqwest::get(format!("{page}/?service={SERVICE}"))
            .await?
            .text()
            .await?;
        assert!(html.contains(&killed.to_string()) && html.contains("ejected"));
        drop(registered);
        calling.abort();
        let _ = stop.send(());
        serving.await??;
        println!("status: ok {} bytes of HTML, {why}", html.len());
        return Ok(());
    }

    println!("every 15 s a provider is killed, or is back; Ctrl-C ends it");
    loop {
        let (killed, registered) = tokio::select! {
            _ = tokio::signal::ctrl_c() => break,
            () = sleep(Duration::from_secs(15)) => providers.remove(0).kill(),
        };
        println!("killed {killed}");
        tokio::select! {
            _ = tokio::signal::ctrl_c() => break,
            () = sleep(Duration::from_secs(15)) => {}
        }
        drop(registered);
        providers.push(Provider::start(&registry.addr(), killed).await?);
        println!("started {killed}");
    }
    let _ = stop.send(());
    serving.await??;
    Ok(())
}

/// Asks the page until it says so.
async fn ask_until(page: &str, so: impl Fn(&Value) -> bool) -> Result<Value, Error> {
    for _ in 0..1_000 {
        let text = reqwest::get(format!("{page}?service={SERVICE}&format=json"))
            .await?
            .text()
            .await?;
        let shown = serde_json::from_str(&text)?;
        if so(&shown) {
            return Ok(shown);
        }
        sleep(Duration::from_millis(20)).await;
    }
    Err("the page does not say so within 20 s".into())
}

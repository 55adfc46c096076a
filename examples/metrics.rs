//! What a process tells of its calls, as Prometheus reads it: `tower_nacos::metrics` through
//! `metrics-exporter-prometheus`. Prints the scrape alone, so that it can be piped:
//! `cargo run --example metrics | promtool check metrics`.
//!
//! On a registry and providers of its own: one answers badly, one is gone and still listed, one goes offline
//! while calls go on, and a service is called that nobody provides.

use std::time::Duration;

use axum::{Router, http::StatusCode, routing::get};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use tokio::net::TcpListener;
use tower_nacos::{Client, Instance, http, metrics::BUCKETS, provider, testing::Registry};

type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    // Before the first client is built, which describes the names. In a program that is scraped this is
    // `.with_http_listener(([0, 0, 0, 0], 9000)).install()`.
    let scrape = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Prefix("tower_nacos_".to_owned()), &BUCKETS)?
        .install_recorder()?;

    let registry = Registry::builder().push_delay(None).start().await?;
    let nacos = Client::connect(registry.addr()).await?;
    let client = http::Client::builder(&nacos)
        .balance(|service| service.request_durations())
        .build();

    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let leaving = serve(
        &registry,
        StatusCode::OK,
        async move { drop(stopped.await) },
    )
    .await?;
    let staying = serve(&registry, StatusCode::OK, std::future::pending()).await?;
    let bad = serve(
        &registry,
        StatusCode::INTERNAL_SERVER_ERROR,
        std::future::pending(),
    )
    .await?;
    let closed = TcpListener::bind("127.0.0.1:0").await?;
    let gone = Instance::parse(&closed.local_addr()?.to_string())?;
    drop(closed);
    registry.register("orders", &gone);
    client.get("nacos://orders/").await?; // the first waits for the list
    let orders = client.service("orders")?;
    orders
        .subscription()
        .wait_for(4, Duration::from_secs(20))
        .await?;
    for _ in 0..200 {
        client.get("nacos://orders/").await?;
    }
    let _ = stop.send(());
    leaving.await?;
    for _ in 0..50 {
        client.get("nacos://orders/").await?;
    }
    let nobody = client.get("nacos://nobody-has-this/").await;
    if nobody.is_ok() {
        return Err("who answered?".into());
    }
    // What calls count is read when something changes, every 10 s, and when a balancer goes.
    drop((client, orders));
    while !scrape
        .render()
        .contains("tower_nacos_request_duration_seconds_bucket")
    {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let rendered = scrape.render();
    staying.abort();
    bad.abort();
    print!("{rendered}");
    Ok(())
}

/// A provider of `orders` that answers with this, until `stop` has ended and its callers know.
async fn serve(
    registry: &Registry,
    answer: StatusCode,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<tokio::task::JoinHandle<()>, Error> {
    let app = Router::new().route("/", get(async move || answer));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let nacos = Client::connect(registry.addr()).await?;
    let serving = provider::serve(&nacos, "orders", listener, app).with_graceful_offline(stop);
    #[expect(
        clippy::disallowed_methods,
        reason = "the program's own task, awaited or ended by it"
    )]
    let serving = tokio::spawn(async move {
        if let Err(error) = serving.await {
            eprintln!("a provider ended: {error}");
        }
    });
    Ok(serving)
}

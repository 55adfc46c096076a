use std::time::Duration;

use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::support::{get, json, kinds, of};
use crate::{Client, http, model::Instance, status::StatusPage, testing::Registry};

/// Asks until it is so.
async fn until(status: &StatusPage, uri: &str, so: impl Fn(&Value) -> bool) -> Value {
    let asked = async {
        loop {
            let page = json(status, uri).await;
            if so(&page) {
                return page;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(60), asked)
        .await
        .expect("it becomes so")
}

#[tokio::test]
async fn a_registry_that_goes_and_comes_back_is_told() {
    let registry = Registry::start().await.unwrap();
    registry.register("orders", &Instance::parse("127.0.0.1:9001").unwrap());
    let nacos = Client::connect(&registry.addr()).await.unwrap();
    let orders = nacos.subscribe("orders").await.unwrap();
    let status = StatusPage::new(&nacos);
    let page = json(&status, "/").await;
    let shown = &page["registries"][0];
    assert_eq!(
        (&shown["state"], &shown["services"]),
        (&"connected".into(), &1.into())
    );
    assert_eq!(shown["servers"].as_array().unwrap().len(), 1);
    assert_eq!(shown["last_error"], Value::Null);
    let service = of(&page["services"]["items"], "name", "orders");
    assert_eq!(
        (&service["registry"], &service["status"]),
        (&1.into(), &"fresh".into())
    );

    registry.stop().await;
    let page = until(&status, "/", |page| {
        page["registries"][0]["last_error"] != Value::Null
    })
    .await;
    assert_eq!(page["registries"][0]["state"], "connecting");
    assert!(kinds(&page).contains(&"disconnected".to_owned()));
    until(&status, "/", |page| {
        page["services"]["items"][0]["status"] == "stale"
    })
    .await;
    assert!(get(&status, "/").await.text.contains("Last error"));

    registry.restart().await.unwrap();
    let page = until(&status, "/", |page| {
        page["registries"][0]["state"] == "connected"
    })
    .await;
    assert!(kinds(&page).contains(&"connected".to_owned()));

    // What nobody wants is let go of, whoever looks at it.
    drop(orders);
    let page = until(&status, "/", |page| page["services"]["total"] == 0).await;
    assert_eq!(kinds(&page)[0], "unsubscribed");
    nacos.close(Duration::from_secs(5)).await.unwrap();
    let page = json(&status, "/").await;
    assert_eq!(page["registries"][0]["state"], "closed");
}

#[tokio::test]
async fn how_quickly_a_registry_answers_and_tells_is_shown() {
    let registry = Registry::start().await.unwrap();
    let nacos = Client::connect(&registry.addr()).await.unwrap();
    let orders = nacos.subscribe("orders").await.unwrap();
    orders.ready().await.unwrap();
    let status = StatusPage::new(&nacos);
    let known = |page: &Value, name: &str| page["registries"][0][name].as_f64().is_some();
    let page = json(&status, "/").await;
    for name in ["latency_ms", "latency_smoothed_ms"] {
        assert!(known(&page, name), "{page:#}");
    }
    assert_eq!(page["registries"][0]["push_delay_ms"], Value::Null);
    assert!(get(&status, "/").await.text.contains("no push yet"));

    registry.register("orders", &Instance::parse("127.0.0.1:9001").unwrap());
    let page = until(&status, "/", |page| known(page, "push_delay_ms")).await;
    for name in ["push_delay_smoothed_ms", "push_delay_error_ms"] {
        assert!(known(&page, name), "{page:#}");
    }
    let text = get(&status, "/").await.text;
    assert!(text.contains("Latency of a call") && text.contains(" ± "));

    registry.stop().await;
    let page = until(&status, "/", |page| !known(page, "latency_ms")).await;
    assert_eq!(page["registries"][0]["push_delay_ms"], Value::Null);
}

#[tokio::test]
async fn who_cannot_be_reached_is_ejected_and_restored_before_ones_eyes() {
    let registry = Registry::start().await.unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    registry.register("orders", &address.into());
    let nacos = Client::connect(&registry.addr()).await.unwrap();
    let http = http::Client::new(&nacos);
    let status = StatusPage::new(&nacos).with(&http);
    http.get("nacos://orders/").await.unwrap_err();
    let ejected = until(&status, "/?service=orders", |page| {
        kinds(page).contains(&"ejected".to_owned())
    })
    .await;
    let shown = &ejected["service"]["instances"]["items"][0];
    assert_eq!(shown["state"], "ejected");
    let picked = of(&shown["consumers"], "consumer", "http");
    assert_eq!(
        (&picked["verdict"], &picked["picked"]),
        (&"ejected".into(), &false.into())
    );
    let why = picked["why"].as_str().unwrap();
    assert!(
        why.starts_with("not picked: it could not be reached"),
        "{why}"
    );
    assert_eq!(picked["share_wanted"], 0.0);
    let event = of(&ejected["timeline"], "kind", "ejected");
    assert_eq!(
        (&event["instance"], &event["consumer"]),
        (&address.to_string().into(), &"http".into())
    );

    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let mut server = tokio::task::JoinSet::new();
    server.spawn(async move { axum::serve(listener, axum::Router::new()).await });
    let restored = until(&status, "/?service=orders", |page| {
        kinds(page).contains(&"restored".to_owned())
    })
    .await;
    assert_eq!(
        restored["service"]["instances"]["items"][0]["state"],
        "callable"
    );
    drop(http);
    until(&status, "/", |page| page["services"]["total"] == 0).await;
}

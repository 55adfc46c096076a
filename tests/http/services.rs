//! When a service is subscribed to, and for how long.

use std::time::Duration;

use futures_util::future::join_all;
use tower_nacos::{http, testing::Registry};

use crate::{World, soon, text};

async fn until_subscribers(registry: &Registry, service: &str, count: usize) {
    let there = registry.wait_until(|view| view.subscribers(service).len() == count);
    soon(&format!("{count} subscribers of {service}"), there).await;
}

#[tokio::test]
async fn a_service_is_subscribed_to_at_its_first_call_and_once() {
    let world = World::new().await;
    let _provider = world.provider("orders", "one").await;
    assert!(world.http.services().is_empty());
    let requests = || {
        world
            .registry
            .inspect(|view| view.count("SubscribeServiceRequest"))
    };
    assert_eq!(requests(), 0);
    let calls = (0..50).map(|_| world.http.get("nacos://orders/").send());
    for response in join_all(calls).await {
        assert_eq!(text(response.unwrap()).await, "one");
    }
    assert_eq!(requests(), 1);
    assert_eq!(world.http.services().len(), 1);
}

#[tokio::test]
async fn a_service_that_is_not_called_is_released_and_comes_back() {
    let world = World::new().await;
    let _provider = world.provider("orders", "one").await;
    let http = http::Client::builder(&world.nacos)
        .idle_release(Duration::from_millis(50))
        .build();
    for _ in 0..2 {
        let response = http.get("nacos://orders/").await.unwrap();
        assert_eq!(text(response).await, "one");
        until_subscribers(&world.registry, "orders", 0).await;
        assert!(http.services().is_empty());
    }
}

#[tokio::test]
async fn a_handle_and_a_call_in_flight_keep_a_service() {
    let world = World::new().await;
    let _provider = world.provider("orders", "one").await;
    let http = http::Client::builder(&world.nacos)
        .idle_release(Duration::from_millis(1))
        .build();
    let handle = http.service("orders").unwrap();
    assert_eq!(text(handle.get("/").await.unwrap()).await, "one");
    let other = world.provider("stock", "two").await;
    let stock = http.service("stock").unwrap();
    let unanswered = tokio::spawn(http.get("nacos://stock/never").send());
    let entered = async {
        while other.calls() == 0 {
            tokio::task::yield_now().await;
        }
    };
    soon("it is in flight", entered).await;
    drop(stock);
    // Others come and go meanwhile, so the sweeper does its rounds.
    for round in 0..5 {
        let name = format!("s{round}");
        let key = http.service(&*name).unwrap().key().clone();
        let released = async {
            while http.services().contains(&key) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        soon("it is released", released).await;
    }
    let names: Vec<_> = http
        .services()
        .iter()
        .map(|key| key.name().to_string())
        .collect();
    assert_eq!(names, ["orders", "stock"]);
    drop(handle);
    unanswered.abort();
    until_subscribers(&world.registry, "stock", 0).await;
    until_subscribers(&world.registry, "orders", 0).await;
}

#[tokio::test]
async fn more_services_than_the_limit_are_refused_while_all_are_called() {
    let world = World::new().await;
    let _provider = world.provider("orders", "one").await;
    let http = http::Client::builder(&world.nacos).max_services(2).build();
    let _one = http.service("orders").unwrap();
    let _two = http.service("stock").unwrap();
    let refused = http.get("nacos://made-up/").await.unwrap_err();
    assert!(refused.is_too_many_services() && refused.is_unprocessed());
    assert_eq!(
        refused.to_string(),
        "DEFAULT_GROUP@@made-up in namespace public cannot be called: this client already calls \
         2 services (max_services) and none of them is idle"
    );
    assert_eq!(refused.service().map(|key| &**key.name()), Some("made-up"));
    assert_eq!(
        text(http.get("nacos://orders/").await.unwrap()).await,
        "one"
    );
    assert!(world.registry.subscribers("made-up").is_empty());
}

#[tokio::test]
async fn dropping_the_client_unsubscribes() {
    let world = World::new().await;
    let _provider = world.provider("orders", "one").await;
    let clone = world.http.clone();
    let response = clone.get("nacos://orders/").await.unwrap();
    until_subscribers(&world.registry, "orders", 1).await;
    drop(world.http);
    assert_eq!(
        text(clone.get("nacos://orders/").await.unwrap()).await,
        "one"
    );
    drop(clone);
    until_subscribers(&world.registry, "orders", 0).await;
    assert_eq!(text(response).await, "one", "what was in flight goes on");
}

#[tokio::test]
async fn after_the_registrys_client_is_closed_new_services_are_refused() {
    let world = World::new().await;
    let _provider = world.provider("orders", "one").await;
    world.http.get("nacos://orders/").await.unwrap();
    world.nacos.close(Duration::from_secs(20)).await.unwrap();
    let known = world.http.get("nacos://orders/").await.unwrap();
    assert_eq!(text(known).await, "one", "the last set serves");
    let refused = world.http.get("nacos://stock/").await.unwrap_err();
    assert!(refused.is_closed(), "{refused}");
    assert_eq!(
        refused.to_string(),
        "DEFAULT_GROUP@@stock in namespace public cannot be subscribed to: the client is closed"
    );
}

//! Names resolved over other HTTP clients.

use std::time::Duration;

use ::http::Request;
use http_body_util::BodyExt;
use hyper_util::{
    client::legacy::{Client as Legacy, Error as LegacyError},
    rt::TokioExecutor,
};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_nacos::{endpoint::Verdict, http, http::ResolveLayer};

use crate::{World, provider::nobody, soon};

fn connect_errors(error: &LegacyError) -> Verdict {
    if error.is_connect() {
        Verdict::unreachable(error)
    } else {
        Verdict::Reachable
    }
}

#[tokio::test]
async fn hyper_utils_client_calls_by_name() {
    let world = World::new().await;
    let provider = world.provider("orders", "one").await;
    let client = Legacy::builder(TokioExecutor::new()).build_http::<String>();
    let http = ResolveLayer::new(&world.nacos).layer(client);
    let request = Request::get("nacos://orders/request?x=1").body(String::new());
    let response = http.clone().oneshot(request.unwrap()).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let expected = format!("GET /request?x=1 host={} x=-", provider.address());
    assert_eq!(body, expected);
    let wrong = Request::get("nacos://orders:80/")
        .body(String::new())
        .unwrap();
    let error = http.clone().oneshot(wrong).await.unwrap_err();
    assert!(error.downcast_ref::<http::Error>().unwrap().is_uri());
    let unknown = Request::get("nacos://nobody/").body(String::new()).unwrap();
    let error = http.oneshot(unknown).await.unwrap_err();
    assert!(
        error
            .downcast_ref::<http::Error>()
            .unwrap()
            .is_no_instances()
    );
}

#[tokio::test]
async fn an_instance_that_the_client_cannot_reach_is_passed_by_from_then_on() {
    let world = World::new().await;
    let _provider = world.provider("orders", "one").await;
    world.registry.register("orders", &nobody().await.into());
    let client = Legacy::builder(TokioExecutor::new()).build_http::<String>();
    let layer = ResolveLayer::new(&world.nacos).classify(connect_errors);
    let mut http = layer.layer(client);
    let mut failed = 0;
    let calls = async {
        for _ in 0..100 {
            let request = Request::get("nacos://orders/").body(String::new()).unwrap();
            if let Err(error) = http.ready().await.unwrap().call(request).await {
                let error = error.downcast::<LegacyError>().expect("handed on as it is");
                assert!(error.is_connect());
                failed += 1;
            }
        }
    };
    soon("a hundred calls", calls).await;
    // A probe may fail a second one if this takes longer than its rest.
    assert!((1..10).contains(&failed), "{failed} of 100 failed");
}

#[tokio::test]
async fn reqwest_calls_by_name() {
    let world = World::new().await;
    let _provider = world.provider("orders", "one").await;
    let client = reqwest::Client::new();
    let over_reqwest = service_fn(move |request: Request<reqwest::Body>| {
        let (client, request) = (client.clone(), reqwest::Request::try_from(request));
        async move { client.execute(request?).await }
    });
    let http = ResolveLayer::new(&world.nacos).layer(over_reqwest);
    let request = Request::post("nacos://orders/echo")
        .body("a pen".into())
        .unwrap();
    let response = soon("an answer", http.oneshot(request)).await.unwrap();
    assert_eq!(response.text().await.unwrap(), "a pen");
}

#[tokio::test]
async fn dropping_the_layer_and_its_services_unsubscribes() {
    let world = World::new().await;
    let _provider = world.provider("orders", "one").await;
    let client = Legacy::builder(TokioExecutor::new()).build_http::<String>();
    let http = ResolveLayer::with(&world.nacos, |service| {
        service.unknown_wait(Duration::from_secs(20))
    })
    .layer(client);
    let request = Request::get("nacos://orders/").body(String::new()).unwrap();
    http.clone().oneshot(request).await.unwrap();
    assert_eq!(world.registry.subscribers("orders").len(), 1);
    drop(http);
    let gone = world
        .registry
        .wait_until(|view| view.subscribers("orders").is_empty());
    soon("it unsubscribes", gone).await;
}

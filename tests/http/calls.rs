use std::time::Duration;

use ::http::{Method, Request};
use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::StreamBody;
use hyper::body::Frame;
use tower::{ServiceBuilder, ServiceExt};
use tower_nacos::{
    ServiceKey,
    balance::{Hints, WeightedRoundRobin},
    http::{self, Body},
    transport::{Protocol, Transport},
};

use crate::{
    World,
    provider::{Provider, nobody},
    soon, text,
};

#[tokio::test]
async fn a_service_is_called_by_its_name() {
    let world = World::new().await;
    let provider = world.provider("orders", "one").await;
    let response = world.http.get("nacos://orders/v1/items/7").await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(text(response).await, "one");
    let sent = world.http.post("nacos://orders/echo", "three pens").await;
    assert_eq!(text(sent.unwrap()).await, "three pens");
    // What the instance is asked is the path and query, at its own address.
    for (method, uri, asked) in [
        (
            Method::GET,
            "nacos://orders/request?x=1&y",
            "GET /request?x=1&y",
        ),
        (Method::DELETE, "nacos://orders/request", "DELETE /request"),
    ] {
        let response = world.http.method(method, uri).header("x-test", "7").await;
        let expected = format!("{asked} host={} x=7", provider.address());
        assert_eq!(text(response.unwrap()).await, expected);
    }
    let own_host = world
        .http
        .get("nacos://orders/request")
        .header("host", "shop.example");
    let expected = "GET /request host=shop.example x=-";
    assert_eq!(text(own_host.await.unwrap()).await, expected);
    for root in ["nacos://orders", "nacos://orders?x=1"] {
        assert!(world.http.get(root).await.unwrap().status().is_success());
    }
}

#[tokio::test]
async fn two_groups_are_two_services() {
    let world = World::new().await;
    let _default = world.provider("orders", "default").await;
    let _billing = world.provider("billing@@orders", "billing").await;
    for _ in 0..4 {
        let default = world.http.get("nacos://orders/").await.unwrap();
        assert_eq!(text(default).await, "default");
        let billing = world.http.get("nacos://billing@orders/").await.unwrap();
        assert_eq!(text(billing).await, "billing");
    }
    // Under a default group of its own a client means that one.
    let nacos = tower_nacos::Client::builder()
        .servers(world.registry.addr())
        .group("billing");
    let http = http::Client::new(&nacos.connect().await.unwrap());
    let billing = http.get("nacos://orders/").await.unwrap();
    assert_eq!(text(billing).await, "billing");
    let other = http.get("nacos://DEFAULT_GROUP@orders/").await.unwrap();
    assert_eq!(text(other).await, "default");
}

#[tokio::test]
async fn for_ever_is_a_time_like_any_other() {
    let world = World::new().await;
    let _provider = world.provider("orders", "one").await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let transport = Transport::builder()
            .protocol(protocol)
            .idle_timeout(Duration::MAX)
            .http2_idle_timeout(Duration::MAX)
            .http2_max_age(Duration::MAX)
            .ping(Duration::MAX, Duration::MAX);
        let http = http::Client::builder(&world.nacos)
            .transport(transport)
            .build();
        for _ in 0..2 {
            let response = soon("an answer", http.get("nacos://orders/").send()).await;
            assert_eq!(text(response.unwrap()).await, "one", "{protocol:?}");
        }
    }
}

#[tokio::test]
async fn it_is_a_tower_service_of_any_body() {
    let world = World::new().await;
    let _provider = world.provider("orders", "one").await;
    let stack = ServiceBuilder::new()
        .timeout(Duration::from_secs(20))
        .service(world.http.clone());
    let request = Request::post("nacos://orders/echo").body("text").unwrap();
    let response = stack.oneshot(request).await.unwrap();
    assert_eq!(text(response).await, "text");
    let request = Request::post("nacos://orders/echo")
        .body(vec![b'v'; 3])
        .unwrap();
    assert_eq!(
        text(world.http.clone().oneshot(request).await.unwrap()).await,
        "vvv"
    );
    let spawned = tokio::spawn(world.http.clone().oneshot(Request::new(Body::empty())));
    assert!(spawned.await.unwrap().unwrap_err().is_uri());
}

#[tokio::test]
async fn what_no_address_can_name_is_named_by_a_key_or_a_handle() {
    let world = World::new().await;
    let name = "providers:com.shop.Orders:1.0.0:";
    let _provider = world.provider(name, "dubbo").await;
    let key = ServiceKey::new("public", name.parse().unwrap()).unwrap();
    let by_key = world.http.get("/v1/items").extension(key.clone()).await;
    assert_eq!(text(by_key.unwrap()).await, "dubbo");
    let by_name = world
        .http
        .get("/v1/items")
        .extension(key.service().clone())
        .await;
    assert_eq!(text(by_name.unwrap()).await, "dubbo");
    let orders = world.http.service(name).unwrap();
    assert_eq!(orders.key(), &key);
    assert_eq!(text(orders.get("/v1/items").await.unwrap()).await, "dubbo");
    assert_eq!(
        world.http.services(),
        [key],
        "all of it is one subscription"
    );
    let wrong = orders.get("items").await.unwrap_err();
    assert!(
        wrong.is_uri() && wrong.to_string().contains("begins with '/'"),
        "{wrong}"
    );
}

#[tokio::test]
async fn a_provider_that_goes_offline_costs_no_call() {
    let world = World::new().await;
    let staying = world.provider("orders", "staying").await;
    let leaving = world.provider("orders", "leaving").await;
    let calls = async |until: &dyn Fn() -> bool| {
        while !until() {
            let response = world.http.get("nacos://orders/").await.unwrap();
            assert!(response.status().is_success());
        }
    };
    soon(
        "both are called",
        calls(&|| staying.calls() > 9 && leaving.calls() > 9),
    )
    .await;
    let orders = world.http.service("orders").unwrap();
    world.registry.deregister("orders", &leaving.address());
    let gone = leaving.address().parse().unwrap();
    let heard = async || {
        while orders.explain(&gone).is_pickable() {
            world.http.get("nacos://orders/").await.unwrap();
        }
    };
    soon("its leaving is heard of", heard()).await;
    leaving.kill();
    let (before, left) = (staying.calls(), leaving.calls());
    soon("calls go on", calls(&|| staying.calls() > before + 50)).await;
    assert_eq!(leaving.calls(), left);
}

#[tokio::test]
async fn idle_connections_to_an_instance_that_left_close_without_a_call() {
    let world = World::new().await;
    let provider = world.provider("orders", "one").await;
    let http = http::Client::builder(&world.nacos)
        .transport(Transport::builder().idle_timeout(Duration::from_secs(3_600)))
        .build();
    assert_eq!(
        text(http.get("nacos://orders/").await.unwrap()).await,
        "one"
    );
    soon("a connection is kept", provider.until_connections(1)).await;
    world.registry.deregister("orders", &provider.address());
    soon("it is closed", provider.until_connections(0)).await;
}

#[tokio::test]
async fn losing_the_registry_costs_no_call() {
    let world = World::new().await;
    let _provider = world.provider("orders", "one").await;
    assert_eq!(
        text(world.http.get("nacos://orders/").await.unwrap()).await,
        "one"
    );
    world.registry.stop().await;
    for _ in 0..20 {
        assert_eq!(
            text(world.http.get("nacos://orders/").await.unwrap()).await,
            "one"
        );
    }
}

/// Each of the ten is tried by nobody, or once: five of ten are dead and stay listed.
#[tokio::test]
async fn dead_instances_that_are_listed_cost_no_call_whatever_the_method() {
    let world = World::new().await;
    let mut living = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        living.push(world.provider("orders", name).await);
        world.registry.register("orders", &nobody().await.into());
    }
    for turn in 0..60 {
        let pieces = futures_util::stream::iter(["three", " ", "pens"])
            .map(|piece| Ok::<_, std::io::Error>(Frame::data(Bytes::from(piece))));
        let stream = Body::new(StreamBody::new(pieces));
        let sent = world.http.post("nacos://orders/echo", stream).await;
        let sent = sent.unwrap_or_else(|e| panic!("call {turn}: {e}"));
        assert_eq!(text(sent).await, "three pens");
    }
    let served: usize = living.iter().map(Provider::calls).sum();
    assert_eq!(served, 60, "no duplicate");
}

#[tokio::test]
async fn a_request_says_where_it_wants_to_go() {
    let world = World::new().await;
    let mut providers = Vec::new();
    for (name, cluster, version) in [("a", "HZ", "1"), ("b", "HZ", "2"), ("c", "SH", "2")] {
        let provider = Provider::start(name).await;
        let metadata = [("version", version)].into_iter().collect();
        let instance = provider.instance().with_cluster(cluster);
        world
            .registry
            .register("orders", &instance.with_metadata(metadata));
        providers.push(provider);
    }
    let orders = world.http.service("orders").unwrap();
    let all = orders.subscription().wait_for(3, Duration::from_secs(20));
    all.await.unwrap();
    let ask = async |hints: Hints| {
        let response = world.http.get("nacos://orders/").hints(hints).await;
        text(response.unwrap_or_else(|e| panic!("{e}"))).await
    };
    let not_b = Hints::new().exclude([providers[1].address().parse().unwrap()]);
    for _ in 0..20 {
        assert_eq!(ask(Hints::new().only(("version", "1"))).await, "a");
        assert_eq!(ask(Hints::new().cluster("SH")).await, "c");
        assert_ne!(ask(not_b.clone()).await, "b");
        assert_eq!(ask(not_b.clone().only(("version", "2"))).await, "c");
    }
    let none = world.http.get("nacos://orders/");
    let none = none
        .hints(Hints::new().only(("version", "3")))
        .await
        .unwrap_err();
    assert!(none.is_no_instances() && none.is_unprocessed(), "{none}");
    assert!(none.to_string().contains("version=3"), "{none}");
}

#[tokio::test]
async fn balancing_is_set_for_all_services() {
    let world = World::new().await;
    let one = world.provider("orders", "one").await;
    let two = world.provider("orders", "two").await;
    let http = http::Client::builder(&world.nacos)
        .balance(|service| service.policy(WeightedRoundRobin::new()).max_in_flight(1))
        .build();
    let orders = http.service("orders").unwrap();
    orders
        .subscription()
        .wait_for(2, Duration::from_secs(20))
        .await
        .unwrap();
    let mut last = String::new();
    for _ in 0..20 {
        let name = text(http.get("nacos://orders/").await.unwrap()).await;
        assert_ne!(name, last, "in turn");
        last = name;
    }
    let unanswered = tokio::spawn(http.get("nacos://orders/never").send());
    let entered = async {
        while one.calls() + two.calls() < 21 {
            tokio::task::yield_now().await;
        }
    };
    soon("it is in flight", entered).await;
    let more = http.get("nacos://orders/").await.unwrap_err();
    assert!(more.is_overloaded() && more.is_unprocessed(), "{more}");
    unanswered.abort();
}

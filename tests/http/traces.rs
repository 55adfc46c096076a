//! One span a call, whatever becomes of it.

use std::time::Duration;

use ::http::{HeaderValue, Method, StatusCode};
use tower_nacos::{
    Instance,
    http::{self, HttpBuilder},
    retry::Retry,
    traces::Traces,
    transport::{Idempotent, Transport},
};
use tracing::Instrument;

use crate::{World, provider::Provider, soon, spans::Spans, text};

const ALL: &str = "otel.name otel.kind http.request.method nacos.service";
const END: &str = "http.response.status_code error.type otel.status_code http.request.resend_count";
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn traced(world: &World) -> HttpBuilder {
    http::Client::builder(&world.nacos).traces(Traces::new())
}

#[tokio::test]
async fn a_span_says_what_was_called_where_and_what_came_of_it() {
    let (world, spans) = (World::new().await, Spans::record());
    let provider = world.provider("orders", "one").await;
    let http = traced(&world).build();
    let caller = tracing::info_span!("caller");
    let response = http.get("nacos://orders/v1/items/7?token=secret");
    let response = response.send().instrument(caller).await.unwrap();
    let span = spans.0.one();
    assert_eq!(span.shows(ALL), "GET client GET DEFAULT_GROUP@@orders");
    assert_eq!(span.shows(END), "200 - - -");
    let at = format!("127.0.0.1 {}", provider.instance().address().port());
    assert_eq!(span.shows("server.address server.port"), at);
    assert!(span.entered >= 1);
    assert!(!format!("{span:?}").contains("secret"));
    assert_eq!(text(response).await, "one");

    let orders = http.service("orders").unwrap();
    orders.get("/endless").await.unwrap();
    assert_eq!(
        spans.0.one().shows(END),
        "200 - - -",
        "it ends with the head"
    );
    let brew = Method::from_bytes(b"BREW").unwrap();
    orders.method(brew, "/").await.unwrap();
    assert_eq!(
        spans.0.one().shows(ALL),
        "HTTP client _OTHER DEFAULT_GROUP@@orders"
    );
    orders.post("/traceparent", ()).await.unwrap();
    assert_eq!(spans.0.one().shows(END), "405 405 ERROR -");
}

#[tokio::test]
async fn it_is_a_child_of_the_span_that_called_it() {
    let (world, spans) = (World::new().await, Spans::record());
    let _orders = world.provider("orders", "one").await;
    let http = traced(&world).build();
    let call = tracing::info_span!("caller").in_scope(|| http.get("nacos://orders/").send());
    call.await.unwrap();
    assert_eq!(spans.0.one().parent, Some("caller"));
}

#[tokio::test]
async fn a_request_that_moves_or_is_sent_again_is_one_span_and_counted_only_as_it_goes_out() {
    let (world, spans) = (World::new().await, Spans::record());
    let provider = Provider::start("one").await;
    // Tried first, but for one call in a million.
    let dead = crate::provider::nobody().await;
    let first = Instance::from(dead).with_weight(10_000.0);
    world.registry.register("orders", &first);
    let second = provider.instance().with_weight(0.01);
    world.registry.register("orders", &second);
    let orders = traced(&world).build().service("orders").unwrap();
    let both = orders.subscription().wait_for(2, Duration::from_secs(20));
    both.await.unwrap();
    orders.get("/").await.unwrap();
    let span = spans.0.one();
    assert_eq!(span.shows(END), "200 - - -", "nobody was sent it but one");
    let at = provider.instance().address().port().to_string();
    assert_eq!(span.shows("server.port"), at);

    let retry = Retry::new()
        .max_attempts(3)
        .initial_backoff(Duration::ZERO)
        .statuses([StatusCode::METHOD_NOT_ALLOWED]);
    let http = traced(&world).retry(retry).build();
    let _strict = world.provider("strict", "two").await;
    let again = http.post("nacos://strict/traceparent", ());
    let again = again.extension(Idempotent::default());
    soon("three tries", again.send()).await.unwrap();
    assert_eq!(spans.0.one().shows(END), "405 405 ERROR 2");
}

#[tokio::test]
async fn what_fails_says_how() {
    let (world, spans) = (World::new().await, Spans::record());
    let http = traced(&world).build();
    for (uri, kind) in [
        ("nacos://nobody/", "no_instances"),
        ("nacos://orders:80/", "request"),
        ("http://orders/", "request"),
    ] {
        http.get(uri).await.unwrap_err();
        assert_eq!(
            spans.0.one().shows(END),
            format!("- {kind} ERROR -"),
            "{uri}"
        );
    }
    let dead = Instance::from(crate::provider::nobody().await);
    world.registry.register("orders", &dead);
    http.get("nacos://orders/").await.unwrap_err();
    let span = spans.0.one();
    assert_eq!(span.shows(END), "- connect ERROR -");
    assert_eq!(span.shows("server.port"), dead.address().port().to_string());
    let _silent = world.provider("silent", "one").await;
    let late = http
        .get("nacos://silent/never")
        .timeout(Duration::from_millis(60));
    late.await.unwrap_err();
    assert_eq!(spans.0.one().shows(END), "- timeout ERROR -");
}

#[tokio::test]
async fn one_whose_caller_goes_closes_and_says_so() {
    let (world, spans) = (World::new().await, Spans::record());
    let provider = world.provider("orders", "one").await;
    let http = traced(&world).build();
    let call = http.get("nacos://orders/never").send();
    let given_up = tokio::time::timeout(Duration::from_secs(20), async {
        tokio::pin!(call);
        loop {
            tokio::select! {
                biased;
                _ = &mut call => panic!("it never answers"),
                () = tokio::time::sleep(Duration::from_millis(1)), if provider.calls() > 0 => return,
                () = tokio::time::sleep(Duration::from_millis(1)), if provider.calls() == 0 => {}
            }
        }
    });
    given_up.await.unwrap();
    assert_eq!(spans.0.one().shows(END), "- cancelled ERROR -");
    drop(http.get("nacos://orders/").send());
    assert_eq!(
        spans.0.one().shows(END),
        "- cancelled ERROR -",
        "never begun"
    );
}

/// What a caller's own server read.
#[derive(Clone)]
struct TraceParent(HeaderValue);

#[tokio::test]
async fn the_caller_s_context_reaches_the_instance_with_and_without_a_subscriber() {
    let world = World::new().await;
    let _orders = world.provider("orders", "one").await;
    let traces = Traces::new().propagate(|_, extensions, headers| {
        if let Some(TraceParent(value)) = extensions.get() {
            headers.insert("traceparent", value.clone());
        }
    });
    let http = http::Client::builder(&world.nacos)
        .transport(Transport::builder())
        .traces(traces)
        .build();
    let parent = TraceParent(HeaderValue::from_static(PARENT));
    for recorded in [false, true] {
        let spans = recorded.then(Spans::record);
        let request = http
            .get("nacos://orders/traceparent")
            .extension(parent.clone());
        assert_eq!(text(request.await.unwrap()).await, PARENT);
        let without = http.get("nacos://orders/traceparent").await.unwrap();
        assert_eq!(text(without).await, "-");
        if let Some((spans, _guard)) = spans {
            assert_eq!((spans.open(), spans.closed()), (0, 2));
        }
    }
}

#[tokio::test]
async fn a_hook_that_panics_costs_the_context_and_not_the_call_and_off_there_is_no_span() {
    let (world, spans) = (World::new().await, Spans::record());
    let _orders = world.provider("orders", "one").await;
    let traces = Traces::new().propagate(|_, _, _| panic!("on purpose"));
    let http = http::Client::builder(&world.nacos).traces(traces).build();
    let request = http.get("nacos://orders/request").header("x-test", "kept");
    assert!(text(request.await.unwrap()).await.ends_with("x=kept"));
    assert_eq!(spans.0.one().shows(END), "200 - - -");
    world.http.get("nacos://orders/").await.unwrap();
    assert_eq!((spans.0.open(), spans.0.closed()), (0, 0));
}

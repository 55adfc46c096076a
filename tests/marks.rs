//! What a provider says of itself is known before the registry says it: `x-nacos-offline` on a
//! response closes its instance for every consumer of the service.

#![allow(
    clippy::disallowed_methods,
    reason = "a test owns its tasks and its clock"
)]

use std::{
    future::{Future, IntoFuture},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{Router, extract::Request, response::IntoResponse};
use http_body_util::BodyExt;
use tokio::{net::TcpListener, task::AbortHandle};
use tower::{Service, ServiceExt, balance::p2c};
use tower_nacos::{
    Client, Instance,
    http::{self, Body, ResponseBody},
    model::{OFFLINE_HEADER, START_TIME},
    provider,
    testing::Registry,
    transport::{Protocol, Transport},
};

/// Answers with its name, and with a mark once it has one.
struct Provider {
    instance: Instance,
    mark: Arc<Mutex<Option<Vec<u8>>>>,
    calls: Arc<AtomicUsize>,
    task: AbortHandle,
}

impl Provider {
    async fn start(name: &'static str, start: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let instance = Instance::from(listener.local_addr().unwrap());
        let mark = Arc::new(Mutex::new(None::<Vec<u8>>));
        let calls = Arc::new(AtomicUsize::new(0));
        let (said, counted) = (Arc::clone(&mark), Arc::clone(&calls));
        let app = Router::new().fallback(async move |_: Request| {
            counted.fetch_add(1, SeqCst);
            let mut response = name.into_response();
            if let Some(mark) = &*said.lock().unwrap() {
                let value = axum::http::HeaderValue::from_bytes(mark).unwrap();
                response.headers_mut().append(OFFLINE_HEADER, value);
            }
            response
        });
        let task = tokio::spawn(async move { axum::serve(listener, app).await });
        Self {
            instance: instance.with_metadata([(START_TIME, start)].into_iter().collect()),
            mark,
            calls,
            task: task.abort_handle(),
        }
    }

    fn say(&self, mark: impl Into<Vec<u8>>) {
        *self.mark.lock().unwrap() = Some(mark.into());
    }

    fn calls(&self) -> usize {
        self.calls.load(SeqCst)
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Two providers, a registry that lists them to the end, and consumers.
struct World {
    registry: Registry,
    nacos: Client,
    one: Provider,
    two: Provider,
}

impl World {
    async fn new() -> Self {
        let registry = Registry::builder().push_delay(None).start().await.unwrap();
        let nacos = Client::connect(registry.addr()).await.unwrap();
        let one = Provider::start("one", "1000").await;
        let two = Provider::start("two", "2000").await;
        for provider in [&one, &two] {
            registry.register("orders", &provider.instance);
        }
        let orders = nacos.subscribe("orders").await.unwrap();
        soon(orders.wait_for(2, Duration::from_secs(20)))
            .await
            .unwrap();
        Self {
            registry,
            nacos,
            one,
            two,
        }
    }

    fn client(&self, protocol: Protocol) -> http::Client {
        let transport = Transport::builder().protocol(protocol);
        http::Client::builder(&self.nacos)
            .transport(transport)
            .build()
    }
}

async fn soon<F: Future>(future: F) -> F::Output {
    let limit = Duration::from_secs(30);
    tokio::time::timeout(limit, future).await.expect("a hang")
}

async fn who(client: &http::Client) -> String {
    let response = soon(client.get("nacos://orders/").into_future())
        .await
        .unwrap();
    text(response).await
}

async fn text(response: ::http::Response<ResponseBody>) -> String {
    let body = soon(response.into_body().collect()).await.unwrap();
    String::from_utf8(body.to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn the_first_marked_answer_is_the_last_call_of_everybody() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let world = World::new().await;
        let clients = [world.client(protocol), world.client(protocol)];
        let orders = world.nacos.subscribe("orders").await.unwrap();
        let make = Transport::builder().protocol(protocol).build();
        let mut stock = p2c::Balance::new(orders.discover(make));
        // Each of them has called both before.
        for client in &clients {
            let mut met = [false; 2];
            while met != [true; 2] {
                met[usize::from(who(client).await == "two")] = true;
            }
        }
        let mut call = async |uri: String| {
            let request = ::http::Request::get(uri).body(Body::from(())).unwrap();
            let ready: &mut _ = soon(stock.ready()).await.unwrap();
            text(soon(ready.call(request)).await.unwrap()).await
        };
        let uri = format!("http://{}/", world.one.instance.address());
        let _ = call(uri.clone()).await;
        world.one.say("1000");
        while who(&clients[0]).await != "one" {}
        let calls = world.one.calls();
        for _ in 0..50 {
            for client in &clients {
                assert_eq!(who(client).await, "two");
            }
            assert_eq!(call(uri.clone()).await, "two");
        }
        assert_eq!(world.one.calls(), calls, "not one more");
        let explained = orders.explain(world.one.instance.address()).to_string();
        assert!(explained.contains("goes offline"), "{explained}");
    }
}

#[tokio::test]
async fn what_is_not_its_own_mark_says_nothing() {
    let world = World::new().await;
    let client = world.client(Protocol::Http1);
    let orders = world.nacos.subscribe("orders").await.unwrap();
    for mark in [
        &b"2000"[..], // another host's
        b"",
        b"true",
        b"10000",
        b"1000x",
        b"\xff\xfe",
        &[b'1'; 4_000],
    ] {
        world.one.say(mark);
        for _ in 0..8 {
            who(&client).await;
        }
        assert_eq!(orders.snapshot().callable_len(), 2, "{mark:?}");
    }
    // One among others is its own, as a proxy joins them.
    world.one.say("7, 1000");
    while who(&client).await != "one" {}
    assert_eq!(orders.snapshot().callable_len(), 1);
    assert!(world.two.calls() > 0);
}

/// With a registry whose push never comes: the mark alone carries the news.
#[tokio::test]
async fn a_provider_that_leaves_is_heard_without_the_registry() {
    let hour = Duration::from_secs(3_600);
    let registry = Registry::builder()
        .push_delay(Some(hour))
        .start()
        .await
        .unwrap();
    let mut served = Vec::new();
    for name in ["one", "two"] {
        let nacos = Client::connect(registry.addr()).await.unwrap(); // a process each, as it were
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (leave, told) = tokio::sync::oneshot::channel::<()>();
        let app = Router::new().fallback(async move || name);
        let served_until = provider::serve(&nacos, "orders", listener, app)
            .with_graceful_offline(async { drop(told.await) });
        let task = tokio::spawn(served_until.into_future());
        served.push((address, leave, task));
    }
    soon(registry.wait_until(|view| view.addresses("orders").len() == 2)).await;
    let nacos = Client::connect(registry.addr()).await.unwrap();
    let orders = nacos.subscribe("orders").await.unwrap();
    let client = http::Client::new(&nacos);
    let mut met = [false; 2];
    while met != [true; 2] {
        met[usize::from(who(&client).await == "two")] = true;
    }
    let (address, leave, task) = served.swap_remove(0);
    leave.send(()).unwrap();
    soon(registry.wait_until(|view| view.addresses("orders").len() == 1)).await;
    let one = Instance::from(address);
    let until_heard = async {
        while orders.snapshot().callable_len() == 2 {
            who(&client).await;
        }
    };
    soon(until_heard).await;
    let explained = orders.explain(one.address()).to_string();
    assert!(explained.contains("goes offline"), "{explained}");
    for _ in 0..50 {
        assert_eq!(who(&client).await, "two");
    }
    let report = soon(task).await.unwrap().unwrap();
    for _ in 0..50 {
        assert_eq!(who(&client).await, "two", "{report}");
    }
    drop(served); // the other one leaves, too
}

/// One address in two services, as one process may provide both.
/// Nobody can say who came in its place, and it serves yet.
#[tokio::test]
async fn the_last_that_leaves_while_the_registry_is_away_is_called_to_the_end() {
    let world = World::new().await;
    let client = world.client(Protocol::Http1);
    let orders = world.nacos.subscribe("orders").await.unwrap();
    let mut status = orders.status_changes();
    let (one, two) = (&world.one, &world.two);
    world.registry.stop().await;
    soon(async {
        while !matches!(
            status.next().await,
            Some(tower_nacos::directory::Status::Stale { .. })
        ) {}
    })
    .await;
    one.say("1000");
    two.say("2000");
    for _ in 0..20 {
        who(&client).await;
    }
    let callable = orders.snapshot().callable_len();
    assert_eq!(callable, 1, "the other one is believed");
    let (left, other) = match one.calls() > two.calls() {
        true => (one, two),
        false => (two, one),
    };
    assert_eq!(other.calls(), 1);
    assert_eq!(left.calls(), 19);
}

#[tokio::test]
async fn the_mark_of_another_service_says_nothing_of_this_one() {
    let world = World::new().await;
    let twin = world.one.instance.clone();
    let twin = twin.with_metadata([(START_TIME, "3000")].into_iter().collect());
    world.registry.register("billing", &twin);
    let orders = world.nacos.subscribe("orders").await.unwrap();
    let billing = world.nacos.subscribe("billing").await.unwrap();
    soon(billing.wait_for(1, Duration::from_secs(20)))
        .await
        .unwrap();
    let client = world.client(Protocol::Http1);
    world.one.say("3000");
    let calls = world.one.calls();
    while world.one.calls() < calls + 4 {
        who(&client).await; // as an instance of `orders`, which started at 1000
    }
    assert_eq!(orders.snapshot().callable_len(), 2);
    assert_eq!(billing.snapshot().callable_len(), 1, "nobody called it");
    let request = client.get("nacos://billing/").into_future();
    assert_eq!(text(soon(request).await.unwrap()).await, "one");
    assert_eq!(billing.snapshot().callable_len(), 0);
    assert_eq!(orders.snapshot().callable_len(), 2);
}

/// A header of 10 MB is no head that anybody reads: its call fails, and nothing else does.
#[tokio::test]
async fn a_mark_of_ten_megabytes_costs_its_own_call_alone() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let world = World::new().await;
        let client = world.client(protocol);
        let orders = world.nacos.subscribe("orders").await.unwrap();
        world.one.say(vec![b'1'; 10_000_000]);
        let (mut failed, mut answered) = (0, 0);
        while failed < 3 || answered < 3 {
            match soon(client.get("nacos://orders/").into_future()).await {
                Ok(response) => {
                    assert_eq!(text(response).await, "two");
                    answered += 1;
                }
                Err(_) => failed += 1,
            }
        }
        assert_eq!(orders.snapshot().callable_len(), 2);
        // With a mark that fits it is heard.
        world.one.say("1000");
        let heard = async {
            while orders.snapshot().callable_len() == 2 {
                let _ = client.get("nacos://orders/").into_future().await;
            }
        };
        soon(heard).await;
    }
}

//! A whole request, from the caller to the end of the response's body. A server of its own process answers.

use std::time::Duration;

use http::{Request, Uri};
use http_body_util::BodyExt;
use tokio::runtime::{Builder, Runtime};
use tower_nacos::{
    Client, Instance, Subscription,
    balance::Random,
    grpc, http as by_name,
    retry::Retry,
    testing::Registry,
    transport::{Body, Protocol, Transport},
};

use crate::{
    Line, Operations,
    greeter::{HelloRequest, greeter_client::GreeterClient},
    server::Server,
};

pub(crate) fn lines() -> Vec<Line> {
    let mut lines = Vec::new();
    for (name, tries) in [("", false), ("_tries", true)] {
        for (version, protocol) in [("http1", Protocol::Http1), ("http2", Protocol::Http2)] {
            let name = format!("{version}_get{name}");
            lines.push(Line::new(name, 300, 500, move || getting(protocol, tries)));
        }
        let name = format!("grpc_unary{name}");
        lines.push(Line::new(name, 300, 500, move || greeting(tries)));
    }
    lines
}

/// How often the first call is made anew, which waits for 3 s each time.
const PATIENCE: usize = 20;
/// The longest that a try may last where tries are limited: none is.
const LONG: Duration = Duration::from_secs(60);

/// By `http::Client`. The registry and its client are on threads of their own.
fn getting(protocol: Protocol, tries: bool) -> Operations {
    Random::seed_thread(16);
    let server = Server::start(false).expect("a server starts");
    let beside = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    let beside = beside.expect("a runtime can be had");
    let registry = beside.block_on(Registry::start());
    let registry = registry.expect("a registry starts");
    registry.register("orders", &Instance::new(server.address.into()));
    let nacos = Client::builder()
        .servers(registry.addr())
        .own_thread(true)
        .connect_lazy();
    let nacos = nacos.expect("nothing of this is wrong");
    let transport = Transport::builder().protocol(protocol);
    let mut builder = by_name::Client::builder(&nacos).transport(transport);
    if tries {
        builder = builder.per_try_timeout(LONG).retry(Retry::seeded(1));
    }
    let client = builder.build();
    let uri = Uri::from_static("nacos://orders/orders/7");
    let runtime = runtime();
    // Under valgrind on a busy machine the registry's first answer may take longer than a call waits for it.
    let known = (0..PATIENCE).any(|_| {
        let first = client.request(Request::get(&uri).body(Body::empty()).unwrap());
        runtime.block_on(first).is_ok()
    });
    assert!(known, "the registry never answered");
    Box::new(move |count| {
        let _beside = (&server, &registry, &beside);
        runtime.block_on(async {
            for _ in 0..count {
                let mut request = Request::new(Body::empty());
                *request.uri_mut() = uri.clone();
                let response = client.request(request).await.expect("it is there");
                let body = response.into_body().collect().await;
                body.expect("it is whole");
            }
        });
    })
}

/// By a client that tonic generated.
fn greeting(tries: bool) -> Operations {
    Random::seed_thread(16);
    let server = Server::start(false).expect("a server starts");
    let subscription = Subscription::fixed([Instance::new(server.address.into())]);
    let mut builder = grpc::Channel::builder(&subscription);
    if tries {
        let retry = Retry::seeded(1).every_request();
        builder = builder.per_try_timeout(LONG).retry(retry);
    }
    let runtime = runtime();
    let entered = runtime.enter();
    let channel = builder.build();
    drop(entered);
    Box::new(move |count| {
        let _server = &server;
        runtime.block_on(async {
            for _ in 0..count {
                let mut client = GreeterClient::new(channel.clone());
                let name = "Ann".to_owned();
                let said = client.say_hello(HelloRequest { name }).await;
                said.expect("it is there");
            }
        });
    })
}

fn runtime() -> Runtime {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime of one thread can be had")
}

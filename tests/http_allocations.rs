//! What a call by name costs before an instance's connection has it: nothing is allocated to find
//! the service, and no lock is shared.

#[allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::use_self
)]
#[path = "../examples/greeter/greeter.rs"]
mod greeter;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use greeter::{
    HelloReply, HelloRequest,
    greeter_client::GreeterClient,
    greeter_server::{Greeter, GreeterServer},
};
use http::Request;
use http_body_util::BodyExt;
use tower_nacos::{Client, ServiceKey, http::Body, testing::Registry, transport::Transport};

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is handed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are the system's.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations<T>(work: impl FnOnce() -> T) -> (u64, T) {
    let before = COUNT.get();
    let result = work();
    (COUNT.get() - before, result)
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "a test owns its tasks")]
async fn finding_the_service_of_a_request_allocates_nothing() {
    let registry = Registry::builder().push_delay(None).start().await.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    registry.register("G@@orders", &listener.local_addr().unwrap().into());
    let app = axum::Router::new().fallback(async || "here");
    tokio::spawn(async move { axum::serve(listener, app).await });
    let nacos = Client::connect(registry.addr()).await.unwrap();
    let http = tower_nacos::http::Client::new(&nacos);
    let others: Vec<_> = (0..30)
        .map(|other| http.service(&*format!("other-{other}")).unwrap())
        .collect();
    let request = |uri: &str| Request::get(uri).body(Body::empty()).unwrap();
    let address = "nacos://G@orders/v1/items/7?x=1";
    let first = http.request(request(address)).await.unwrap();
    assert_eq!(
        first.into_body().collect().await.unwrap().to_bytes(),
        "here"
    );
    for _ in 0..3 {
        let by_address = request(address);
        let (count, sent) = allocations(|| http.request(by_address));
        assert_eq!(count, 0);
        assert_eq!(sent.await.unwrap().status(), 200);
        let mut by_key = request("/v1/items/7");
        let key = ServiceKey::new("public", "G@@orders".parse().unwrap()).unwrap();
        by_key.extensions_mut().insert(key);
        let (count, sent) = allocations(|| http.request(by_key));
        assert_eq!(count, 0);
        assert_eq!(sent.await.unwrap().status(), 200);
    }
    assert_eq!(http.services().len(), others.len() + 1);
}

/// Answers each request with 200, on a thread of its own.
fn answering() -> std::net::SocketAddr {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            std::thread::spawn(move || {
                let mut read = [0; 4096];
                while socket.read(&mut read).is_ok_and(|read| read > 0) {
                    let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn telling_an_instance_whom_it_is_taken_for_allocates_nothing() {
    let registry = Registry::builder().push_delay(None).start().await.unwrap();
    registry.register("orders", &answering().into());
    let nacos = Client::connect(registry.addr()).await.unwrap();
    let mut costs = Vec::new();
    for tell in [false, true] {
        let transport = Transport::builder().tell_service(tell);
        let http = tower_nacos::http::Client::builder(&nacos)
            .transport(transport)
            .build();
        let mut least = u64::MAX;
        for _ in 0..20 {
            let before = COUNT.get();
            let response = http.get("nacos://orders/v1").send().await.unwrap();
            drop(response);
            least = least.min(COUNT.get() - before);
        }
        costs.push(least);
    }
    println!("allocations of a whole request: {costs:?}");
    assert_eq!(costs[0], costs[1]);
}

/// The same over HTTP/2.
fn answering_http2() -> std::net::SocketAddr {
    serving(async |listener| {
        let app = axum::Router::new().fallback(async || ());
        axum::serve(listener, app).await.unwrap();
    })
}

/// Served by a thread of its own, whose allocations do not count.
fn serving<F>(
    serve: impl FnOnce(tokio::net::TcpListener) -> F + Send + 'static,
) -> std::net::SocketAddr
where
    F: Future<Output = ()>,
{
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            serve(tokio::net::TcpListener::from_std(listener).unwrap()).await;
        });
    });
    address
}

/// What a time for each try, and a policy, cost while nothing fails: what is kept of a request is lent by the
/// thread that calls.
#[tokio::test]
async fn what_tries_cost_where_they_are_set_and_nothing_fails() {
    use tower_nacos::{retry::Retry, transport::Protocol};
    let registry = Registry::builder().push_delay(None).start().await.unwrap();
    for (protocol, address) in [
        (Protocol::Http1, answering()),
        (Protocol::Http2, answering_http2()),
    ] {
        let service = format!("{protocol:?}");
        registry.register(&service, &address.into());
        let nacos = Client::connect(registry.addr()).await.unwrap();
        let mut costs = Vec::new();
        for (per_try, method) in [
            (false, "POST"),
            (true, "POST"),
            (false, "GET"),
            (true, "GET"),
        ] {
            let transport = Transport::builder().protocol(protocol);
            let mut builder = tower_nacos::http::Client::builder(&nacos).transport(transport);
            if per_try {
                builder = builder
                    .per_try_timeout(std::time::Duration::from_secs(10))
                    .retry(Retry::new());
            }
            let http = builder.build();
            let mut least = u64::MAX;
            for _ in 0..50 {
                let uri = format!("nacos://{service}/v1");
                let request = http.method(method.parse().unwrap(), uri).header("x-a", "b");
                let before = COUNT.get();
                let response = request.send().await.unwrap();
                drop(response);
                least = least.min(COUNT.get() - before);
            }
            costs.push(least);
        }
        println!("allocations of a whole request over {protocol:?}: {costs:?}");
        let [once_off, once, off, again] = costs[..] else {
            unreachable!("four were counted")
        };
        assert_eq!(once, once_off, "{costs:?}");
        assert_eq!(again, off, "{costs:?}");
        // What benches/RESULTS.md says.
        let plain = [(Protocol::Http1, 6), (Protocol::Http2, 10)];
        assert!(plain.contains(&(protocol, off)), "{costs:?}");
    }
}

struct Hello;

type Nothing = futures_util::stream::Empty<Result<HelloReply, tonic::Status>>;

#[tonic::async_trait]
impl Greeter for Hello {
    async fn say_hello(
        &self,
        request: tonic::Request<HelloRequest>,
    ) -> Result<tonic::Response<HelloReply>, tonic::Status> {
        Ok(tonic::Response::new(HelloReply {
            message: request.into_inner().name,
            instance: String::new(),
        }))
    }

    type SayManyStream = Nothing;

    async fn say_many(
        &self,
        _: tonic::Request<HelloRequest>,
    ) -> Result<tonic::Response<Nothing>, tonic::Status> {
        Err(tonic::Status::unimplemented("nobody asks"))
    }

    async fn say_to_all(
        &self,
        _: tonic::Request<tonic::Streaming<HelloRequest>>,
    ) -> Result<tonic::Response<HelloReply>, tonic::Status> {
        Err(tonic::Status::unimplemented("nobody asks"))
    }

    type ChatStream = Nothing;

    async fn chat(
        &self,
        _: tonic::Request<tonic::Streaming<HelloRequest>>,
    ) -> Result<tonic::Response<Nothing>, tonic::Status> {
        Err(tonic::Status::unimplemented("nobody asks"))
    }
}

fn greeting() -> std::net::SocketAddr {
    serving(async |listener| {
        let server = tonic::transport::Server::builder();
        let routed = { server }.add_service(GreeterServer::new(Hello));
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        routed.serve_with_incoming(incoming).await.unwrap();
    })
}

/// A unary call's message is one piece, and is kept as it is.
#[tokio::test]
async fn what_tries_cost_over_grpc_where_nothing_fails() {
    use tower_nacos::{Instance, Subscription, grpc::Channel, retry::Retry};
    let instance = Instance::new(greeting().into());
    let orders = Subscription::fixed([instance]);
    let mut costs = Vec::new();
    for tries in [false, true] {
        let mut builder = Channel::builder(&orders);
        if tries {
            builder = builder
                .per_try_timeout(std::time::Duration::from_secs(10))
                .retry(Retry::new().every_request());
        }
        let mut client = GreeterClient::new(builder.build());
        let mut least = u64::MAX;
        for _ in 0..50 {
            let name = "Ann".to_owned();
            let before = COUNT.get();
            let said = client.say_hello(HelloRequest { name }).await.unwrap();
            drop(said);
            least = least.min(COUNT.get() - before);
        }
        costs.push(least);
    }
    println!("allocations of a unary call: {costs:?}");
    assert!(costs[1] <= costs[0], "{costs:?}");
}

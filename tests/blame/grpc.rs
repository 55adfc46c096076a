//! The same over gRPC: tonic's server, and a client that tonic generated over both channels.

use std::{
    net::SocketAddr,
    panic::resume_unwind,
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use futures_util::{Stream, StreamExt, stream};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{net::TcpListener, time::timeout};
use tonic::{Request, Response, Status, Streaming, service::Routes};
use tower_nacos::{
    Instance, Subscription,
    balance::WeightedRoundRobin,
    grpc::{self, Channel},
};

use crate::greeter::{
    HelloReply, HelloRequest,
    greeter_client::GreeterClient,
    greeter_server::{Greeter, GreeterServer},
};

use super::{
    caller::{Failure, HANG, in_time, patient},
    cell::{Cell, Load, Promise, judge},
    provider::{Provider, spawn},
    wire::Wire,
};

struct Unwell;

type Replies = Pin<Box<dyn Stream<Item = Result<HelloReply, Status>> + Send>>;

fn reply(message: &str) -> HelloReply {
    HelloReply {
        message: message.to_owned(),
        instance: String::new(),
    }
}

#[tonic::async_trait]
impl Greeter for Unwell {
    /// Does to its connection what the name says.
    async fn say_hello(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<HelloReply>, Status> {
        let wire = request.extensions().get::<Wire>().unwrap().clone();
        match &*request.get_ref().name {
            "panic" => resume_unwind(Box::new("a handler that panics")),
            "close" => wire.close().await,
            "reset" => wire.reset().await,
            "malformed" => wire.say(&[0, 0, 1, 1, 5, 0, 0, 0, 1, 0x80]).await,
            "late" => {
                spawn(async move {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    wire.close().await;
                });
            }
            _ => {}
        }
        Ok(Response::new(reply("hello")))
    }

    type SayManyStream = Replies;

    /// One reply, and the connection closes.
    async fn say_many(&self, request: Request<HelloRequest>) -> Result<Response<Replies>, Status> {
        let wire = request.extensions().get::<Wire>().unwrap().clone();
        let closes = stream::once(async move {
            wire.close().await;
            Err(Status::internal("closed"))
        });
        let replies = stream::iter([Ok(reply("hello"))]).chain(closes);
        Ok(Response::new(Box::pin(replies)))
    }

    async fn say_to_all(
        &self,
        _: Request<Streaming<HelloRequest>>,
    ) -> Result<Response<HelloReply>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    type ChatStream = Replies;

    async fn chat(&self, _: Request<Streaming<HelloRequest>>) -> Result<Response<Replies>, Status> {
        Err(Status::unimplemented("not asked here"))
    }
}

async fn provider() -> Provider {
    let service = GreeterServer::new(Unwell).max_decoding_message_size(1 << 20);
    let app = Routes::new(service).into_axum_router();
    Provider::serve(TcpListener::bind("127.0.0.1:0").await.unwrap(), app)
}

enum Caller {
    Ours(Box<GreeterClient<Channel<WeightedRoundRobin>>>),
    Peer(
        Vec<GreeterClient<Client<HttpConnector, tonic::body::Body>>>,
        AtomicUsize,
    ),
}

impl Caller {
    fn ours(addresses: &[SocketAddr]) -> Self {
        let instances = addresses.iter().map(|address| Instance::from(*address));
        let listed = Subscription::fixed(instances);
        let channel = Channel::builder(&listed)
            .balance(|balance| balance.policy(WeightedRoundRobin::new()))
            .transport(patient())
            .build();
        Self::Ours(Box::new(GreeterClient::new(channel)))
    }

    fn peer(addresses: &[SocketAddr]) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .http2_only(true)
            .build_http();
        let clients = addresses.iter().map(|address| {
            let origin = format!("http://{address}").parse().unwrap();
            GreeterClient::with_origin(client.clone(), origin)
        });
        Self::Peer(clients.collect(), AtomicUsize::new(0))
    }

    async fn call(&self, name: &str) -> Result<u16, Failure> {
        match self {
            Self::Ours(client) => timeout(HANG, said(client.as_ref().clone(), name))
                .await
                .unwrap_or_else(|_| panic!("our call hangs: {name}")),
            Self::Peer(clients, turn) => {
                let turn = turn.fetch_add(1, Ordering::Relaxed) % clients.len();
                in_time(said(clients[turn].clone(), name)).await
            }
        }
    }
}

/// The same as HTTP would say it.
async fn said<T>(client: GreeterClient<T>, name: &str) -> Result<u16, Failure>
where
    T: tonic::client::GrpcService<tonic::body::Body>,
    T::ResponseBody: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<tower::BoxError> + Send,
{
    ask(client, name)
        .await
        .map(|()| 200)
        .map_err(|status| Failure {
            // Three refusals are the limit that is promised.
            unsent: grpc::Error::of(&status).is_some_and(grpc::Error::is_unprocessed)
                && !status.message().contains("so did the 3 before it"),
            text: status.to_string(),
        })
}

async fn ask<T>(mut client: GreeterClient<T>, name: &str) -> Result<(), Status>
where
    T: tonic::client::GrpcService<tonic::body::Body>,
    T::ResponseBody: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<tower::BoxError> + Send,
{
    match name {
        "large" => {
            let name = "x".repeat(5_000_000);
            client.say_hello(HelloRequest { name }).await.map(drop)
        }
        "large head" => {
            let mut request = Request::new(HelloRequest::default());
            let value = "x".repeat(1 << 20).parse().unwrap();
            request.metadata_mut().insert("x-large", value);
            client.say_hello(request).await.map(drop)
        }
        "cut" => {
            let many = client.say_many(HelloRequest::default()).await?;
            let mut many = many.into_inner();
            while many.message().await?.is_some() {}
            Ok(())
        }
        name => {
            let name = name.to_owned();
            client.say_hello(HelloRequest { name }).await.map(drop)
        }
    }
}

/// The name, and whether it ends the connection.
const FAULTS: [(&str, bool); 8] = [
    ("panic", false),
    ("close", true),
    ("reset", true),
    ("malformed", true),
    ("large", false),
    ("large head", true),
    ("cut", true),
    ("late", true),
];

async fn cell(name: &'static str, ends: bool, n: usize, share: usize, at_once: usize) -> Cell {
    let mut providers = Vec::new();
    for _ in 0..n {
        providers.push(provider().await);
    }
    let addresses: Vec<_> = providers.iter().map(|provider| provider.address).collect();
    let calls = if share == 50 { 100 } else { 200 };
    let bad = |_| unreachable!("gRPC calls are made by name");
    let load = Load {
        bad,
        calls,
        share,
        at_once,
        all_safe: true,
    };
    let by = async |caller: Caller| {
        let caller = &caller;
        let call = move |bad, _| caller.call(if bad { name } else { "good" });
        load.run_with(call).await
    };
    let peer = by(Caller::peer(&addresses)).await;
    let ours = by(Caller::ours(&addresses)).await;
    let shared = ends && (at_once > 1 || name == "late");
    let promise = if shared {
        Promise::Shared
    } else {
        Promise::Innocent
    };
    let name = format!("gRPC {name}: {n} instances, {share} %, {at_once} at once:");
    Cell {
        name,
        promise,
        ours,
        peer,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_grpc_call_costs_only_itself() {
    let mut cells = Vec::new();
    for (name, ends) in FAULTS {
        for n in [1, 3] {
            for share in [1, 5, 50] {
                cells.push((name, ends, n, share, 10));
                if ends {
                    cells.push((name, ends, n, share, 1));
                }
            }
        }
    }
    let cells = stream::iter(cells)
        .map(|(name, ends, n, share, at_once)| cell(name, ends, n, share, at_once))
        .buffer_unordered(6);
    judge(cells.collect().await);
}

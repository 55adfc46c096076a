//! A greeter that does what the name it is to greet asks for.

use std::{
    collections::HashMap,
    net::SocketAddr,
    pin::Pin,
    sync::{LazyLock, Mutex},
    time::Duration,
};

use futures_util::{Stream, StreamExt, stream};
use tokio::{
    net::TcpListener,
    runtime::Runtime,
    sync::{oneshot, watch},
};
use tonic::{
    Request, Response, Status, Streaming,
    codec::CompressionEncoding,
    transport::{Server, server::TcpIncoming},
};
use tower_nacos::Instance;

use crate::greeter::{
    HelloReply, HelloRequest,
    greeter_server::{Greeter, GreeterServer},
};

pub(crate) struct Provider {
    pub(crate) address: SocketAddr,
    /// How many it greeted.
    pub(crate) served: watch::Receiver<usize>,
    /// A runtime of its own, whose end cuts all connections.
    runtime: Option<Runtime>,
    stop: Option<oneshot::Sender<()>>,
}

struct Polite {
    address: SocketAddr,
    served: watch::Sender<usize>,
}

/// Where names that are noted arrived, and with which `grpc-timeout`. A test has its own names.
type Arrivals = HashMap<String, Vec<(SocketAddr, String)>>;

static ARRIVALS: LazyLock<Mutex<Arrivals>> = LazyLock::new(Mutex::default);

/// Where this name arrived so far, and with which `grpc-timeout`.
pub(crate) fn arrivals(name: &str) -> Vec<(SocketAddr, String)> {
    let arrivals = ARRIVALS.lock().unwrap();
    arrivals.get(name).cloned().unwrap_or_default()
}

/// Whether it is the first to come.
fn note(name: &str, at: SocketAddr, timeout: String) -> bool {
    let mut arrivals = ARRIVALS.lock().unwrap();
    let arrived = arrivals.entry(name.to_owned()).or_default();
    arrived.push((at, timeout));
    arrived.len() == 1
}

impl Provider {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let (greeted, served) = watch::channel(0);
        let polite = Polite {
            address,
            served: greeted,
        };
        let service = GreeterServer::new(polite)
            .accept_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Gzip);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = listener.into_std().unwrap();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            let server = Server::builder().add_service(service);
            let ended = server.serve_with_incoming_shutdown(TcpIncoming::from(listener), async {
                let _ = stopped.await;
            });
            ended.await.unwrap();
        });
        Self {
            address,
            served,
            runtime: Some(runtime),
            stop: Some(stop),
        }
    }

    pub(crate) async fn some<const N: usize>() -> [Self; N] {
        let mut providers = Vec::new();
        for _ in 0..N {
            providers.push(Self::start().await);
        }
        providers.try_into().unwrap_or_else(|_| unreachable!())
    }

    pub(crate) fn instance(&self) -> Instance {
        Instance::parse(&self.address.to_string()).unwrap()
    }

    /// An address at which nobody listens.
    pub(crate) fn nobody() -> SocketAddr {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    }

    /// Its process dies.
    pub(crate) fn cut(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Asks everybody to go (GOAWAY), and is gone once they have.
    pub(crate) fn stop(&mut self) {
        drop(self.stop.take());
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.cut();
    }
}

impl Polite {
    fn reply(&self, message: impl Into<String>) -> HelloReply {
        HelloReply {
            message: message.into(),
            instance: self.address.to_string(),
        }
    }
}

type Replies = Pin<Box<dyn Stream<Item = Result<HelloReply, Status>> + Send>>;

#[tonic::async_trait]
impl Greeter for Polite {
    async fn say_hello(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<HelloReply>, Status> {
        let name = request.get_ref().name.clone();
        let header = |name: &str| {
            let value = request.metadata().get(name);
            value
                .map_or("none", |value| value.to_str().unwrap())
                .to_owned()
        };
        match &*name {
            "hang" => std::future::pending().await,
            name if name.starts_with("first hangs")
                && note(name, self.address, header("grpc-timeout")) =>
            {
                std::future::pending().await
            }
            name if name.starts_with("fails first") => {
                if !note(name, self.address, header("grpc-previous-rpc-attempts")) {
                    return Ok(Response::new(self.reply("hello")));
                }
                let [_, code, pushback] = name.split(": ").collect::<Vec<_>>()[..] else {
                    panic!("{name}");
                };
                let mut status = Status::new(code.parse::<i32>().unwrap().into(), "as asked");
                if let Ok(pushback) = pushback.parse() {
                    let metadata = status.metadata_mut();
                    metadata.insert("grpc-retry-pushback-ms", pushback);
                }
                Err(status)
            }
            "a moment" => {
                tokio::time::sleep(Duration::from_millis(2)).await;
                self.served.send_modify(|served| *served += 1);
                Ok(Response::new(self.reply("hello")))
            }
            "refuse" => Err(Status::invalid_argument("no such name")),
            "my headers" => {
                let [agent, timeout, own] = ["user-agent", "grpc-timeout", "x-own"].map(header);
                Ok(Response::new(
                    self.reply(format!("{agent}|{timeout}|{own}")),
                ))
            }
            "traceparent" => Ok(Response::new(self.reply(header("traceparent")))),
            "whom I mean" => Ok(Response::new(self.reply(header("x-nacos-service")))),
            "much" => Ok(Response::new(self.reply("x".repeat(100_000)))),
            _ => Ok(Response::new(self.reply(format!("hello {name}")))),
        }
    }

    type SayManyStream = Replies;

    async fn say_many(&self, request: Request<HelloRequest>) -> Result<Response<Replies>, Status> {
        let name = request.into_inner().name;
        let replies = (0..3).map(|n| Ok(self.reply(format!("hello {name} {n}"))));
        let replies = stream::iter(replies.collect::<Vec<_>>());
        if name == "without end" {
            let reply = self.reply("and on");
            return Ok(Response::new(Box::pin(stream::repeat_with(move || {
                Ok(reply.clone())
            }))));
        }
        Ok(Response::new(if name == "and then hang" {
            Box::pin(replies.chain(stream::pending()))
        } else {
            Box::pin(replies)
        }))
    }

    async fn say_to_all(
        &self,
        request: Request<Streaming<HelloRequest>>,
    ) -> Result<Response<HelloReply>, Status> {
        let mut names = request.into_inner();
        let mut all = Vec::new();
        while let Some(request) = names.message().await? {
            if request.name.starts_with("seen") {
                note(&request.name, self.address, String::new());
            }
            all.push(request.name);
        }
        Ok(Response::new(
            self.reply(format!("hello {}", all.join(" and "))),
        ))
    }

    type ChatStream = Replies;

    async fn chat(
        &self,
        request: Request<Streaming<HelloRequest>>,
    ) -> Result<Response<Replies>, Status> {
        let (address, served) = (self.address, self.served.clone());
        let replies = request.into_inner().map(move |request| {
            let polite = Self {
                address,
                served: served.clone(),
            };
            request.map(|request| polite.reply(format!("hello {}", request.name)))
        });
        Ok(Response::new(Box::pin(replies)))
    }
}

/// What no test waits longer for.
pub(crate) const HANG: Duration = Duration::from_secs(20);

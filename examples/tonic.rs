//! A tonic server as a provider: registered when it serves, and gone without a failed call.
//!
//! `cargo run --example tonic`
//!
//! `serve` is what one would write. The rest is its world: the embedded registry, or yours
//! (`NACOS_SERVER=host:8848`), and a caller that calls on while one of two servers leaves and comes back.
//! With a second name in place of the caller it is a provider to play with:
//! `cargo run --example tonic -- serve 127.0.0.1:8848` runs until Ctrl-C or SIGTERM.

#![expect(
    clippy::disallowed_methods,
    reason = "a program spawns tasks and reads the clock"
)]

#[allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::use_self
)]
#[path = "greeter/greeter.rs"]
mod greeter;

use std::{future::Future, pin::Pin, process::ExitCode, time::Duration};

use futures_util::Stream;
use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
    time::timeout,
};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Server, server::TcpIncoming},
};
use tower_nacos::{
    Client, Instance,
    grpc::Channel,
    provider::{self, Provider, Report, Stage},
    testing::Registry,
};

use crate::greeter::{
    HelloReply, HelloRequest,
    greeter_client::GreeterClient,
    greeter_server::{Greeter, GreeterServer},
};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// No step takes longer than this unless something hangs.
const HANG: Duration = Duration::from_secs(30);

/// Serves until `signal`, and a little longer. `online` is told when callers may come.
async fn serve(
    nacos: &Client,
    signal: impl Future<Output = ()> + Send + 'static,
    online: oneshot::Sender<String>,
) -> Result<Report, Error> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let provider = Provider::builder(nacos, "greeter")
        .instance(Instance::new(address.into()))
        .build();
    let serving = Server::builder()
        .layer(provider.layer())
        .add_service(GreeterServer::new(Greets(address.to_string())))
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            provider.offline_on(signal),
        );
    let telling = async {
        provider.reached(Stage::Online).await;
        let _ = online.send(address.to_string());
    };
    let (served, ()) = tokio::join!(serving, telling);
    served?;
    Ok(provider.report())
}

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match &*args.iter().map(|arg| &**arg).collect::<Vec<_>>() {
        [] => run().await,
        ["serve", server] => until_told(server).await,
        _ => Err("nothing, or `serve host:8848`".into()),
    };
    match done {
        Ok(last_line) => {
            println!("{last_line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("tonic: FAILED: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn until_told(server: &str) -> Result<String, Error> {
    let nacos = Client::connect(server).await?;
    let (online, at) = oneshot::channel();
    let saying = async {
        if let Ok(at) = at.await {
            println!("online at {at}; Ctrl-C or SIGTERM to end it");
        }
    };
    let (report, ()) = tokio::join!(serve(&nacos, provider::signal(), online), saying);
    Ok(report?.to_string())
}

async fn run() -> Result<String, Error> {
    let (server, _registry) = match std::env::var("NACOS_SERVER") {
        Ok(server) => (server, None),
        Err(_) => {
            let registry = Registry::start().await?;
            (registry.addr(), Some(registry))
        }
    };
    let first = Running::start(&server).await?;
    let second = Running::start(&server).await?;

    let nacos = Client::connect(&*server).await?;
    let greeters = nacos.subscribe("greeter").await?;
    greeters.wait_for(2, HANG).await?;
    let channel = Channel::new(&greeters);
    let (calling, mut called) = watch::channel(Called::default());
    let caller = tokio::spawn(call(GreeterClient::new(channel.clone()), calling));

    let seen = called.wait_for(|called| called.by(&first.address) && called.by(&second.address));
    timeout(HANG, seen).await??;
    let report = first.leave().await?;
    println!("one of two left: {report}");
    let third = Running::start(&server).await?;
    let seen = called.wait_for(|called| called.by(&third.address));
    timeout(HANG, seen).await??;
    println!("another came, and is called");
    drop(called); // which ends the caller
    let calls = caller.await??;

    second.leave().await?;
    third.leave().await?;
    nacos.close(Duration::from_secs(5)).await?;
    match channel.balance().counters().moved {
        0 => Ok(format!("tonic: ok calls={calls} failed=0 moved=0")),
        moved => Err(format!("{moved} of {calls} calls had to move").into()),
    }
}

/// A server of this process, told to go by a channel in the place of a signal.
struct Running {
    address: String,
    tell: oneshot::Sender<()>,
    serving: tokio::task::JoinHandle<Result<Report, Error>>,
}

impl Running {
    async fn start(server: &str) -> Result<Self, Error> {
        let nacos = Client::connect(server).await?;
        let (tell, told) = oneshot::channel();
        let (online, at) = oneshot::channel();
        let serving =
            tokio::spawn(async move { serve(&nacos, async { drop(told.await) }, online).await });
        let address = timeout(HANG, at).await??;
        Ok(Self {
            address,
            tell,
            serving,
        })
    }

    async fn leave(self) -> Result<Report, Error> {
        let _ = self.tell.send(());
        timeout(HANG, self.serving).await??
    }
}

/// Who has answered, and how often.
#[derive(Default)]
struct Called {
    calls: u64,
    instances: Vec<String>,
}

impl Called {
    fn by(&self, instance: &str) -> bool {
        self.instances.iter().any(|other| other == instance)
    }
}

/// Calls until nobody looks on any more, or a call fails.
async fn call(
    mut greeter: GreeterClient<Channel>,
    calling: watch::Sender<Called>,
) -> Result<u64, Error> {
    while !calling.is_closed() {
        let name = "Ann".to_owned();
        let reply = greeter.say_hello(HelloRequest { name }).await?.into_inner();
        calling.send_modify(|called| {
            called.calls += 1;
            if !called.by(&reply.instance) {
                called.instances.push(reply.instance);
            }
        });
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(calling.borrow().calls)
}

struct Greets(String);

type Replies = Pin<Box<dyn Stream<Item = Result<HelloReply, Status>> + Send>>;

#[tonic::async_trait]
impl Greeter for Greets {
    type SayManyStream = Replies;
    type ChatStream = Replies;

    async fn say_hello(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<HelloReply>, Status> {
        Ok(Response::new(HelloReply {
            message: format!("Hello, {}", request.into_inner().name),
            instance: self.0.clone(),
        }))
    }

    async fn say_many(&self, _: Request<HelloRequest>) -> Result<Response<Replies>, Status> {
        Err(Status::unimplemented("not in this example"))
    }

    async fn say_to_all(
        &self,
        _: Request<Streaming<HelloRequest>>,
    ) -> Result<Response<HelloReply>, Status> {
        Err(Status::unimplemented("not in this example"))
    }

    async fn chat(&self, _: Request<Streaming<HelloRequest>>) -> Result<Response<Replies>, Status> {
        Err(Status::unimplemented("not in this example"))
    }
}

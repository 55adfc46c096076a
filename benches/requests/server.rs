//! A server in a process of its own: HTTP/1, HTTP/2 and gRPC on one address, each answer a few bytes.

use std::{
    convert::Infallible,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    pin::Pin,
    process::{Child, Command, ExitCode, Stdio},
};

use futures_util::Stream;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{
    body::{Bytes, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::net::TcpListener;
use tonic::{Status, Streaming, body::Body};
use tower::Service;

use crate::{
    Error,
    greeter::{
        HelloReply, HelloRequest,
        greeter_server::{Greeter, GreeterServer},
    },
};

/// The first argument of the program when it is a server.
pub(crate) const AS_SERVER: &str = "as-server";

/// Killed when dropped; ends by itself when this process does, as its standard input closes.
pub(crate) struct Server {
    process: Child,
    pub(crate) address: SocketAddr,
}

impl Server {
    pub(crate) fn start() -> Result<Self, Error> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg(AS_SERVER)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let stdout = process.stdout.take().ok_or("a server without an output")?;
        BufReader::new(stdout).read_line(&mut line)?;
        Ok(Self {
            process,
            address: line.trim().parse()?,
        })
    }

    /// Returns when it is gone.
    pub(crate) fn kill(mut self) -> Result<(), Error> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Serves until its standard input ends.
pub(crate) fn run() -> ExitCode {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let served = runtime
        .map_err(Error::from)
        .and_then(|runtime| runtime.block_on(serve()));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("server: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> Result<(), Error> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let greeter = GreeterServer::new(Hello);
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let greeter = greeter.clone();
        tokio::spawn(async move {
            let answer = service_fn(move |request| answer(greeter.clone(), request));
            let builder = auto::Builder::new(TokioExecutor::new());
            let _ = builder.serve_connection(TokioIo::new(socket), answer).await;
        });
    }
}

async fn answer(
    mut greeter: GreeterServer<Hello>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    if request.uri().path().starts_with("/greeter.") {
        return greeter.call(request).await;
    }
    Ok(Response::new(Body::new(Full::new(Bytes::from_static(
        b"hello",
    )))))
}

struct Hello;

type Replies = Pin<Box<dyn Stream<Item = Result<HelloReply, Status>> + Send>>;

#[tonic::async_trait]
impl Greeter for Hello {
    type SayManyStream = Replies;
    type ChatStream = Replies;

    async fn say_hello(
        &self,
        request: tonic::Request<HelloRequest>,
    ) -> Result<tonic::Response<HelloReply>, Status> {
        Ok(tonic::Response::new(HelloReply {
            message: request.into_inner().name,
            instance: String::new(),
        }))
    }

    async fn say_many(
        &self,
        _: tonic::Request<HelloRequest>,
    ) -> Result<tonic::Response<Replies>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn say_to_all(
        &self,
        _: tonic::Request<Streaming<HelloRequest>>,
    ) -> Result<tonic::Response<HelloReply>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn chat(
        &self,
        _: tonic::Request<Streaming<HelloRequest>>,
    ) -> Result<tonic::Response<Replies>, Status> {
        Err(Status::unimplemented("not measured"))
    }
}

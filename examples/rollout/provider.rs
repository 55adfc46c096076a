//! A provider: a process of its own that serves HTTP/1, HTTP/2 and gRPC on one address, registers and
//! leaves through [`Provider`], and keeps a journal on its standard output of every request that it began and finished.
//!
//! The journal is what the claims are checked against. A line is written before a request is
//! worked on, straight into the pipe, so that it outlives a `kill -9`.

use std::{
    convert::Infallible,
    future::IntoFuture,
    io::{BufRead, Write},
    net::SocketAddr,
    pin::Pin,
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::{get, post},
    serve::ListenerExt,
};
use futures_util::{Stream, StreamExt, stream};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::oneshot,
    time::sleep,
};
use tonic::{Request, Status, Streaming};
use tower_nacos::{
    Client, Instance,
    provider::{self, Provider, Stage},
};

use crate::{
    Error,
    greeter::{
        HelloReply, HelloRequest,
        greeter_server::{Greeter, GreeterServer},
    },
};

/// The header that names who answered.
pub(crate) const INSTANCE: &str = "x-instance";
/// A long answer comes in so many pieces, one each so often.
pub(crate) const PIECES: u64 = 10;
const PIECE: Duration = Duration::from_millis(100);

/// The name of this life of the provider: `b.2` is b, started for the second time.
#[derive(Clone)]
struct Name(&'static str);

/// Serves until it is told to go, by SIGTERM or a line on its standard input, and leaves so that
/// nobody notices.
///
/// The end of its standard input ends it at once: a provider never outlives the program.
pub(crate) async fn run(
    (server, service): (&str, &str),
    name: &str,
    at: SocketAddr,
    push_delay: Duration,
) -> Result<(), Error> {
    let command = command();
    let name = Name(name.to_owned().leak());
    let listener = bind(at).await?;
    let address = listener.local_addr()?;
    let router = Router::new()
        .route("/orders/{id}", post(order))
        .route("/orders/{id}/report", get(report))
        .route_service(
            "/greeter.Greeter/{*method}",
            GreeterServer::new(name.clone()),
        )
        .with_state(name);
    let listener = listener.tap_io(|socket| drop(socket.set_nodelay(true)));

    let nacos = Client::connect(server).await?;
    let provider = Provider::builder(&nacos, service)
        .instance(Instance::new(address.into()))
        .push_delay(push_delay)
        .build();
    let told = async {
        tokio::select! {
            () = provider::signal() => {}
            _ = command => {}
        }
    };
    let offline = provider.offline_on(told);
    let serving = axum::serve(listener, router.layer(provider.layer()));
    let serving = serving.with_graceful_shutdown(offline).into_future();
    let telling = async {
        provider.reached(Stage::Online).await;
        say(&format!("ready {address}"));
        provider.reached(Stage::Lingering).await;
        say("offline");
    };
    let (served, ()) = tokio::join!(serving, telling);
    served?;
    let report = provider.report();
    say(&format!("over {report}"));
    nacos.close(Duration::from_secs(5)).await?;
    Ok(())
}

/// Work that changes something: to be done once.
async fn order(State(name): State<Name>, Path(id): Path<u64>, body: Bytes) -> Response {
    began(id);
    sleep(work(id)).await;
    finished(id);
    ([(INSTANCE, name.0)], body).into_response()
}

/// An answer that takes a second to read.
async fn report(State(name): State<Name>, Path(id): Path<u64>) -> Response {
    began(id);
    let pieces = pieces(id).map(|at| Ok::<_, Infallible>(format!("{at}\n")));
    ([(INSTANCE, name.0)], Body::from_stream(pieces)).into_response()
}

#[tonic::async_trait]
impl Greeter for Name {
    type SayManyStream = Pin<Box<dyn Stream<Item = Result<HelloReply, Status>> + Send>>;
    type ChatStream = Self::SayManyStream;

    async fn say_hello(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<tonic::Response<HelloReply>, Status> {
        let id = id_of(&request.into_inner())?;
        began(id);
        sleep(work(id)).await;
        finished(id);
        Ok(tonic::Response::new(self.reply(id)))
    }

    async fn say_many(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<tonic::Response<Self::SayManyStream>, Status> {
        let id = id_of(&request.into_inner())?;
        began(id);
        let this = self.clone();
        let replies = pieces(id).map(move |at| Ok(this.reply(at)));
        Ok(tonic::Response::new(Box::pin(replies)))
    }

    async fn say_to_all(
        &self,
        _: Request<Streaming<HelloRequest>>,
    ) -> Result<tonic::Response<HelloReply>, Status> {
        Err(Status::unimplemented("not in this example"))
    }

    async fn chat(
        &self,
        _: Request<Streaming<HelloRequest>>,
    ) -> Result<tonic::Response<Self::ChatStream>, Status> {
        Err(Status::unimplemented("not in this example"))
    }
}

impl Name {
    fn reply(&self, number: u64) -> HelloReply {
        HelloReply {
            message: number.to_string(),
            instance: self.0.to_owned(),
        }
    }
}

fn id_of(request: &HelloRequest) -> Result<u64, Status> {
    let id = request.name.parse();
    id.map_err(|_| Status::invalid_argument("the name is the request's number"))
}

/// 0 to 7 ms, so that there is always something in flight.
const fn work(id: u64) -> Duration {
    Duration::from_millis(id % 8)
}

fn pieces(id: u64) -> impl Stream<Item = u64> + Send {
    stream::unfold(0, move |at| async move {
        if at == PIECES {
            return None;
        }
        sleep(PIECE).await;
        if at + 1 == PIECES {
            finished(id);
        }
        Some((at, at + 1))
    })
}

fn began(id: u64) {
    say(&format!("b {id}"));
}

fn finished(id: u64) {
    say(&format!("f {id}"));
}

/// One line, in one write. Nobody reads it any more once the program is gone.
fn say(line: &str) {
    let _ = std::io::stdout().write_all(format!("{line}\n").as_bytes());
}

/// The first line of the standard input. A thread, so that its end is seen whatever the runtime does.
fn command() -> oneshot::Receiver<()> {
    let (send, command) = oneshot::channel();
    std::thread::spawn(move || {
        let mut lines = std::io::stdin().lock().lines().map_while(Result::ok);
        if lines.next().is_some() {
            let _ = send.send(());
        }
        lines.for_each(drop);
        std::process::exit(1);
    });
    command
}

/// Where it was before: a caller's own port may lie there for a moment.
async fn bind(at: SocketAddr) -> Result<TcpListener, Error> {
    let mut tries = 0;
    loop {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        match socket.bind(at).and_then(|()| socket.listen(1024)) {
            Ok(listener) => return Ok(listener),
            Err(error) if tries == 50 => return Err(format!("{at}: {error}").into()),
            Err(_) => tries += 1,
        }
        sleep(Duration::from_millis(100)).await;
    }
}

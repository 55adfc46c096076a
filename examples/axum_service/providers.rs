//! The world of the service: who it calls, and what they saw of each call.

use std::{
    future::IntoFuture,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::Stream;
use http::{HeaderMap, StatusCode};
use serde_json::json;
use tokio::{net::TcpListener, task::JoinHandle, time::sleep};
use tonic::{Request, Status, Streaming};
use tower_nacos::{
    Client, Instance,
    provider::{self, Provider},
};

use crate::{
    Error,
    context::{TIMEOUT, TRACEPARENT},
    greeter::{
        HelloReply, HelloRequest,
        greeter_server::{Greeter, GreeterServer},
    },
};

/// One instance of a service: a server that registers, and leaves on a signal.
pub(crate) struct Served {
    provider: Provider,
    serving: JoinHandle<std::io::Result<()>>,
}

/// The calls that the providers got.
#[derive(Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<Vec<Call>>>);

#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) service: &'static str,
    pub(crate) traceparent: String,
    pub(crate) within: Option<Duration>,
}

struct Greets(Seen);

impl Served {
    /// Serves; returns when it is registered.
    pub(crate) async fn start(
        server: &str,
        service: &'static str,
        router: Router,
    ) -> Result<Self, Error> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let nacos = Client::connect(server).await?;
        let provider = Provider::builder(&nacos, service)
            .instance(Instance::new(listener.local_addr()?.into()))
            .build();
        let serving = axum::serve(listener, router.layer(provider.layer()))
            .with_graceful_shutdown(provider.offline_on(provider::signal()))
            .into_future();
        let this = Self {
            serving: tokio::spawn(serving),
            provider,
        };
        this.provider.online().await?;
        Ok(this)
    }

    /// Leaves as on a signal; returns when its server has ended.
    pub(crate) async fn leave(mut self) -> Result<(), Error> {
        let report = self.provider.offline().await;
        (&mut self.serving).await??;
        println!("left: {report}");
        Ok(())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Seen {
    pub(crate) fn all(&self) -> Vec<Call> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn forget(&self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    fn note(&self, service: &'static str, headers: &HeaderMap) {
        let text = |name: &str| headers.get(name)?.to_str().ok();
        let grpc = text("grpc-timeout").and_then(|text| {
            let (amount, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
            let amount = amount.parse().ok()?;
            Some(match unit {
                "n" => Duration::from_nanos(amount),
                "u" => Duration::from_micros(amount),
                "m" => Duration::from_millis(amount),
                _ => Duration::from_secs(amount),
            })
        });
        let http = || text(TIMEOUT)?.parse().ok().map(Duration::from_millis);
        let call = Call {
            service,
            traceparent: text(TRACEPARENT).unwrap_or_default().to_owned(),
            within: grpc.or_else(http),
        };
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(call);
    }
}

/// How much there is of an item, over HTTP.
pub(crate) fn stock(seen: &Seen) -> Router {
    Router::new()
        .route("/items/{item}", get(item))
        .with_state(seen.clone())
}

async fn item(State(seen): State<Seen>, Path(item): Path<String>, headers: HeaderMap) -> Response {
    seen.note("stock", &headers);
    match &*item {
        "nothing" => (StatusCode::NOT_FOUND, "no nothing in stock").into_response(),
        "broken" => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        "slow" => {
            sleep(Duration::from_secs(60)).await;
            Json(json!({ "left": 0 })).into_response()
        }
        _ => Json(json!({ "left": 3 })).into_response(),
    }
}

/// Greets, over gRPC.
pub(crate) fn greeter(seen: &Seen) -> Router {
    let service = GreeterServer::new(Greets(seen.clone()));
    Router::new().route_service("/greeter.Greeter/{*method}", service)
}

type Replies = Pin<Box<dyn Stream<Item = Result<HelloReply, Status>> + Send>>;

#[tonic::async_trait]
impl Greeter for Greets {
    type SayManyStream = Replies;
    type ChatStream = Replies;

    async fn say_hello(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<tonic::Response<HelloReply>, Status> {
        self.0
            .note("greeter", &request.metadata().clone().into_headers());
        let name = request.into_inner().name;
        if name == "sleepy" {
            sleep(Duration::from_secs(60)).await;
        }
        Ok(tonic::Response::new(HelloReply {
            message: format!("Hello, {name}"),
            instance: String::new(),
        }))
    }

    async fn say_many(&self, _: Request<HelloRequest>) -> Result<tonic::Response<Replies>, Status> {
        Err(Status::unimplemented("not in this example"))
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
    ) -> Result<tonic::Response<Replies>, Status> {
        Err(Status::unimplemented("not in this example"))
    }
}

//! The providers: an axum server each that answers HTTP/1, HTTP/2 and gRPC at one address.

use std::{collections::HashMap, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
    serve::ListenerExt,
};
use futures_util::Stream;
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::watch,
    task::JoinHandle,
    time::sleep,
};
use tonic::{Request, Response, Status, Streaming};
use tower_nacos::{
    Instance,
    provider::{Provider, Stage},
};

use crate::{
    callers::{WAYS, Way},
    foreign::Foreign,
    greeter::{
        HelloReply, HelloRequest,
        greeter_server::{Greeter, GreeterServer},
    },
    server::Server,
    within,
};

pub(crate) const PROVIDERS: usize = 5;
/// Says how a call was made.
pub(crate) const WAY: &str = "x-way";

pub(crate) struct Fleet<'a> {
    server: &'a Server,
    service: &'a str,
    lives: Vec<Life>,
}

/// One start of a provider.
struct Life {
    address: SocketAddr,
    provider: Provider,
    serving: JoinHandle<std::io::Result<()>>,
    calls: Calls,
}

/// How often it was called, by whom.
#[derive(Clone)]
struct Calls(Arc<watch::Sender<HashMap<String, u64>>>);

impl<'a> Fleet<'a> {
    pub(crate) async fn start(server: &'a Server, service: &'a str) -> Self {
        let mut this = Self {
            server,
            service,
            lives: Vec::new(),
        };
        for _ in 0..PROVIDERS {
            let life = Life::start(server, service, "127.0.0.1:0".parse().unwrap()).await;
            this.lives.push(life);
        }
        this
    }

    /// Tells one to go, waits until it is gone, and starts it anew in the same place.
    pub(crate) async fn restart(&mut self, which: usize) {
        let address = self.lives[which].address;
        self.lives[which].leave().await;
        self.lives[which] = Life::start(self.server, self.service, address).await;
    }

    /// Returns when callers of each kind have called each of them since its start.
    pub(crate) async fn are_called(&self, foreign: &Foreign) {
        for life in &self.lives {
            let mut calls = life.calls.0.subscribe();
            let all = calls.wait_for(|calls| {
                let ours = WAYS.iter().map(|way| way.name());
                ours.chain(foreign.names())
                    .all(|name| calls.contains_key(name))
            });
            let what = format!("{} is called", life.address);
            within(&what, all).await.unwrap();
        }
    }

    pub(crate) async fn stop(mut self) {
        for life in &mut self.lives {
            life.provider.offline().await;
        }
    }
}

impl Life {
    async fn start(server: &Server, service: &str, at: SocketAddr) -> Self {
        let listener = bind(at).await;
        let address = listener.local_addr().unwrap();
        let calls = Calls(Arc::default());
        let router = Router::new()
            .route("/orders", post(order))
            .with_state(calls.clone())
            .route_service(
                "/greeter.Greeter/{*method}",
                GreeterServer::new(calls.clone()),
            );
        let nacos = server.client().await;
        let provider = Provider::builder(&nacos, service)
            .instance(Instance::new(address.into()))
            .build();
        let offline = provider.offline_on(std::future::pending());
        let router = router.layer(provider.layer());
        let listener = listener.tap_io(|socket| drop(socket.set_nodelay(true)));
        let serving = tokio::spawn(async move {
            let served = axum::serve(listener, router);
            served.with_graceful_shutdown(offline).await
        });
        within("online", provider.reached(Stage::Online)).await;
        Self {
            address,
            provider,
            serving,
            calls,
        }
    }

    async fn leave(&mut self) {
        let report = within("offline", self.provider.offline()).await;
        within("the server ends", &mut self.serving)
            .await
            .unwrap()
            .unwrap();
        let offline = report.offline.as_ref().unwrap();
        assert!(offline.is_confirmed() && offline.cut == 0, "{report}");
    }
}

/// Something that is not to be done twice.
async fn order(State(calls): State<Calls>, headers: HeaderMap, body: String) -> String {
    match headers.get(WAY).and_then(|way| way.to_str().ok()) {
        Some(way) => calls.count(way),
        None => return StatusCode::BAD_REQUEST.to_string(),
    }
    sleep(Duration::from_millis(2)).await;
    body
}

impl Calls {
    fn count(&self, way: &str) {
        self.0.send_modify(|calls| match calls.get_mut(way) {
            Some(count) => *count += 1,
            None => drop(calls.insert(way.to_owned(), 1)),
        });
    }
}

/// Where it was before: a caller's own port may lie there for a moment.
async fn bind(at: SocketAddr) -> TcpListener {
    let bound = async {
        loop {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_reuseaddr(true).unwrap();
            match socket.bind(at).and_then(|()| socket.listen(1024)) {
                Ok(listener) => return listener,
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    };
    within("its port is free", bound).await
}

type Replies = Pin<Box<dyn Stream<Item = Result<HelloReply, Status>> + Send>>;

#[tonic::async_trait]
impl Greeter for Calls {
    type SayManyStream = Replies;
    type ChatStream = Replies;

    async fn say_hello(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<HelloReply>, Status> {
        self.count(Way::Grpc.name());
        sleep(Duration::from_millis(2)).await;
        Ok(Response::new(HelloReply {
            message: request.into_inner().name,
            instance: String::new(),
        }))
    }

    async fn say_many(&self, _: Request<HelloRequest>) -> Result<Response<Replies>, Status> {
        Err(Status::unimplemented("nobody asks"))
    }

    async fn say_to_all(
        &self,
        _: Request<Streaming<HelloRequest>>,
    ) -> Result<Response<HelloReply>, Status> {
        Err(Status::unimplemented("nobody asks"))
    }

    async fn chat(&self, _: Request<Streaming<HelloRequest>>) -> Result<Response<Replies>, Status> {
        Err(Status::unimplemented("nobody asks"))
    }
}

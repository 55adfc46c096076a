//! G3 and G4 with real sockets: what the provider sees of an eviction.

#![expect(
    clippy::disallowed_methods,
    reason = "a test owns the tasks that it spawns"
)]

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::{
    Request, Response,
    body::{Bytes, Frame, Incoming},
    service::service_fn,
};
use hyper_util::{
    client::legacy::{Client as Http, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    time::timeout,
};
use tower::{Service, ServiceExt, balance::p2c::Balance};
use tower_nacos::{
    Instance, Subscription,
    directory::{Options, Origin, Writer, channel},
    model::{Listing, ServiceKey},
};

const HANG: Duration = Duration::from_secs(20);

/// An HTTP/1 provider that counts its connections and streams what the test gives it.
struct Provider {
    addr: SocketAddr,
    connections: watch::Receiver<usize>,
    accepted: Arc<AtomicUsize>,
    chunks: mpsc::UnboundedSender<&'static str>,
}

impl Provider {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (count, connections) = watch::channel(0);
        let (chunks, source) = mpsc::unbounded_channel::<&'static str>();
        let source = Arc::new(tokio::sync::Mutex::new(source));
        let accepted = Arc::new(AtomicUsize::new(0));
        let total = accepted.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                total.fetch_add(1, SeqCst);
                count.send_modify(|open| *open += 1);
                let (count, source) = (count.clone(), source.clone());
                tokio::spawn(async move {
                    let answer = service_fn(move |request: Request<Incoming>| {
                        let source = source.clone();
                        async move {
                            // `/stream` sends chunks until the test ends them; all else is empty.
                            let (sender, body) =
                                mpsc::channel::<Result<Frame<Bytes>, Infallible>>(1);
                            if request.uri().path() == "/stream" {
                                tokio::spawn(async move {
                                    while let Some(chunk) = source.lock().await.recv().await {
                                        if chunk.is_empty() {
                                            break;
                                        }
                                        let frame =
                                            Frame::data(Bytes::from_static(chunk.as_bytes()));
                                        let _ = sender.send(Ok(frame)).await;
                                    }
                                });
                            }
                            let body = StreamBody::new(Chunks(body));
                            Ok::<_, Infallible>(Response::new(body))
                        }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(socket), answer)
                        .await;
                    count.send_modify(|open| *open -= 1);
                });
            }
        });
        Self {
            addr,
            connections,
            accepted,
            chunks,
        }
    }

    async fn has_connections(&self, wanted: usize) {
        let mut connections = self.connections.clone();
        let reached = timeout(HANG, connections.wait_for(|open| *open == wanted)).await;
        reached
            .unwrap_or_else(|_| panic!("never {wanted} connections"))
            .unwrap();
    }
}

struct Chunks(mpsc::Receiver<Result<Frame<Bytes>, Infallible>>);

impl futures_core::Stream for Chunks {
    type Item = Result<Frame<Bytes>, Infallible>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}

fn service() -> (Writer, Subscription) {
    let key = ServiceKey::new("public", "promises".parse().unwrap()).unwrap();
    channel(key, Options::default())
}

fn list(writer: &mut Writer, instances: &[Instance]) {
    let now = tokio::time::Instant::now().into_std();
    writer.apply(Listing::new(instances.iter().cloned()), Origin::Push, now);
}

/// A service that owns its connections: a pool for each instance.
#[derive(Clone)]
struct Pool {
    http: Http<HttpConnector, Empty<Bytes>>,
    address: String,
}

fn pool(instance: &Instance) -> Pool {
    let http = Http::builder(TokioExecutor::new()).build_http();
    Pool {
        http,
        address: instance.address().to_string(),
    }
}

impl Service<&'static str> for Pool {
    type Response = Response<Incoming>;
    type Error = hyper_util::client::legacy::Error;
    type Future = hyper_util::client::legacy::ResponseFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::<Request<Empty<Bytes>>>::poll_ready(&mut self.http, cx)
    }

    fn call(&mut self, path: &'static str) -> Self::Future {
        self.http
            .get(format!("http://{}{path}", self.address).parse().unwrap())
    }
}

#[tokio::test]
async fn g3_the_connection_to_an_evicted_instance_closes_without_a_request_passing() {
    let (gone, stays) = (Provider::start().await, Provider::start().await);
    let (mut writer, orders) = service();
    list(&mut writer, &[gone.addr.into(), stays.addr.into()]);
    let mut balance = Balance::new(orders.discover(pool));
    while *gone.connections.borrow() == 0 || *stays.connections.borrow() == 0 {
        let answer = timeout(HANG, balance.ready().await.unwrap().call("/"))
            .await
            .unwrap()
            .unwrap();
        answer.into_body().collect().await.unwrap();
    }
    // From here on nobody polls the balancer.
    list(&mut writer, &[stays.addr.into()]);
    gone.has_connections(0).await;
    assert_eq!(*stays.connections.borrow(), 1);
}

#[tokio::test]
async fn g3_an_instance_that_is_listed_but_closed_keeps_its_connections() {
    let provider = Provider::start().await;
    let (mut writer, orders) = service();
    list(&mut writer, &[provider.addr.into()]);
    let mut balance = Balance::new(orders.discover(pool));
    let answer = balance.ready().await.unwrap().call("/").await.unwrap();
    answer.into_body().collect().await.unwrap();
    list(
        &mut writer,
        &[Instance::from(provider.addr).with_weight(0.0)],
    );
    timeout(HANG, orders.applied(orders.revision()))
        .await
        .unwrap()
        .unwrap();
    list(&mut writer, &[provider.addr.into()]);
    timeout(HANG, orders.applied(orders.revision()))
        .await
        .unwrap()
        .unwrap();
    let answer = timeout(HANG, balance.ready().await.unwrap().call("/"))
        .await
        .unwrap()
        .unwrap();
    answer.into_body().collect().await.unwrap();
    assert_eq!(
        provider.accepted.load(SeqCst),
        1,
        "the same connection all along"
    );
}

#[tokio::test]
async fn g4_a_streaming_response_finishes_on_an_evicted_instance_and_then_its_connection_closes() {
    let provider = Provider::start().await;
    let (mut writer, orders) = service();
    list(&mut writer, &[provider.addr.into()]);
    let mut balance = Balance::new(orders.discover(pool));
    provider.chunks.send("before,").unwrap();
    let answer = balance
        .ready()
        .await
        .unwrap()
        .call("/stream")
        .await
        .unwrap();
    let mut body = answer.into_body();
    let mut received = Vec::new();
    let first = timeout(HANG, body.frame()).await.unwrap().unwrap().unwrap();
    received.extend(first.into_data().unwrap());

    list(&mut writer, &[]);
    timeout(HANG, orders.applied(orders.revision()))
        .await
        .unwrap()
        .unwrap();
    for chunk in ["after", ""] {
        provider.chunks.send(chunk).unwrap();
    }
    let rest = timeout(HANG, body.collect()).await.unwrap().unwrap();
    received.extend(rest.to_bytes());
    assert_eq!(received, b"before,after");
    provider.has_connections(0).await;
}

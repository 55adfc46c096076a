//! Servers that behave, servers that do not, and balancers over them.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc},
    task::JoinHandle,
};
use tower::ServiceExt;
use tower_nacos::{
    Balance, Instance, ServiceKey, Subscription,
    balance::WeightedRoundRobin,
    directory::{self, Writer},
    endpoint::CallError,
    http::{BuildHttp, HttpBalance},
    transport::{self, Body, Protocol, ResponseBody, Transport, TransportBuilder},
};

pub(super) type Rotating = HttpBalance<WeightedRoundRobin>;

/// A server over hyper, for HTTP/1 and HTTP/2, that echoes bodies and notes what it was asked.
///
/// `/hang` never answers; `/stream` answers with what [`Server::stream`] sends.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) log: Arc<Log>,
    task: JoinHandle<()>,
}

#[derive(Default)]
pub(super) struct Log {
    /// The requests' `x-id`s, in the order of their ends.
    pub(super) ids: Mutex<Vec<String>>,
    pub(super) lines: Mutex<Vec<String>>,
    pub(super) connections: AtomicUsize,
    pub(super) open: AtomicUsize,
    /// Told when a connection has closed.
    pub(super) closed: Notify,
    pub(super) most_at_once: AtomicUsize,
    streams: Mutex<Vec<mpsc::UnboundedSender<Bytes>>>,
}

impl Server {
    pub(super) async fn start() -> Self {
        Self::start_with(u32::MAX).await
    }

    /// Takes so many HTTP/2 streams at once on a connection.
    pub(super) async fn start_with(max_streams: u32) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), max_streams)
    }

    pub(super) fn on(listener: TcpListener, max_streams: u32) -> Self {
        let address = listener.local_addr().unwrap();
        let log = Arc::new(Log::default());
        let noted = Arc::clone(&log);
        let task = spawn(async move {
            let mut connections = tokio::task::JoinSet::new(); // aborted with this task
            loop {
                let Ok((socket, _)) = listener.accept().await else {
                    continue;
                };
                connections.spawn(serve(socket, Arc::clone(&noted), max_streams));
            }
        });
        Self { address, log, task }
    }

    pub(super) fn ids(&self) -> Vec<String> {
        self.log.ids.lock().unwrap().clone()
    }

    /// Sends to every `/stream` that is open; drops them if there is nothing to send.
    pub(super) fn stream(&self, data: Option<&'static str>) {
        let mut streams = self.log.streams.lock().unwrap();
        match data {
            Some(data) => {
                for stream in &*streams {
                    let _ = stream.send(Bytes::from_static(data.as_bytes()));
                }
            }
            None => streams.clear(),
        }
    }

    pub(super) async fn until_connected(&self, connections: usize) {
        soon("connections", async {
            while self.log.connections.load(Ordering::SeqCst) < connections {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }

    pub(super) async fn until_open(&self, connections: usize) {
        soon("connections close", async {
            loop {
                let closed = self.log.closed.notified();
                tokio::pin!(closed);
                closed.as_mut().enable();
                if self.log.open.load(Ordering::SeqCst) == connections {
                    return;
                }
                closed.await;
            }
        })
        .await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(super) async fn serve<I>(socket: I, log: Arc<Log>, max_streams: u32)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    struct Open(Arc<Log>);
    impl Drop for Open {
        fn drop(&mut self) {
            self.0.open.fetch_sub(1, Ordering::SeqCst);
            self.0.closed.notify_waiters();
        }
    }
    log.connections.fetch_add(1, Ordering::SeqCst);
    log.open.fetch_add(1, Ordering::SeqCst);
    let open = Open(Arc::clone(&log));
    let at_once = Arc::new(AtomicUsize::new(0));
    let service = service_fn(move |request| {
        let (log, at_once) = (Arc::clone(&log), Arc::clone(&at_once));
        let now = at_once.fetch_add(1, Ordering::SeqCst) + 1;
        log.most_at_once.fetch_max(now, Ordering::SeqCst);
        async move {
            let answer = answer(request, log).await;
            at_once.fetch_sub(1, Ordering::SeqCst);
            answer
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // Callers that give up reset their streams: as many as a test likes, where hyper ends a
    // connection (`too_many_resets`) after 20 that its service had not taken yet.
    builder
        .http2()
        .max_concurrent_streams(max_streams)
        .max_pending_accept_reset_streams(10_000);
    let _ = builder
        .serve_connection_with_upgrades(TokioIo::new(socket), service)
        .await;
    drop(open);
}

async fn answer(
    request: Request<Incoming>,
    log: Arc<Log>,
) -> Result<Response<BoxBody<Bytes, Infallible>>, hyper::Error> {
    let (parts, body) = request.into_parts();
    let authority = match parts.uri.authority() {
        Some(authority) => authority.to_string(),
        None => parts.headers["host"].to_str().unwrap().to_owned(),
    };
    let path = parts.uri.path().to_owned();
    let line = format!("{:?} {} {path} {authority}", parts.version, parts.method);
    log.lines.lock().unwrap().push(line);
    let body = body.collect().await?.to_bytes(); // a caller who goes ends its connection
    let id = parts
        .headers
        .get("x-id")
        .map(|id| id.to_str().unwrap().to_owned());
    log.ids.lock().unwrap().extend(id);
    if path == "/hang" {
        std::future::pending::<()>().await;
    }
    if path == "/stream" {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        log.streams.lock().unwrap().push(sender);
        let pieces = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx));
        let frames = futures_util::StreamExt::map(pieces, |data| Ok(Frame::data(data)));
        return Ok(Response::new(BodyExt::boxed(StreamBody::new(frames))));
    }
    let mut response = Response::new(http_body_util::Full::new(body).boxed());
    if path == "/headers" {
        for at in 0..40 {
            let name = http::HeaderName::try_from(format!("x-{at}")).unwrap();
            response
                .headers_mut()
                .insert(name, "x".repeat(20_000).parse().unwrap());
        }
    }
    Ok(response)
}

/// A server of which each connection is treated by a function.
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    pub(super) connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Peer {
    pub(super) async fn start<F, Fut>(treat: F) -> Self
    where
        F: Fn(TcpStream, usize) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let task = spawn(async move {
            let mut treated = tokio::task::JoinSet::new();
            loop {
                let Ok((socket, _)) = listener.accept().await else {
                    continue;
                };
                let at = counted.fetch_add(1, Ordering::SeqCst);
                treated.spawn(treat(socket, at));
            }
        });
        Self {
            address,
            connections,
            task,
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An address where nobody listens.
pub(super) async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// Closes with RST.
pub(super) fn reset(socket: &TcpStream) {
    let linger = Some(Duration::ZERO);
    socket2::SockRef::from(socket).set_linger(linger).unwrap();
}

/// Reads one HTTP/1 request with a body of that length.
pub(super) async fn read_request(socket: &mut TcpStream, body: usize) -> String {
    let mut read = Vec::new();
    loop {
        let at = read.windows(4).position(|w| w == b"\r\n\r\n");
        if at.is_some_and(|at| read.len() >= at + 4 + body) {
            return String::from_utf8(read).unwrap();
        }
        if socket.read_buf(&mut read).await.unwrap_or(0) == 0 {
            return String::from_utf8(read).unwrap();
        }
    }
}

pub(super) const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// HTTP/2 by the frame.
pub(super) struct Frames(pub(super) TcpStream);

#[derive(Debug)]
pub(super) struct RawFrame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const GOAWAY: u8 = 7;
pub(super) const END_STREAM: u8 = 1;
pub(super) const REFUSED_STREAM: u32 = 7;

impl Frames {
    /// Reads the preface, and sends SETTINGS.
    pub(super) async fn accept(mut socket: TcpStream) -> Option<Self> {
        let mut preface = [0; 24];
        socket.read_exact(&mut preface).await.ok()?;
        let mut frames = Self(socket);
        frames.send(SETTINGS, 0, 0, &[]).await;
        Some(frames)
    }

    /// The next frame that is about a stream; SETTINGS and PINGs are answered.
    pub(super) async fn next(&mut self) -> Option<RawFrame> {
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.ok()?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            self.0.read_exact(&mut payload).await.ok()?;
            let frame = RawFrame {
                kind: head[3],
                flags: head[4],
                stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
                payload,
            };
            match (frame.kind, frame.flags & 1) {
                (SETTINGS, 0) => self.send(SETTINGS, 1, 0, &[]).await,
                (6, 0) => self.send(6, 1, 0, &frame.payload).await,
                (DATA | HEADERS, _) => return Some(frame),
                _ => {}
            }
        }
    }

    pub(super) async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = (payload.len() as u32).to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        let _ = self.0.write_all(&frame).await;
    }

    /// `200`, and no body.
    pub(super) async fn answer(&mut self, stream: u32) {
        self.send(HEADERS, 4 | END_STREAM, stream, &[0x88]).await;
    }

    pub(super) async fn reset(&mut self, stream: u32, reason: u32) {
        self.send(RST_STREAM, 0, stream, &reason.to_be_bytes())
            .await;
    }

    pub(super) async fn go_away(&mut self, last: u32, reason: u32) {
        let mut payload = last.to_be_bytes().to_vec();
        payload.extend(reason.to_be_bytes());
        self.send(GOAWAY, 0, 0, &payload).await;
    }
}

pub(super) fn builder(protocol: Protocol) -> TransportBuilder {
    Transport::builder().protocol(protocol)
}

pub(super) fn registry() -> (Writer, Subscription) {
    let key = ServiceKey::new("dev", "orders".parse().unwrap()).unwrap();
    directory::channel(key, directory::Options::default())
}

pub(super) fn list(writer: &mut Writer, addresses: &[SocketAddr]) {
    let instances = addresses.iter().map(|address| Instance::from(*address));
    #[expect(clippy::disallowed_methods, reason = "the writer is told the time")]
    writer.publish(instances, Instant::now());
}

/// A balancer that takes them in turn.
pub(super) fn rotating(addresses: &[SocketAddr], builder: TransportBuilder) -> Rotating {
    let instances = addresses.iter().map(|address| Instance::from(*address));
    over(&Subscription::fixed(instances), builder)
}

pub(super) fn over(orders: &Subscription, builder: TransportBuilder) -> Rotating {
    Balance::builder(orders)
        .policy(WeightedRoundRobin::new())
        .build_http(builder.build())
}

/// One transport, without a balancer.
pub(super) fn alone(address: SocketAddr, builder: TransportBuilder) -> Transport {
    use tower_nacos::endpoint::MakeEndpoint;
    builder.build().make(&Instance::from(address))
}

pub(super) fn post(id: impl std::fmt::Display, body: impl Into<Body>) -> Request<Body> {
    let request = Request::post("/v1/items").header("x-id", id.to_string());
    request.body(body.into()).unwrap()
}

pub(super) fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

/// A stream of these pieces that takes a turn of the scheduler before each.
pub(super) fn stream(pieces: impl IntoIterator<Item = Bytes> + Send + 'static) -> Body
where
    <Vec<Bytes> as IntoIterator>::IntoIter: Send,
{
    let pieces: Vec<_> = pieces.into_iter().collect();
    let (sender, mut receiver) = mpsc::unbounded_channel();
    spawn(async move {
        for piece in pieces {
            tokio::task::yield_now().await;
            let _ = sender.send(piece);
        }
    });
    let pieces = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx));
    let frames =
        futures_util::StreamExt::map(pieces, |data| Ok::<_, Infallible>(Frame::data(data)));
    Body::new(StreamBody::new(frames))
}

pub(super) async fn call(
    balance: &Rotating,
    request: Request<Body>,
) -> Result<Response<ResponseBody>, CallError> {
    soon("a call", balance.clone().oneshot(request)).await
}

/// Calls and reads the answer.
pub(super) async fn text(balance: &Rotating, request: Request<Body>) -> Result<String, CallError> {
    let response = call(balance, request).await?;
    let body = soon("a body", response.into_body().collect())
        .await
        .unwrap();
    Ok(String::from_utf8(body.to_bytes().to_vec()).unwrap())
}

/// The error of one call to one transport.
pub(super) async fn failure(transport: &Transport, request: Request<Body>) -> transport::Error {
    let called = soon("a call", transport.clone().oneshot(request)).await;
    called.map(drop).expect_err("it should fail")
}

/// The transport's error inside of a balancer's.
pub(super) fn inner(error: &CallError) -> &transport::Error {
    error.inner().unwrap_or_else(|| panic!("{error}"))
}

/// How often each of these was seen, over several logs.
pub(super) fn tally<'a>(logs: impl IntoIterator<Item = &'a Server>) -> BTreeMap<String, usize> {
    let mut tally = BTreeMap::new();
    for id in logs.into_iter().flat_map(Server::ids) {
        *tally.entry(id).or_default() += 1;
    }
    tally
}

/// A task of a test, which ends with its runtime.
#[expect(clippy::disallowed_methods, reason = "a test's runtime owns it")]
pub(super) fn spawn(task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(task)
}

/// What must come, within a time that only a hang exceeds.
pub(super) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future)
        .await
        .unwrap_or_else(|_| panic!("hangs: {what}"))
}

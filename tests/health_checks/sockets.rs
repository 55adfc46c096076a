//! What is asked over sockets, and what servers hear of it.

pub(super) use std::{
    convert::Infallible,
    future::{Future, pending},
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

pub(super) use bytes::Bytes;
pub(super) use http::{HeaderMap, Request, Response, StatusCode};
pub(super) use http_body::Frame;
pub(super) use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{io::AsyncWriteExt, net::TcpListener, sync::mpsc, time::timeout};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{PrivateKeyDer, pem::PemObject},
    },
};
use tower::ServiceExt;
pub(super) use tower_nacos::{
    Balance, Instance, Subscription,
    balance::{BalanceExplanation, Pickable},
    endpoint::HealthCheck,
    grpc::Channel,
    http::{BuildHttp, HttpBalance},
    transport::{Body, Tls, Transport},
};

pub(super) type Answer = Response<BoxBody<Bytes, Infallible>>;

/// An instance, and what it hears.
pub(super) struct Server {
    pub(super) address: String,
    heard: mpsc::UnboundedReceiver<String>,
}

/// Tells that it is dropped: what a server had in hand is gone.
pub(super) struct Told(mpsc::UnboundedSender<String>, &'static str);

impl Told {
    pub(super) fn tell(&self, what: &str) {
        let _ = self.0.send(what.to_owned());
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.0.send(self.1.to_owned());
    }
}

impl Server {
    /// Answers by that, over HTTP/1.1 and HTTP/2, and says what it was asked for.
    pub(super) async fn start<F, Fut>(answer: F) -> Self
    where
        F: Fn(Request<Incoming>, Told) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Answer> + Send + 'static,
    {
        Self::secure(None, answer).await
    }

    /// The same under TLS.
    async fn secure<F, Fut>(tls: Option<TlsAcceptor>, answer: F) -> Self
    where
        F: Fn(Request<Incoming>, Told) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Answer> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (tell, heard) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let (answer, tell, tls) = (answer.clone(), tell.clone(), tls.clone());
                let serve = service_fn(move |request: Request<Incoming>| {
                    let _ = tell.send(request.uri().path().to_owned());
                    let answering = answer(request, Told(tell.clone(), "dropped"));
                    async { Ok::<_, Infallible>(answering.await) }
                });
                tokio::spawn(async move {
                    let server = auto::Builder::new(TokioExecutor::new());
                    let Some(tls) = tls else {
                        let _ = server.serve_connection(TokioIo::new(socket), serve).await;
                        return;
                    };
                    if let Ok(socket) = tls.accept(socket).await {
                        let _ = server.serve_connection(TokioIo::new(socket), serve).await;
                    }
                });
            }
        });
        Self { address, heard }
    }

    pub(super) fn instance(&self) -> Instance {
        Instance::parse(&self.address).unwrap()
    }

    pub(super) async fn hears(&mut self, what: &str) {
        // All of it: others may be heard for ever.
        soon(async { while self.heard.recv().await.unwrap() != what {} }).await;
    }

    /// How often it has been asked for this since.
    fn times(&mut self, what: &str) -> usize {
        let mut times = 0;
        while let Ok(heard) = self.heard.try_recv() {
            times += usize::from(heard == what);
        }
        times
    }
}

/// What is never to happen ends the test, and how long the rest takes is nobody's business.
pub(super) async fn soon<T>(event: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(30), event)
        .await
        .expect("it did not happen")
}

pub(super) async fn until(mut is_so: impl FnMut() -> bool) {
    soon(async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

pub(super) fn plain(status: StatusCode) -> Answer {
    let mut answer = Response::new(BoxBody::default());
    *answer.status_mut() = status;
    answer
}

pub(super) fn brisk(check: HealthCheck) -> HealthCheck {
    check
        .interval(Duration::from_millis(100))
        .timeout(Duration::from_secs(20))
        .interval_jitter(0.0)
}

pub(super) fn over(
    instances: impl IntoIterator<Item = Instance>,
    check: HealthCheck,
) -> HttpBalance {
    Balance::builder(&Subscription::fixed(instances))
        .health_check(check)
        .build_http(Transport::builder().build())
}

pub(super) fn explained(balance: &HttpBalance, address: &str) -> BalanceExplanation {
    balance.explain(&address.parse().unwrap())
}

pub(super) fn reason(explanation: &BalanceExplanation) -> Option<String> {
    match &explanation.verdict {
        Pickable::Refused { reason, .. } => Some(reason.to_string()),
        _ => None,
    }
}

pub(super) async fn call(balance: &HttpBalance) -> StatusCode {
    let request = Request::get("/item").body(Body::empty()).unwrap();
    balance.clone().oneshot(request).await.unwrap().status()
}

#[tokio::test]
async fn an_instance_that_says_it_is_ill_is_left_out_until_it_says_otherwise() {
    let health = Arc::new(AtomicU16::new(200));
    let says = Arc::clone(&health);
    let mut ill = Server::start(move |request, _| {
        let status = match request.uri().path() {
            "/health" => StatusCode::from_u16(says.load(SeqCst)).unwrap(),
            _ => StatusCode::OK,
        };
        async move { plain(status) }
    })
    .await;
    let mut well = Server::start(|_, _| async { plain(StatusCode::OK) }).await;
    let balance = over(
        [ill.instance(), well.instance()],
        brisk(HealthCheck::http("/health")),
    );
    ill.hears("/health").await;
    well.hears("/health").await;
    until(|| explained(&balance, &ill.address).is_pickable()).await;
    health.store(503, SeqCst);
    until(|| reason(&explained(&balance, &ill.address)).is_some()).await;
    let said = reason(&explained(&balance, &ill.address));
    assert_eq!(said.as_deref(), Some("it answers 503 Service Unavailable"));
    ill.times("/item");
    for _ in 0..40 {
        call(&balance).await;
    }
    assert_eq!(ill.times("/item"), 0, "no call goes there");
    assert_eq!(well.times("/item"), 40);
    ill.hears("/health").await; // and it is asked on
    health.store(204, SeqCst);
    until(|| explained(&balance, &ill.address).is_pickable()).await;
    for _ in 0..40 {
        call(&balance).await;
    }
    assert!(ill.times("/item") > 0);
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_is_named() {
    let mut server = Server::start(|request, _| async move {
        let mut answer = plain(StatusCode::FOUND);
        if request.uri().path() == "/health" {
            let to = "/login?next=health".parse().unwrap();
            answer.headers_mut().insert("location", to);
        }
        answer
    })
    .await;
    let other = Server::start(|_, _| async { plain(StatusCode::OK) }).await;
    let third = Server::start(|_, _| async { plain(StatusCode::OK) }).await;
    let instances = [&server, &other, &third].map(Server::instance);
    let balance = over(instances, brisk(HealthCheck::http("/health")));
    until(|| reason(&explained(&balance, &server.address)).is_some()).await;
    let said = reason(&explained(&balance, &server.address)).unwrap();
    assert!(
        said.contains("302 Found, a redirect to \"/login?next=health\""),
        "{said}"
    );
    server.hears("/health").await;
    server.hears("/health").await;
    assert_eq!(server.times("/login"), 0);
}

/// The head decides, and the connection is closed on what follows.
#[tokio::test]
async fn a_body_without_end_passes_and_is_not_read() {
    for http2 in [false, true] {
        let mut server = Server::start(|_, told| async move {
            let more = move || {
                let _ = &told;
                let more = Bytes::from_static(&[b'x'; 16 * 1024]);
                Ok::<_, Infallible>(Frame::data(more))
            };
            let endless = futures_util::stream::repeat_with(more);
            let mut answer = plain(StatusCode::OK);
            *answer.body_mut() = BodyExt::boxed(StreamBody::new(endless));
            answer
        })
        .await;
        let instance = match http2 {
            true => server
                .instance()
                .with_metadata([("protocol", "h2c")].into_iter().collect()),
            false => server.instance(),
        };
        let balance = over([instance], brisk(HealthCheck::http("/health")));
        for _ in 0..3 {
            server.hears("/health").await;
            server.hears("dropped").await;
        }
        let explanation = explained(&balance, &server.address);
        assert_eq!(explanation.refusal, None, "{explanation}");
    }
}

#[tokio::test]
async fn one_that_does_not_answer_is_refused_after_the_third_time() {
    let mut hangs = Server::start(|_, told| async move {
        let _told = told;
        pending().await
    })
    .await;
    let other = Server::start(|_, _| async { plain(StatusCode::OK) }).await;
    let check = brisk(HealthCheck::http("/health")).timeout(Duration::from_millis(50));
    let balance = over([hangs.instance(), other.instance()], check);
    until(|| reason(&explained(&balance, &hangs.address)).is_some()).await;
    assert!(hangs.times("/health") >= 3);
    let said = reason(&explained(&balance, &hangs.address)).unwrap();
    assert_eq!(said, "it had not answered after 50ms (timeout)");
    hangs.hears("/health").await;
    hangs.hears("dropped").await;
}

#[tokio::test]
async fn who_cannot_be_reached_does_not_pass_either() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = closed.local_addr().unwrap().to_string();
    drop(closed);
    let other = Server::start(|_, _| async { plain(StatusCode::OK) }).await;
    let nobody = Instance::parse(&address).unwrap();
    let balance = over([nobody, other.instance()], brisk(HealthCheck::http("/")));
    until(|| reason(&explained(&balance, &address)).is_some()).await;
    let said = reason(&explained(&balance, &address)).unwrap();
    assert!(said.contains("nobody answers at"), "{said}");
}

#[tokio::test]
async fn two_balancers_share_one_check() {
    let mut server = Server::start(|_, _| async { plain(StatusCode::NOT_FOUND) }).await;
    let other = Server::start(|_, _| async { plain(StatusCode::OK) }).await;
    let third = Server::start(|_, _| async { plain(StatusCode::OK) }).await;
    // One check in all the time that this test takes.
    let check = || {
        HealthCheck::http("/health")
            .interval(Duration::from_secs(3_600))
            .interval_jitter(0.0)
    };
    let instances = || [&server, &other, &third].map(Server::instance);
    let first = over(instances(), check());
    until(|| reason(&explained(&first, &server.address)).is_some()).await;
    let second = over(instances(), check());
    until(|| reason(&explained(&second, &server.address)).is_some()).await;
    drop(first);
    assert_eq!(
        server.times("/health"),
        1,
        "the second knows what the first was told"
    );
    let otherwise = {
        let instances = [&server, &other, &third].map(Server::instance);
        over(instances, check().timeout(Duration::from_secs(2)))
    };
    server.hears("/health").await; // other options: another check
    drop((second, otherwise));
}

#[tokio::test]
async fn the_drop_of_the_last_balancer_ends_what_is_under_way() {
    let mut server = Server::start(|_, told| async move {
        let _told = told;
        pending().await
    })
    .await;
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let before = tasks();
    let check = || HealthCheck::http("/health").timeout(Duration::from_secs(3_600));
    let first = over([server.instance()], check());
    server.hears("/health").await;
    let second = over([server.instance()], check());
    drop(first);
    until(|| explained(&second, &server.address).is_pickable()).await;
    assert_eq!(server.times("dropped"), 0, "it goes on for the other");
    drop(second);
    server.hears("dropped").await;
    until(|| tasks() <= before).await;
    assert_eq!(server.times("/health"), 0);
}

#[tokio::test]
async fn a_head_without_end_is_no_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut more = socket.write_all(b"HTTP/1.1 200 OK\r\nx-large: ").await;
            while more.is_ok() {
                more = socket.write_all(&[b'x'; 4_096]).await;
            }
        }
    });
    let other = Server::start(|_, _| async { plain(StatusCode::OK) }).await;
    let large = Instance::parse(&address).unwrap();
    let balance = over(
        [large, other.instance()],
        brisk(HealthCheck::http("/health")),
    );
    until(|| reason(&explained(&balance, &address)).is_some()).await;
    let said = reason(&explained(&balance, &address)).unwrap();
    assert!(said.starts_with("no answer over HTTP/1.1: "), "{said}");
}

/// Checks trust whom calls trust, and speak what calls speak.
#[tokio::test]
async fn a_check_speaks_tls_as_the_transport_does() {
    let key = rcgen::KeyPair::generate().unwrap();
    let own = rcgen::CertificateParams::new(vec!["orders.test".to_owned()]).unwrap();
    let own = own.self_signed(&key).unwrap();
    let secret = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    for alpn in [&[][..], &[&b"h2"[..]]] {
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth();
        let mut config = config
            .with_single_cert(vec![own.der().clone()], secret.clone_key())
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        let tls = Some(TlsAcceptor::from(Arc::new(config)));
        let mut server = Server::secure(tls, |_, _| async { plain(StatusCode::OK) }).await;
        let orders = Subscription::fixed([server.instance()]);
        let transport =
            || Transport::builder().tls(Tls::new().ca(own.pem()).server_name("orders.test"));
        let balance = |transport| {
            Balance::builder(&orders)
                .health_check(brisk(HealthCheck::http("/health")))
                .build_http(transport)
        };
        let trusting = balance(transport().build());
        for _ in 0..4 {
            server.hears("/health").await;
        }
        let explanation = explained(&trusting, &server.address);
        assert_eq!(explanation.refusal, None, "{explanation}");
        let strange = balance(Transport::builder().tls(Tls::new().ca(own.pem())).build());
        until(|| explained(&strange, &server.address).refusal.is_some()).await;
        let said = explained(&strange, &server.address).refusal.unwrap();
        assert!(said.contains("certificate"), "{said}");
        if !alpn.is_empty() {
            // gRPC is asked over HTTP/2, though calls are not.
            let _balance = Balance::builder(&orders)
                .health_check(brisk(HealthCheck::grpc("a.B")))
                .build_http(
                    transport()
                        .protocol(tower_nacos::transport::Protocol::Http1)
                        .build(),
                );
            server.hears("/grpc.health.v1.Health/Check").await;
        }
    }
}

/// A gRPC server that answers each check by that: a message's status, or another end.
async fn grpc_server(next: Arc<AtomicUsize>) -> Server {
    Server::start(move |request, _| {
        let next = next.load(SeqCst);
        async move {
            let asked = request.into_body().collect().await.unwrap().to_bytes();
            // Field 1, of 3 bytes.
            assert_eq!(&asked[..], b"\0\0\0\0\x05\x0a\x03a.B");
            let trailers = |code: &'static str| {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", code.parse().unwrap());
                trailers
            };
            let mut answer = plain(StatusCode::OK);
            let headers = answer.headers_mut();
            headers.insert("content-type", "application/grpc".parse().unwrap());
            if next == UNIMPLEMENTED {
                headers.extend(trailers("12"));
                return answer;
            }
            let message = Bytes::from(vec![0, 0, 0, 0, 2, 8, next as u8]);
            let body = Full::new(message).with_trailers(async move { Some(Ok(trailers("0"))) });
            *answer.body_mut() = body.boxed();
            answer
        }
    })
    .await
}

const UNIMPLEMENTED: usize = 12;

#[tokio::test]
async fn grpc_instances_say_themselves_whether_they_serve() {
    let next = Arc::new(AtomicUsize::new(1));
    let mut server = grpc_server(Arc::clone(&next)).await;
    let other = grpc_server(Arc::new(AtomicUsize::new(1))).await;
    let orders = Subscription::fixed([server.instance(), other.instance()]);
    let channel = Channel::builder(&orders)
        .health_check(brisk(HealthCheck::grpc("a.B")))
        .build();
    let explained = || channel.explain(&server.address.parse().unwrap());
    for (status, part) in [
        (2, Some("service \"a.B\" is NOT_SERVING")),
        (1, None),
        (UNIMPLEMENTED, Some("UNIMPLEMENTED")),
        (1, None),
        (3, Some("SERVICE_UNKNOWN")),
    ] {
        next.store(status, SeqCst);
        until(|| {
            let said = reason(&explained());
            match part {
                Some(part) => said.is_some_and(|said| said.contains(part)),
                None => said.is_none() && explained().is_pickable(),
            }
        })
        .await;
    }
    server.hears("/grpc.health.v1.Health/Check").await;
}

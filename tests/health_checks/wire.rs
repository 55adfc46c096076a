//! What a check says on the wire, and what of an answer it takes.

use tokio::sync::Notify;
use tower_nacos::transport::Protocol;

use super::sockets::*;

/// Says what it was asked, by whom and over what, and is well.
async fn says_how_it_is_asked() -> Server {
    Server::start(|request, told| async move {
        let (uri, headers) = (request.uri(), request.headers());
        let header = |name| headers.get(name).map(|value| value.to_str().unwrap());
        let host = uri.authority().map(|authority| authority.as_str());
        let host = host.or_else(|| header("host")).unwrap();
        let agent = header("user-agent").unwrap();
        let version = request.version();
        told.tell(&format!("{version:?} {host} {agent}"));
        plain(StatusCode::OK)
    })
    .await
}

const AGENT: &str = concat!("tower-nacos/", env!("CARGO_PKG_VERSION"), " (health check)");

#[tokio::test]
async fn it_asks_for_the_address_says_that_it_is_a_check_and_speaks_what_calls_do() {
    for (protocol, version) in [("http", "HTTP/1.1"), ("h2c", "HTTP/2.0")] {
        let mut server = says_how_it_is_asked().await;
        let metadata = [("protocol", protocol)].into_iter().collect();
        let instance = server.instance().with_metadata(metadata);
        let _balance = over([instance], brisk(HealthCheck::http("/health")));
        let asked = format!("{version} {} {AGENT}", server.address);
        server.hears(&asked).await;
    }
}

#[tokio::test]
async fn grpc_is_asked_over_http2_whatever_calls_speak() {
    let mut server = says_how_it_is_asked().await;
    let _balance = Balance::builder(&Subscription::fixed([server.instance()]))
        .health_check(brisk(HealthCheck::grpc("a.B")))
        .build_http(Transport::builder().protocol(Protocol::Http1).build());
    let asked = format!("HTTP/2.0 {} {AGENT}", server.address);
    server.hears(&asked).await;
}

/// Of three, so that one may be refused.
async fn beside_two(instance: Instance, check: HealthCheck) -> (HttpBalance, [Server; 2]) {
    let well = || Server::start(|_, _| async { plain(StatusCode::OK) });
    let others = [well().await, well().await];
    let instances = [instance, others[0].instance(), others[1].instance()];
    (over(instances, check), others)
}

#[tokio::test]
async fn a_head_that_is_too_large_is_no_answer() {
    for protocol in ["http", "h2c"] {
        let mut server = Server::start(|request, _| async move {
            let mut answer = plain(StatusCode::OK);
            let length: usize = request.uri().query().unwrap().parse().unwrap();
            let large = "x".repeat(length).parse().unwrap();
            answer.headers_mut().insert("x-large", large);
            answer
        })
        .await;
        let metadata = || [("protocol", protocol)].into_iter().collect();
        let instance = || server.instance().with_metadata(metadata());
        let check = |path| brisk(HealthCheck::http(path));
        let (large, _others) = beside_two(instance(), check("/large?300000")).await;
        until(|| reason(&explained(&large, &server.address)).is_some()).await;
        let said = reason(&explained(&large, &server.address)).unwrap();
        assert!(said.starts_with("no answer over HTTP/"), "{said}");
        let (fits, _others) = beside_two(instance(), check("/fits?40000")).await;
        for _ in 0..4 {
            server.hears("/fits").await;
        }
        let explanation = explained(&fits, &server.address);
        assert_eq!(explanation.refusal, None, "{protocol}: {explanation}");
    }
}

fn grpc(body: BoxBody<Bytes, Infallible>) -> Answer {
    let mut answer = plain(StatusCode::OK);
    let headers = answer.headers_mut();
    headers.insert("content-type", "application/grpc".parse().unwrap());
    *answer.body_mut() = body;
    answer
}

#[tokio::test]
async fn a_grpc_answer_without_end_is_none_and_is_left() {
    let mut server = Server::start(|_, told| async move {
        let more = move || {
            let _ = &told;
            Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[0; 1_000])))
        };
        let endless = futures_util::stream::repeat_with(more);
        grpc(BodyExt::boxed(StreamBody::new(endless)))
    })
    .await;
    let check = brisk(HealthCheck::grpc("")).unhealthy_threshold(1);
    let (balance, _others) = beside_two(server.instance(), check.interval(HOUR)).await;
    until(|| explained(&balance, &server.address).refusal.is_some()).await;
    let said = explained(&balance, &server.address).refusal.unwrap();
    assert!(said.contains("is longer than 4096 bytes"), "{said}");
    server.hears("dropped").await;
}

#[tokio::test]
async fn an_answer_that_is_no_grpc_says_what_it_was() {
    let server = Server::start(|_, _| async { plain(StatusCode::BAD_GATEWAY) }).await;
    let check = brisk(HealthCheck::grpc("")).interval(HOUR);
    let (balance, _others) = beside_two(server.instance(), check).await;
    until(|| explained(&balance, &server.address).refusal.is_some()).await;
    let said = explained(&balance, &server.address).refusal.unwrap();
    assert!(
        said.contains("502 Bad Gateway, which is no answer of gRPC's"),
        "{said}"
    );
}

#[tokio::test]
async fn a_call_in_flight_at_one_that_is_refused_goes_on() {
    let (entered, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let ill = Arc::new(AtomicU16::new(200));
    let (says, inside, on) = (Arc::clone(&ill), Arc::clone(&entered), Arc::clone(&go));
    let server = Server::start(move |request, _| {
        let (says, inside, on) = (Arc::clone(&says), Arc::clone(&inside), Arc::clone(&on));
        async move {
            if request.uri().path() == "/health" {
                return plain(StatusCode::from_u16(says.load(SeqCst)).unwrap());
            }
            inside.notify_one();
            on.notified().await;
            plain(StatusCode::CREATED)
        }
    })
    .await;
    let (balance, others) =
        beside_two(server.instance(), brisk(HealthCheck::http("/health"))).await;
    let calls: Vec<_> = (0..40)
        .map(|_| {
            let balance = balance.clone();
            tokio::spawn(async move { call(&balance).await })
        })
        .collect();
    soon(entered.notified()).await;
    ill.store(503, SeqCst);
    until(|| reason(&explained(&balance, &server.address)).is_some()).await;
    let mut created = 0;
    for call in calls {
        // As often as it takes: who waits is woken one by one.
        let status = soon(async {
            tokio::pin!(call);
            loop {
                go.notify_waiters();
                tokio::select! {
                    status = &mut call => return status.unwrap(),
                    () = tokio::time::sleep(Duration::from_millis(2)) => {}
                }
            }
        });
        created += usize::from(status.await == StatusCode::CREATED);
    }
    assert!(created > 0);
    drop(others);
}

const HOUR: Duration = Duration::from_secs(3_600);

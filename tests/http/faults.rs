//! Services that nobody provides, instances that lie, and servers that say nothing.

use std::{error::Error as _, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::BodyExt;
use rustls::pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;
use tower_nacos::{
    Instance,
    endpoint::CallError,
    http::{self, Deadline},
    transport::{Tls, Transport},
};

use crate::{
    World,
    provider::{Provider, nobody, peer, saying, silent},
    soon,
};

impl World {
    /// Lists one instance with this metadata.
    fn list(&self, address: SocketAddr, metadata: &[(&str, &str)]) {
        let instance = Instance::from(address);
        let metadata = metadata.iter().copied().collect();
        self.registry
            .register("orders", &instance.with_metadata(metadata));
    }

    /// The error of a call, which must not hang.
    async fn failure(&self, uri: &str) -> http::Error {
        let failed = soon(uri, self.http.get(uri).send()).await;
        failed.expect_err("it cannot be called")
    }
}

#[tokio::test]
async fn a_service_that_nobody_provides_is_named_with_what_is_probably_meant() {
    let world = World::new().await;
    let _provider = world.provider("orders", "one").await;
    // Known before the hint is: the error says so much at once, and more a moment later.
    let service = world.http.service("order").unwrap();
    soon("the registry answers", service.subscription().ready())
        .await
        .unwrap();
    let hinted = async {
        while service.subscription().hint().is_none() {
            tokio::task::yield_now().await;
        }
    };
    soon("a hint is found", hinted).await;
    let error = world.failure("nacos://order/v1").await;
    assert!(error.is_no_instances() && error.is_unprocessed() && !error.is_connect());
    let said = error.to_string();
    assert!(
        said.starts_with("no instance of DEFAULT_GROUP@@order in namespace public can be called: "),
        "{said}"
    );
    assert!(said.contains("orders"), "{said}");
    assert_eq!(error.service(), Some(service.key()));
    assert!(error.instance().is_none());
}

#[tokio::test]
async fn a_registry_that_does_not_answer_is_waited_for_and_named() {
    let world = World::new().await;
    world.registry.freeze();
    let http = http::Client::builder(&world.nacos)
        .balance(|service| service.unknown_wait(Duration::from_millis(50)))
        .build();
    let error = soon("bounded", http.get("nacos://orders/").send())
        .await
        .unwrap_err();
    assert!(error.is_unknown() && error.is_unprocessed());
    let said = error.to_string();
    assert!(
        said.starts_with(
            "it is not known which instances DEFAULT_GROUP@@orders in namespace public has: \
             waited 50ms (unknown_wait); the registry has not answered yet"
        ),
        "{said}"
    );
    // A deadline that ends sooner is kept here too.
    let patient = http::Client::new(&world.nacos);
    let late = patient
        .get("nacos://orders/")
        .timeout(Duration::from_millis(20));
    let error = soon("a deadline", late.send()).await.unwrap_err();
    assert!(error.is_timeout() && error.is_unprocessed());
    assert_eq!(
        error.to_string(),
        "no response of DEFAULT_GROUP@@orders in namespace public within the deadline, 20ms after \
         the call began: there was no instance to give it to yet"
    );
}

#[tokio::test]
async fn a_dead_instance_is_named_with_its_service_and_the_reason() {
    let world = World::new().await;
    let dead = nobody().await;
    world.list(dead, &[]);
    let error = world.failure("nacos://orders/v1").await;
    assert!(
        error.is_connect() && error.is_unprocessed() && !error.is_timeout(),
        "{error:?}"
    );
    let said = error.to_string();
    let begin = format!(
        "the call to instance {dead} of DEFAULT_GROUP@@orders in namespace public failed: "
    );
    assert!(
        said.starts_with(&begin) && said.contains("refused"),
        "{said}"
    );
    assert_eq!(error.instance().unwrap().to_string(), dead.to_string());
    // All is said; the engine's error and the transport's own are there for programs.
    assert!(error.source().is_none() && error.call_error().is_some_and(CallError::is_inner));
    assert!(error.transport().unwrap().is_connect());
    // The next call finds it known as dead, and says the same.
    let again = world.failure("nacos://orders/v1").await;
    assert!(again.is_connect() && again.is_unprocessed());
    assert!(again.to_string().contains(&dead.to_string()), "{again}");
}

#[tokio::test]
async fn a_server_that_never_answers_costs_no_longer_than_the_deadline() {
    let world = World::new().await;
    let provider = Provider::start("one").await;
    world.registry.register("orders", &provider.instance());
    // The deadline is not to be spent on the registry and on connecting.
    let first = soon("a first call", world.http.get("nacos://orders/").send()).await;
    assert!(first.unwrap().into_body().collect().await.is_ok());
    let mute = world
        .http
        .get("nacos://orders/never")
        .timeout(Duration::from_millis(900));
    let error = soon("a deadline", mute.send()).await.unwrap_err();
    assert!(error.is_timeout() && !error.is_unprocessed() && !error.is_connect());
    // The deadline is counted from the request's making, and the call begins a moment later.
    let text = error.to_string();
    let (before, rest) = text.split_once("deadline, ").unwrap();
    let (after, rest) = rest.split_once("ms ").unwrap();
    assert!(after.parse::<u64>().is_ok_and(|ms| ms <= 900), "{text}");
    assert_eq!(
        format!("{before}deadline, 900ms {rest}"),
        format!(
            "no response of DEFAULT_GROUP@@orders in namespace public within the deadline, 900ms \
             after the call began: instance {0} had not answered",
            provider.address()
        )
    );
    assert_eq!(error.instance().unwrap().to_string(), provider.address());
    // One that passed before the call ends it at once.
    let past = Deadline::within(Duration::ZERO);
    let error = world
        .http
        .get("nacos://orders/never")
        .deadline(past)
        .await
        .unwrap_err();
    assert!(error.is_timeout() && error.is_unprocessed());
    assert_eq!(provider.calls(), 2, "the first two calls only");
    // And one that is kept costs nothing.
    let kept = world
        .http
        .get("nacos://orders/")
        .timeout(Duration::from_secs(20));
    assert!(kept.await.unwrap().status().is_success());
}

#[tokio::test]
async fn a_deadline_covers_every_instance_and_names_what_came_before() {
    let world = World::new().await;
    let provider = Provider::start("one").await;
    // Tried first, but for one call in a million.
    let dead = nobody().await;
    let first = Instance::from(dead).with_weight(10_000.0);
    world.registry.register("orders", &first);
    let second = provider.instance().with_weight(0.01);
    world.registry.register("orders", &second);
    let orders = world.http.service("orders").unwrap();
    let both = orders.subscription().wait_for(2, Duration::from_secs(20));
    both.await.unwrap();
    let mute = orders.get("/never").timeout(Duration::from_millis(200));
    let error = soon("a deadline", mute.send()).await.unwrap_err();
    let said = error.to_string();
    assert!(error.is_timeout() && !error.is_unprocessed(), "{said}");
    let now = format!(
        "instance {} had not answered; before that, ",
        provider.address()
    );
    let before = format!("the call to instance {dead} of ");
    assert!(
        said.contains(&now) && said.contains(&before) && said.contains("refused"),
        "{said}"
    );
}

#[tokio::test]
async fn a_server_that_accepts_and_says_nothing_is_given_up_after_the_header_timeout() {
    let world = World::new().await;
    let mute = peer(silent).await;
    world.list(mute, &[]);
    let http = http::Client::builder(&world.nacos)
        .transport(Transport::builder().header_timeout(Duration::from_millis(100)))
        .build();
    let error = soon("bounded", http.get("nacos://orders/").send())
        .await
        .unwrap_err();
    assert!(error.is_timeout() && !error.is_unprocessed() && !error.is_connect());
    assert!(error.to_string().contains(&mute.to_string()), "{error}");
}

#[tokio::test]
async fn tls_on_a_plain_port_is_an_error_that_says_tls() {
    let world = World::new().await;
    let plain = Provider::start("plain").await;
    world.list(plain.address().parse().unwrap(), &[("secure", "true")]);
    let error = world.failure("nacos://orders/").await;
    assert!(error.is_connect() && error.is_unprocessed(), "{error:?}");
    let said = error.to_string();
    assert!(
        said.contains(&plain.address()) && said.contains("TLS"),
        "{said}"
    );
    assert_eq!(plain.calls(), 0);
}

#[tokio::test]
async fn a_certificate_for_another_name_is_an_error_that_shows_both() {
    let world = World::new().await;
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["stock.example".to_owned()];
    let certificate = rcgen::CertificateParams::new(names)
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let chain = vec![certificate.der().clone()];
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let server = peer(move |stream| {
        let accepted = acceptor.accept(stream);
        async move { drop(accepted.await) }
    })
    .await;
    world.list(server, &[("secure", "true")]);
    let trusting = Transport::builder().tls_if_asked(Tls::new().ca(certificate.pem()));
    let http = http::Client::builder(&world.nacos)
        .transport(trusting)
        .build();
    let error = soon("refused", http.get("nacos://orders/").send())
        .await
        .unwrap_err();
    assert!(error.is_connect() && error.is_unprocessed(), "{error:?}");
    let said = error.to_string();
    for part in [&*server.to_string(), "stock.example", "127.0.0.1"] {
        assert!(said.contains(part), "{said}");
    }
}

#[tokio::test]
async fn tls_with_a_silent_peer_is_bounded() {
    let world = World::new().await;
    let mute = peer(silent).await;
    world.list(mute, &[("secure", "true")]);
    let http = http::Client::builder(&world.nacos)
        .transport(Transport::builder().handshake_timeout(Duration::from_millis(100)))
        .build();
    let error = soon("bounded", http.get("nacos://orders/").send())
        .await
        .unwrap_err();
    assert!(
        error.is_connect() && error.is_timeout() && error.is_unprocessed(),
        "{error:?}"
    );
    let said = error.to_string();
    assert!(
        said.contains(&mute.to_string()) && said.contains("TLS"),
        "{said}"
    );
}

#[tokio::test]
async fn http2_on_an_http1_port_is_an_error_that_says_http2() {
    let world = World::new().await;
    let answer = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
    let old = peer(move |stream| saying(stream, answer.into())).await;
    world.list(old, &[("protocol", "h2c")]);
    let error = world.failure("nacos://orders/").await;
    assert!(error.is_unprocessed(), "{error:?}");
    let said = error.to_string();
    assert!(
        said.contains(&old.to_string()) && said.contains("HTTP/2"),
        "{said}"
    );
}

#[tokio::test]
async fn http2_is_spoken_where_metadata_says_so() {
    let world = World::new().await;
    let provider = Provider::start("one").await;
    world.list(provider.address().parse().unwrap(), &[("protocol", "h2c")]);
    let response = world.http.get("nacos://orders/request").await.unwrap();
    assert_eq!(response.version(), ::http::Version::HTTP_2);
}

#[tokio::test]
async fn headers_beyond_any_measure_are_an_error_that_names_the_instance() {
    for (path, metadata) in [("/big", &[][..]), ("/large", &[("protocol", "h2c")])] {
        let world = World::new().await;
        let provider = Provider::start("one").await;
        world.list(provider.address().parse().unwrap(), metadata);
        let error = world.failure(&format!("nacos://orders{path}")).await;
        assert!(!error.is_unprocessed() && !error.is_connect(), "{error:?}");
        assert!(error.to_string().contains(&provider.address()), "{error}");
        // It is that call's fault and not the instance's.
        let next = world.http.get("nacos://orders/").await;
        assert!(next.unwrap().status().is_success());
    }
    // Headers that look like an attack cost an HTTP/2 instance its connection.
    let world = World::new().await;
    let provider = Provider::start("one").await;
    world.list(provider.address().parse().unwrap(), &[("protocol", "h2c")]);
    let error = world.failure("nacos://orders/big").await;
    assert!(error.to_string().contains(&provider.address()), "{error}");
    // In a request they are the server's to refuse.
    let world = World::new().await;
    let _provider = world.provider("orders", "one").await;
    let big = world
        .http
        .get("nacos://orders/")
        .header("x-big", "b".repeat(600_000));
    match soon("an answer", big.send()).await {
        Ok(response) => assert_eq!(response.status(), 431),
        Err(error) => assert!(error.instance().is_some(), "{error}"),
    }
}

#[tokio::test]
async fn what_is_no_http_is_an_error_that_names_the_instance() {
    let world = World::new().await;
    let ssh = peer(|stream| saying(stream, "SSH-2.0-OpenSSH_9.9\r\n".into())).await;
    world.list(ssh, &[]);
    let error = world.failure("nacos://orders/").await;
    assert!(!error.is_unprocessed() && !error.is_connect(), "{error:?}");
    assert!(error.to_string().contains(&ssh.to_string()), "{error}");
}

//! TLS over a connector, by names and configurations of the user's.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::io::duplex;
use tower_nacos::{
    Instance, Subscription,
    transport::{Destination, Protocol, Tls, Transport},
};

use super::{
    connector::nowhere,
    support::*,
    tls::{acceptor, ca},
};

#[tokio::test]
async fn tls_is_spoken_on_what_it_made_and_each_instance_has_its_own_name() {
    let ca = ca();
    let log = Arc::new(Log::default());
    let dialled = Arc::new(AtomicUsize::new(0));
    let connector = {
        let acceptor = acceptor(&ca, "orders.internal", &["h2", "http/1.1"], false);
        let (log, dialled) = (Arc::clone(&log), Arc::clone(&dialled));
        move |_: Destination| {
            let (acceptor, log) = (acceptor.clone(), Arc::clone(&log));
            dialled.fetch_add(1, Ordering::SeqCst);
            let (ours, theirs) = duplex(64 * 1024);
            spawn(async move {
                if let Ok(stream) = acceptor.accept(theirs).await {
                    serve(stream, log, u32::MAX).await;
                }
            });
            std::future::ready(Ok::<_, Infallible>(ours))
        }
    };
    let named = |name: &str| {
        let metadata = [("tls-name", name)].into_iter().collect();
        Subscription::fixed([Instance::from(nowhere()).with_metadata(metadata)])
    };
    let builder = Transport::builder()
        .connector(connector)
        .tls(Tls::new().ca(ca.pem()).server_name("others.internal"))
        .server_name(|instance: &Instance| instance.metadata().get("tls-name").map(str::to_owned));
    let balance = over(&named("orders.internal"), builder.clone());
    assert_eq!(text(&balance, post(1, "x")).await.unwrap(), "x");
    assert!(
        log.lines.lock().unwrap()[0].starts_with("HTTP/2.0"),
        "by ALPN"
    );
    for (name, says) in [
        (
            "shop.internal",
            "is for orders.internal, not for shop.internal",
        ),
        (
            "not a name",
            "\"not a name\" is none that a certificate can be for",
        ),
    ] {
        let error = text(&over(&named(name), builder.clone()), post(2, "x")).await;
        let error = inner(&error.unwrap_err()).to_string();
        assert!(error.contains(says), "{error}");
    }
    let everybody = Subscription::fixed([Instance::from(nowhere())]);
    let error = text(&over(&everybody, builder), post(3, "x"))
        .await
        .unwrap_err();
    let error = inner(&error).to_string();
    assert!(error.contains("not for others.internal"), "{error}");
    assert_eq!(
        log.ids.lock().unwrap().as_slice(),
        ["1"],
        "nothing else got through"
    );
}

#[tokio::test]
async fn rustls_as_configured_by_the_user() {
    let ca = ca();
    let log = Arc::new(Log::default());
    let acceptor = acceptor(&ca, "192.0.2.7", &["h2", "http/1.1"], false);
    let served = Arc::clone(&log);
    let connector = move |_: Destination| {
        let (acceptor, log) = (acceptor.clone(), Arc::clone(&served));
        let (ours, theirs) = duplex(64 * 1024);
        spawn(async move {
            if let Ok(stream) = acceptor.accept(theirs).await {
                serve(stream, log, u32::MAX).await;
            }
        });
        std::future::ready(Ok::<_, Infallible>(ours))
    };
    let own = |alpn: &[&str]| {
        use rustls::pki_types::{CertificateDer, pem::PemObject};
        let mut roots = rustls::RootCertStore::empty();
        let certificate = CertificateDer::from_pem_slice(ca.pem().as_bytes());
        roots.add(certificate.unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider);
        let builder = builder
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap();
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Tls::new().config(Arc::new(config))
    };
    for (alpn, spoken) in [
        (&[][..], "HTTP/2.0"),
        (&["http/1.1"], "HTTP/1.1"),
        (&["http/1.1", "h2"], "HTTP/2.0"),
    ] {
        own(alpn).check().unwrap();
        let builder = Transport::builder()
            .connector(connector.clone())
            .tls(own(alpn));
        assert_eq!(
            text(&rotating(&[nowhere()], builder), post(1, "x"))
                .await
                .unwrap(),
            "x"
        );
        let line = log.lines.lock().unwrap().pop().unwrap();
        assert!(line.starts_with(spoken), "{alpn:?}: {line}");
    }
    let builder = builder(Protocol::Http2)
        .connector(connector)
        .tls(own(&["http/1.1"]));
    let error = failure(&alone(nowhere(), builder), post(1, "x")).await;
    assert!(
        error.is_tls()
            && error
                .to_string()
                .contains("offers only http/1.1 by ALPN, and h2 is to be spoken"),
        "{error}"
    );
    for (wrong, says) in [
        (own(&["h3"]), "offers \"h3\" by ALPN"),
        (
            own(&[]).ca(ca.pem()),
            "`Tls::config` and `Tls::ca` say the same twice",
        ),
        (
            own(&[]).client_certificate("", ""),
            "`Tls::client_certificate` say the same twice",
        ),
    ] {
        let error = wrong.check().unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
}

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;
use tower_nacos::{
    Instance, Subscription,
    transport::{Protocol, Tls, Transport},
};

use super::support::*;

pub(super) type Ca = CertifiedIssuer<'static, KeyPair>;

struct Secure {
    address: SocketAddr,
    log: Arc<Log>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Secure {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(super) fn ca() -> Ca {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "a CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn certificate(ca: &Ca, name: &str) -> (String, String) {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, ca).unwrap();
    (certificate.pem(), key.serialize_pem())
}

/// What makes a socket a server's with TLS, for that name and by these protocols; with a client's certificate
/// if asked.
pub(super) fn acceptor(ca: &Ca, name: &str, alpn: &[&str], mutual: bool) -> TlsAcceptor {
    let (chain, key) = certificate(ca, name);
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain.as_bytes())
        .map(Result::unwrap)
        .collect();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = if mutual {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(ca.pem().as_bytes()).unwrap())
            .unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        builder.with_client_cert_verifier(verifier.build().unwrap())
    } else {
        builder.with_no_client_auth()
    };
    let mut config = builder.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

/// A server with that.
async fn secure(ca: &Ca, name: &str, alpn: &[&str], mutual: bool) -> Secure {
    let acceptor = acceptor(ca, name, alpn, mutual);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let log = Arc::new(Log::default());
    let noted = Arc::clone(&log);
    let task = spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let (acceptor, log) = (acceptor.clone(), Arc::clone(&noted));
            connections.spawn(async move {
                if let Ok(stream) = acceptor.accept(socket).await {
                    serve(stream, log, u32::MAX).await;
                }
            });
        }
    });
    Secure { address, log, task }
}

fn version(server: &Secure) -> String {
    let lines = server.log.lines.lock().unwrap();
    lines.last().unwrap().split(' ').next().unwrap().to_owned()
}

#[tokio::test]
async fn alpn_decides_and_many_calls_share_what_it_came_to() {
    let ca = ca();
    let tls = Tls::new().ca(ca.pem());
    tls.check().unwrap();
    for (alpn, spoken) in [
        (&["h2", "http/1.1"][..], "HTTP/2.0"),
        (&["http/1.1"], "HTTP/1.1"),
        (&[], "HTTP/1.1"),
    ] {
        let server = secure(&ca, "127.0.0.1", alpn, false).await;
        let builder = Transport::builder().tls(tls.clone());
        let balance = rotating(&[server.address], builder);
        let mut calls = tokio::task::JoinSet::new();
        for id in 0..20 {
            let balance = balance.clone();
            calls.spawn(async move { text(&balance, post(id, "x")).await });
        }
        while let Some(ended) = soon("all calls", calls.join_next()).await {
            assert_eq!(ended.unwrap().unwrap(), "x");
        }
        assert_eq!(version(&server), spoken);
        if spoken == "HTTP/2.0" {
            assert_eq!(server.log.connections.load(Ordering::SeqCst), 1);
        }
        assert_eq!(balance.counts(), [0, 0, 0]);
    }
}

#[tokio::test]
async fn metadata_raises_to_tls_and_never_lowers() {
    let ca = ca();
    let tls = Tls::new().ca(ca.pem());
    let server = secure(&ca, "127.0.0.1", &["h2"], false).await;
    let plain = Server::start().await;
    let at = |address: SocketAddr, secure: &str| {
        let metadata = [("secure", secure)].into_iter().collect();
        Instance::from(address).with_metadata(metadata)
    };
    let asked = Subscription::fixed([at(server.address, "true"), at(plain.address, "false")]);
    let balance = over(&asked, Transport::builder().tls_if_asked(tls.clone()));
    for id in 0..4 {
        text(&balance, post(id, "x")).await.unwrap();
    }
    assert_eq!(version(&server), "HTTP/2.0");
    assert_eq!(plain.ids().len(), 2);
    let lowered = Subscription::fixed([at(server.address, "false")]);
    let balance = over(&lowered, Transport::builder().tls(tls));
    text(&balance, post(9, "x")).await.unwrap();
}

#[tokio::test]
async fn row_a_what_tls_does_not_accept_moves_the_call_ejects_and_is_named() {
    let (trusted, other) = (ca(), ca());
    let good = secure(&trusted, "127.0.0.1", &["h2"], false).await;
    let plain = Server::start().await;
    let wrong_name = secure(&trusted, "shop.example", &["h2"], false).await;
    let wrong_ca = secure(&other, "127.0.0.1", &["h2"], false).await;
    let silent = Peer::start(|mut socket, _| async move {
        read_request(&mut socket, 1_000_000).await;
    })
    .await;
    let builder = Transport::builder()
        .tls(Tls::new().ca(trusted.pem()))
        .handshake_timeout(Duration::from_millis(200));
    for (bad, says) in [
        (plain.address, "does not speak TLS"),
        (wrong_name.address, "is for shop.example, not for"),
        (wrong_ca.address, "signed by nobody that is trusted"),
        (silent.address, "no TLS handshake within"),
    ] {
        let error = failure(&alone(bad, builder.clone()), post(1, "x")).await;
        assert!(
            error.is_tls() && error.is_connect() && error.is_unprocessed(),
            "{error:?}"
        );
        assert!(error.to_string().contains(says), "{error}");
        assert_eq!(error.is_timeout(), bad == silent.address);
        let balance = rotating(&[bad, good.address], builder.clone());
        for id in 0..4 {
            assert_eq!(text(&balance, post(id, "x")).await.unwrap(), "x");
        }
        let says = balance.explain(&bad.into()).to_string();
        assert!(says.contains("could not be reached"), "{says}");
    }
    assert!(plain.ids().is_empty());
}

#[tokio::test]
async fn a_client_certificate_and_a_server_name_are_used() {
    let ca = ca();
    let server = secure(&ca, "shop.example", &["h2"], true).await;
    let (chain, key) = certificate(&ca, "client");
    let named = Tls::new().ca(ca.pem()).server_name("shop.example");
    let known = named.clone().client_certificate(chain, key);
    let balance = rotating(&[server.address], Transport::builder().tls(known));
    assert_eq!(text(&balance, post(1, "x")).await.unwrap(), "x");
    // Without one the peer says so once its handshake is done; over HTTP/2 no request was written.
    let builder = Transport::builder().tls(named).protocol(Protocol::Http2);
    let error = failure(&alone(server.address, builder), post(1, "x")).await;
    assert!(error.is_connect() && error.is_unprocessed(), "{error:?}");
}

/// A dial under TLS takes as long as its handshake: so many are under way at a server that accepts and
/// says nothing yet, and no more while calls wait.
#[tokio::test]
async fn so_many_dials_are_under_way_at_a_port_and_no_more() {
    const CALLS: usize = 300;
    let ca = ca();
    let patient = || {
        let long = Duration::from_secs(60);
        let options = builder(Protocol::Http1).tls(Tls::new().ca(ca.pem()));
        options.dial_timeout(long).handshake_timeout(long)
    };
    for (options, most) in [(patient(), 64), (patient().max_dials(3), 3)] {
        let acceptor = acceptor(&ca, "127.0.0.1", &["http/1.1"], false);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // How many dials there are, and were at most.
        let dials = Arc::new(watch::Sender::new((0, 0)));
        let gate = Arc::new(Semaphore::new(0));
        let (counted, opened) = (Arc::clone(&dials), Arc::clone(&gate));
        let server = spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                counted.send_modify(|(now, most)| {
                    *now += 1;
                    *most = (*most).max(*now);
                });
                let (acceptor, dials, gate) =
                    (acceptor.clone(), Arc::clone(&counted), Arc::clone(&opened));
                connections.spawn(async move {
                    gate.acquire().await.unwrap().forget();
                    dials.send_modify(|(now, _)| *now -= 1);
                    if let Ok(stream) = acceptor.accept(socket).await {
                        serve(stream, Arc::default(), u32::MAX).await;
                    }
                });
            }
        });
        let transport = alone(address, options);
        let calls = (0..CALLS).map(|at| transport.clone().oneshot(post(at, "")));
        let calls = async { soon("the calls", join_all(calls)).await };
        let gate = async {
            let mut dials = dials.subscribe();
            let all = dials.wait_for(|(now, _)| *now >= most);
            soon("the dials", all).await.unwrap();
            for _ in 0..CALLS {
                gate.add_permits(1);
                tokio::task::yield_now().await;
            }
        };
        let (calls, ()) = tokio::join!(calls, gate);
        assert!(calls.into_iter().all(|call| call.is_ok()));
        let (_, at_once) = *dials.borrow();
        assert_eq!(at_once, most);
        server.abort();
    }
}

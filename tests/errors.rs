//! What users read when something is wrong: the exact text, which says what to do. Ports and what
//! depends on time are replaced.

#![expect(
    clippy::disallowed_methods,
    reason = "a test owns the tasks that it spawns"
)]

use std::{error::Error, fmt::Display, future::Future, time::Duration};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::timeout,
};
use tower::{ServiceExt, balance::p2c::Balance};
use tower_nacos::{
    Client, Instance, Subscription,
    client::{ClientBuilder, ConnectError, RequestError, Tls},
    directory::{Finding, OnAllUnhealthy, Options},
    testing::{Fault, Login, Profile, Registry, Script, ServerTls},
};

const HANG: Duration = Duration::from_secs(20);
const SOON: Duration = Duration::from_millis(400);
/// Where cryptography has to be done first, which takes its time on a machine that is busy.
const PATIENT: Duration = Duration::from_secs(3);

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(HANG, future).await.expect("nothing for 20 s")
}

/// The text with ports by name, the number of attempts as `N`, and without what a new attempt may
/// just be waiting for.
fn text(error: impl Display, ports: &[(u16, &str)]) -> String {
    let mut text = error.to_string();
    for (port, name) in ports {
        text = text.replace(&format!(":{port}"), &format!(":{name}"));
    }
    if let Some((before, _)) = text.split_once("; now waiting") {
        text.truncate(before.len());
    }
    if let Some((before, after)) = text.split_once("not connected after ") {
        let (_, rest) = after.split_once("; ").expect("the last failure");
        text = format!("{before}not connected after N attempts; {rest}");
    }
    text
}

async fn connect_error(server: &str) -> ConnectError {
    connect_error_of(Client::builder().servers(server).connect_timeout(SOON)).await
}

/// The error's own text is all there is to say: whoever prints its sources as well repeats nothing.
async fn connect_error_of(builder: ClientBuilder) -> ConnectError {
    let error = within(builder.connect()).await.unwrap_err();
    assert!(error.source().is_none(), "{:?}", error.source());
    error
}

type Ca = CertifiedIssuer<'static, KeyPair>;

fn ca() -> Ca {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

async fn tls_registry() -> Registry {
    let (ca, key) = (ca(), KeyPair::generate().unwrap());
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &ca).unwrap();
    let tls = ServerTls::new(certificate.pem(), key.serialize_pem());
    Registry::builder().tls(tls).start().await.unwrap()
}

async fn registry() -> Registry {
    Registry::builder().push_delay(None).start().await.unwrap()
}

async fn connected(
    registry: &Registry,
    with: impl FnOnce(ClientBuilder) -> ClientBuilder,
) -> Client {
    let builder = Client::builder().servers(registry.addr());
    within(with(builder).connect()).await.unwrap()
}

/// Options under which an empty list is believed at once.
fn believing() -> Options {
    Options::default().unknown_while_empty(Duration::ZERO)
}

fn instance(address: &str) -> Instance {
    Instance::parse(address).unwrap()
}

async fn hinted(subscription: &Subscription) {
    within(async {
        while subscription.hint().is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// What a call through a stock balancer ends with.
async fn call_error(subscription: &Subscription) -> impl Display {
    let discover = subscription
        .discover(|_: &Instance| tower::service_fn(|(): ()| async { Ok::<_, std::io::Error>(()) }));
    within(Balance::new(discover).oneshot(()))
        .await
        .unwrap_err()
}

#[tokio::test]
async fn nothing_listens_on_the_port() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let error = connect_error(&format!("127.0.0.1:8848/{port}")).await;
    assert_eq!(
        text(error, &[(port, "GRPC")]),
        "no connection to the registry within 400ms: not connected after N attempts; the last \
         failed: Nacos server 127.0.0.1:GRPC: connection refused: nothing listens on this port; \
         Nacos 2.0 and later speak gRPC on their main port + 1000 (9848 by default), which must be \
         open too"
    );
}

#[tokio::test]
async fn the_grpc_port_given_as_the_main_port() {
    let registry = registry().await;
    let port = registry.grpc_addr().port();
    let error = connect_error(&format!("127.0.0.1:{port}")).await;
    assert_eq!(
        text(error, &[(port + 1000, "GRPC+1000")]),
        "no connection to the registry within 400ms: not connected after N attempts; the last \
         failed: Nacos server 127.0.0.1:GRPC+1000: connection refused: nothing listens on this \
         port; Nacos 2.0 and later speak gRPC on their main port + 1000 (9848 by default), which \
         must be open too"
    );
}

#[tokio::test]
async fn the_port_speaks_http_1() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // As the servlet container behind a server's main port does.
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
            let _ = socket.write_all(answer).await;
        }
    });
    let error = connect_error(&format!("127.0.0.1:8848/{port}")).await;
    assert_eq!(
        text(error, &[(port, "HTTP")]),
        "no connection to the registry within 400ms: not connected after N attempts; the last \
         failed: Nacos server 127.0.0.1:HTTP: no Nacos server answers there: it speaks HTTP/1; \
         give the server's main port (8848), to which 1000 is added, or name the gRPC port as \
         host:8848/9848"
    );
}

#[tokio::test]
async fn tls_against_a_plain_port() {
    let registry = registry().await;
    let tls = Tls::new().ca(ca().pem());
    let builder = Client::builder().servers(registry.addr()).tls(tls);
    let error = connect_error_of(builder.connect_timeout(PATIENT)).await;
    assert_eq!(
        text(error, &[(registry.grpc_addr().port(), "GRPC")]),
        "no connection to the registry within 3s: not connected after N attempts; the last \
         failed: Nacos server 127.0.0.1:GRPC: the port does not speak TLS: switch TLS off, or \
         give the port that speaks it"
    );
}

#[tokio::test]
async fn plain_against_a_tls_port() {
    let registry = tls_registry().await;
    let builder = Client::builder().servers(registry.addr());
    let error = connect_error_of(builder.connect_timeout(PATIENT)).await;
    assert_eq!(
        text(error, &[(registry.grpc_addr().port(), "GRPC")]),
        "no connection to the registry within 3s: not connected after N attempts; the last \
         failed: Nacos server 127.0.0.1:GRPC: no Nacos server answers there: it speaks TLS; \
         switch TLS on or give the plain port"
    );
}

#[tokio::test]
async fn plain_against_a_tls_port_that_hangs_up_without_a_word() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // As genuine servers do, whose netty closes what does not begin like TLS.
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut first = [0; 9];
                let _ = socket.read_exact(&mut first).await;
                if matches!(first, [0x16, 0x03, ..]) {
                    let alert = [0x15, 0x03, 0x03, 0, 2, 2, 40];
                    let _ = socket.write_all(&alert).await;
                }
            });
        }
    });
    let builder = Client::builder().servers(format!("127.0.0.1:8848/{port}"));
    let error = connect_error_of(builder.connect_timeout(PATIENT)).await;
    assert_eq!(
        text(error, &[(port, "GRPC")]),
        "no connection to the registry within 3s: not connected after N attempts; the last \
         failed: Nacos server 127.0.0.1:GRPC: no Nacos server answers there: it speaks TLS; \
         switch TLS on or give the plain port"
    );
}

#[tokio::test]
async fn nobody_trusts_the_certificate() {
    let registry = tls_registry().await;
    let tls = Tls::new().ca(ca().pem());
    let builder = Client::builder().servers(registry.addr()).tls(tls);
    let error = connect_error_of(builder.connect_timeout(PATIENT)).await;
    assert_eq!(
        text(error, &[(registry.grpc_addr().port(), "GRPC")]),
        "no connection to the registry within 3s: not connected after N attempts; the last \
         failed: Nacos server 127.0.0.1:GRPC: the server's certificate is signed by nobody that \
         is trusted here: give the certificate of its CA (`Tls::ca`)"
    );
}

#[tokio::test]
async fn the_password_is_wrong() {
    for (profile, patience, said) in [
        (
            Profile::V2_5,
            PATIENT,
            "no connection to the registry: Nacos server 127.0.0.1:GRPC: login as \"jo\" at \
             http://127.0.0.1:MAIN/nacos/v1/auth/login refused with status 403, saying 'unknown \
             user!'; check user name and password",
        ),
        (
            Profile::V3_0,
            HANG * 100,
            "no connection to the registry: Nacos server 127.0.0.1:GRPC: login as \
         \"jo\" at http://127.0.0.1:MAIN/nacos/v3/auth/user/login refused with status 500, \
         saying '{\"code\":500,\"data\":null,\"message\":\"unknown user!\"}'; check user name \
         and password",
        ),
    ] {
        let registry = Registry::builder().profile(profile);
        let registry = registry.login(Login::new("jo", "s3cret")).start();
        let registry = registry.await.unwrap();
        let builder = Client::builder().servers(registry.addr());
        let builder = builder.login("jo", "wr0ng").connect_timeout(patience);
        let error = connect_error_of(builder).await;
        assert!(error.is_denied());
        let main = registry.addr().rsplit_once(':').unwrap().1.parse().unwrap();
        let ports = [(registry.grpc_addr().port(), "GRPC"), (main, "MAIN")];
        assert_eq!(text(error, &ports), said);
    }
}

#[tokio::test]
async fn the_server_is_starting() {
    let registry = registry().await;
    registry.script(Script::every(
        "ServerCheckRequest",
        Fault::RefuseAsError(300),
    ));
    let error = connect_error(&registry.addr()).await;
    let ports = [(registry.grpc_addr().port(), "GRPC")];
    assert_eq!(
        text(error, &ports),
        "no connection to the registry within 400ms: not connected after N attempts; the last \
         failed: Nacos server 127.0.0.1:GRPC: the server is still starting or not in service \
         (refused by the test's script): it is tried again until it is up, and so are the \
         others that are configured"
    );
}

#[tokio::test]
async fn a_proxy_splits_the_connection() {
    let registry = registry().await;
    registry.script(Script::every(
        "HealthCheckRequest",
        Fault::RefuseAsError(301),
    ));
    let error = connect_error(&registry.addr()).await;
    let ports = [(registry.grpc_addr().port(), "GRPC")];
    assert_eq!(
        text(error, &ports),
        "no connection to the registry within 400ms: not connected after N attempts; the last \
         failed: Nacos server 127.0.0.1:GRPC: the setup was acknowledged but a unary call is \
         not registered (301): an L7 proxy splits the connection; use TCP"
    );
}

#[tokio::test]
async fn access_to_one_service_is_denied() {
    let registry = registry().await;
    let denied = Fault::RefuseAsError(403);
    for kind in ["SubscribeServiceRequest", "ServiceQueryRequest"] {
        registry.script(Script::every(kind, denied.clone()).of_service("orders"));
    }
    registry.register("users", &instance("10.0.0.1:80"));
    let client = connected(&registry, |b| b.request_timeout(SOON)).await;
    within(client.subscribe("users"))
        .await
        .expect("only one is denied");

    let error = within(client.instances("orders")).await.unwrap_err();
    assert!(error.is_denied());
    assert_eq!(
        text(error, &[]),
        "the registry denied access: refused by the test's script; it wants a login \
         (`ClientBuilder::login`), or this user may not touch the service"
    );
    let orders = client.subscribe_lazy("orders").unwrap();
    hinted(&orders).await;
    let error = orders.wait_for(1, SOON).await.unwrap_err();
    assert_eq!(
        text(error, &[]),
        "DEFAULT_GROUP@@orders in namespace public has 0 callable of the 1 instances waited for \
         (the registry has not answered yet); the registry refuses to list it: access denied: \
         the server answered 403: refused by the test's script; the server wants a login, or \
         this user may not touch the namespace"
    );
}

#[tokio::test]
async fn a_service_that_nobody_registers_in() {
    let registry = registry().await;
    registry.register("orders", &instance("10.0.0.1:80"));
    registry.deregister("orders", "10.0.0.1:80");
    let client = connected(&registry, |b| b.directory(believing())).await;
    let orders = within(client.subscribe("orders")).await.unwrap();
    hinted(&orders).await;
    let error = orders.wait_for(1, SOON).await.unwrap_err();
    assert_eq!(
        text(error, &[]),
        "DEFAULT_GROUP@@orders in namespace public has 0 callable of the 1 instances waited \
         for; the registry knows the service, and no instance of it is registered"
    );
    let explained = orders.explain(instance("10.0.0.1:80").address());
    assert!(matches!(explained.finding, Finding::NotListed));
    assert_eq!(
        text(explained, &[]),
        "10.0.0.1:80 of DEFAULT_GROUP@@orders in namespace public: not listed, nor was it in \
         the last 10 minutes (revision 1); the registry knows the service, and no instance of \
         it is registered"
    );
    assert_eq!(
        text(call_error(&orders).await, &[]),
        "no instance of DEFAULT_GROUP@@orders in namespace public can be called: the registry \
         lists none; the registry knows the service, and no instance of it is registered"
    );
}

#[tokio::test]
async fn the_namespace_is_given_by_name() {
    let registry = registry().await;
    registry.register("orders", &instance("10.0.0.1:80"));
    let client = connected(&registry, |b| b.namespace("dev").directory(believing())).await;
    let orders = within(client.subscribe("orders")).await.unwrap();
    hinted(&orders).await;
    let error = orders.wait_for(1, SOON).await.unwrap_err();
    assert_eq!(
        text(error, &[]),
        "DEFAULT_GROUP@@orders in namespace dev has 0 callable of the 1 instances waited for; \
         namespace 'dev' has no services in group DEFAULT_GROUP; use its id, not its name, and \
         check the group"
    );
    assert_eq!(
        text(call_error(&orders).await, &[]),
        "no instance of DEFAULT_GROUP@@orders in namespace dev can be called: the registry \
         lists none; namespace 'dev' has no services in group DEFAULT_GROUP; use its id, not \
         its name, and check the group"
    );
}

#[tokio::test]
async fn the_service_is_misspelt() {
    let registry = registry().await;
    for service in ["orders", "users", "billing"] {
        registry.register(service, &instance("10.0.0.1:80"));
    }
    let client = connected(&registry, |b| b.directory(believing())).await;
    let orders = within(client.subscribe("ordres")).await.unwrap();
    hinted(&orders).await;
    assert_eq!(
        text(call_error(&orders).await, &[]),
        "no instance of DEFAULT_GROUP@@ordres in namespace public can be called: the registry \
         lists none; group DEFAULT_GROUP has no service \"ordres\"; did you mean \"orders\"?"
    );
    let elsewhere = within(client.subscribe("shop@@orders")).await.unwrap();
    hinted(&elsewhere).await;
    assert_eq!(
        text(call_error(&elsewhere).await, &[]),
        "no instance of shop@@orders in namespace public can be called: the registry lists \
         none; group shop has no service \"orders\", but DEFAULT_GROUP has: subscribe to \
         \"DEFAULT_GROUP@@orders\""
    );

    // Whoever registers makes the hint obsolete.
    registry.register("ordres", &instance("10.0.0.2:80"));
    within(orders.wait_for(1, HANG)).await.unwrap();
    assert_eq!(orders.hint(), None);
}

#[tokio::test]
async fn the_deadline_passed() {
    let registry = registry().await;
    let client = connected(&registry, |b| b.request_timeout(SOON)).await;
    registry.freeze();
    let error = within(client.subscribe("orders")).await.unwrap_err();
    assert!(error.is_timeout());
    let ports = [(registry.grpc_addr().port(), "GRPC")];
    assert_eq!(
        text(error, &ports),
        "the registry did not fulfil the request within 400ms: the connection to 127.0.0.1:GRPC stands, but \
         the server does not answer; it may be overloaded or frozen (`idle_check` says when it \
         is given up), or `request_timeout` is too short"
    );
    let error = within(client.register("orders", instance("10.0.0.1:80"))).await;
    assert!(matches!(error, Err(RequestError::TimedOut { .. })));
}

#[tokio::test]
async fn every_instance_is_drained() {
    let registry = registry().await;
    for address in ["10.0.0.1:80", "10.0.0.2:80"] {
        registry.register("orders", &instance(address).with_weight(0.0));
    }
    let client = connected(&registry, |b| b).await;
    let orders = within(client.subscribe("orders")).await.unwrap();
    let error = orders.wait_for(1, SOON).await.unwrap_err();
    assert_eq!(
        text(error, &[]),
        "DEFAULT_GROUP@@orders in namespace public has 0 callable of the 1 instances waited \
         for; not 10.0.0.1:80: its weight is 0, 10.0.0.2:80: its weight is 0; a weight of 0 \
         drains an instance: raise it in the registry's console, or wait for instances that \
         have one"
    );
    assert_eq!(
        text(call_error(&orders).await, &[]),
        "no instance of DEFAULT_GROUP@@orders in namespace public can be called: 2 listed: 2 × \
         its weight is 0; a weight of 0 drains an instance: raise it in the registry's console, \
         or wait for instances that have one"
    );
}

#[tokio::test]
async fn every_instance_is_unhealthy_and_calls_are_to_fail_fast() {
    let registry = registry().await;
    for address in ["10.0.0.1:80", "10.0.0.2:80"] {
        registry.register("orders", &instance(address).with_healthy(false));
    }
    let options = Options::default().on_all_unhealthy(OnAllUnhealthy::FailFast);
    let client = connected(&registry, |b| b.directory(options)).await;
    let orders = within(client.subscribe("orders")).await.unwrap();
    let error = orders.wait_for(1, SOON).await.unwrap_err();
    assert_eq!(
        text(error, &[]),
        "DEFAULT_GROUP@@orders in namespace public has 0 callable of the 1 instances waited \
         for; not 10.0.0.1:80: unhealthy, 10.0.0.2:80: unhealthy; unhealthy instances are not \
         called under `OnAllUnhealthy::FailFast`; the default calls them when there are no \
         others"
    );
    assert_eq!(
        text(call_error(&orders).await, &[]),
        "no instance of DEFAULT_GROUP@@orders in namespace public can be called: 2 listed: 2 × \
         unhealthy; unhealthy instances are not called under `OnAllUnhealthy::FailFast`; the \
         default calls them when there are no others"
    );
}

//! TLS and mutual TLS against the embedded registry, with certificates made here; and what each
//! mistake says.

use std::{fs, future::Future, time::Duration};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, date_time_ymd,
};
use tokio::time::timeout;
use tower_nacos::{
    client::{Client, ClientBuilder, Config, Tls},
    model::Instance,
    testing::{Login, Registry, ServerTls},
};

const HANG: Duration = Duration::from_secs(20);

type Ca = CertifiedIssuer<'static, KeyPair>;

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(HANG, future)
        .await
        .unwrap_or_else(|_| panic!("hangs: {what}"))
}

fn ca() -> Ca {
    ca_named("a CA")
}

fn ca_named(name: &str) -> Ca {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate for these names, and its key.
fn certificate(
    ca: &Ca,
    names: &[&str],
    change: impl FnOnce(&mut CertificateParams),
) -> (String, String) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, ca).unwrap();
    (certificate.pem(), key.serialize_pem())
}

fn server(ca: &Ca, names: &[&str]) -> ServerTls {
    let (chain, key) = certificate(ca, names, |_| {});
    ServerTls::new(chain, key)
}

async fn registry(tls: ServerTls) -> Registry {
    let builder = Registry::builder().push_delay(None).tls(tls);
    builder.start().await.unwrap()
}

fn builder(registry: &Registry) -> ClientBuilder {
    Client::builder()
        .servers(registry.addr())
        .connect_timeout(Duration::from_millis(800))
}

/// What a client is told that does not come to a connection.
async fn error(builder: ClientBuilder) -> String {
    let error = soon("connect", builder.connect()).await.unwrap_err();
    error.to_string()
}

async fn works(registry: &Registry, builder: ClientBuilder) {
    let client = soon("connect", builder.connect_timeout(HANG).connect())
        .await
        .unwrap();
    let orders = soon("subscribe", client.subscribe("orders")).await.unwrap();
    registry.register("orders", &Instance::parse("127.0.0.1:9001").unwrap());
    soon("push", orders.wait_for(1, HANG)).await.unwrap();
    registry.inspect(|view| {
        let labels = &view.connections()[0].labels;
        assert_eq!(labels.get("tls.enable").map(String::as_str), Some("true"));
    });
}

#[tokio::test]
async fn a_server_with_a_certificate_of_our_ca_is_trusted() {
    let ca = ca();
    let registry = registry(server(&ca, &["127.0.0.1"])).await;
    works(&registry, builder(&registry).tls(Tls::new().ca(ca.pem()))).await;
}

#[tokio::test]
async fn a_login_goes_over_tls_as_well() {
    let ca = ca();
    let registry = Registry::builder()
        .push_delay(None)
        .login(Login::new("jo", "s3cret"))
        .tls(server(&ca, &["127.0.0.1"]))
        .start()
        .await
        .unwrap();
    let secured = builder(&registry)
        .tls(Tls::new().ca(ca.pem()))
        .login("jo", "s3cret");
    works(&registry, secured).await;
}

#[tokio::test]
async fn a_login_in_plain_text_happens_only_when_asked_for() {
    let ca = ca();
    let registry = Registry::builder()
        .push_delay(None)
        .login(Login::new("jo", "s3cret"))
        .tls(server(&ca, &["127.0.0.1"]).plain_http())
        .start()
        .await
        .unwrap();
    let tls = Tls::new().ca(ca.pem());
    let login = || builder(&registry).login("jo", "s3cret");
    let error = error(login().tls(tls.clone())).await;
    assert!(error.contains("login at https://127.0.0.1:"), "{error}");
    assert!(error.contains("does not speak TLS"), "{error}");
    assert!(error.contains("`Tls::plain_login` allows"), "{error}");
    registry.inspect(|view| assert_eq!((view.logins(), view.refused_logins()), (0, 0)));
    works(&registry, login().tls(tls.plain_login(true))).await;
}

#[tokio::test]
async fn mutual_tls_shows_our_certificate() {
    let ca = ca();
    let registry = registry(server(&ca, &["127.0.0.1"]).client_ca(ca.pem())).await;
    let (chain, key) = certificate(&ca, &["client"], |_| {});
    let tls = Tls::new().ca(ca.pem()).client_certificate(chain, key);
    works(&registry, builder(&registry).tls(tls)).await;
}

#[tokio::test]
async fn a_server_that_wants_a_client_certificate_is_told_from_a_broken_one() {
    let ours = ca();
    let registry = registry(server(&ours, &["127.0.0.1"]).client_ca(ours.pem())).await;
    let (chain, key) = certificate(&ca(), &["client"], |_| {});
    let tls = Tls::new().ca(ours.pem());
    for tls in [tls.clone(), tls.client_certificate(chain, key)] {
        let error = error(builder(&registry).tls(tls)).await;
        assert!(error.contains("client certificate"), "{error}");
        assert!(error.contains("`Tls::client_certificate`"), "{error}");
    }
}

#[tokio::test]
async fn tls_against_a_plain_port() {
    let registry = Registry::start().await.unwrap();
    let error = error(builder(&registry).tls(Tls::new().ca(ca().pem()))).await;
    let said = "the port does not speak TLS: switch TLS off, or give the port that speaks it";
    assert!(error.contains(said), "{error}");
}

#[tokio::test]
async fn plain_against_a_tls_port() {
    let registry = registry(server(&ca(), &["127.0.0.1"])).await;
    let error = error(builder(&registry)).await;
    let said = "it speaks TLS; switch TLS on or give the plain port";
    assert!(error.contains(said), "{error}");
}

#[tokio::test]
async fn an_untrusted_certificate() {
    let registry = registry(server(&ca(), &["127.0.0.1"])).await;
    let said = "the server's certificate is signed by nobody that is trusted here: give the certificate of its CA (`Tls::ca`)";
    for trusted in [ca(), ca_named("another CA")] {
        let error = error(builder(&registry).tls(Tls::new().ca(trusted.pem()))).await;
        assert!(error.contains(said), "{error}");
    }
    let error = error(builder(&registry).tls(Tls::new())).await;
    let none = "this system has no trusted certificates";
    assert!(error.contains(said) || error.contains(none), "{error}");
}

#[tokio::test]
async fn a_certificate_of_another_name_and_the_name_that_makes_it_fit() {
    let ca = ca();
    let registry = registry(server(&ca, &["nacos.example", "10.0.0.1"])).await;
    let tls = Tls::new().ca(ca.pem());
    let error = error(builder(&registry).tls(tls.clone())).await;
    let said = "the server's certificate is for nacos.example, 10.0.0.1, not for 127.0.0.1: give the server by a name that its certificate has, or name it (`Tls::server_name`)";
    assert!(error.contains(said), "{error}");
    works(
        &registry,
        builder(&registry).tls(tls.server_name("nacos.example")),
    )
    .await;
}

#[tokio::test]
async fn an_expired_certificate() {
    let ca = ca();
    let (chain, key) = certificate(&ca, &["127.0.0.1"], |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    let registry = registry(ServerTls::new(chain, key)).await;
    let error = error(builder(&registry).tls(Tls::new().ca(ca.pem()))).await;
    assert!(
        error.contains("the server's certificate expired "),
        "{error}"
    );
    assert!(error.contains(" days ago: it needs a new one"), "{error}");
}

#[tokio::test]
async fn a_certificate_that_is_not_valid_yet() {
    let ca = ca();
    let (chain, key) = certificate(&ca, &["127.0.0.1"], |params| {
        params.not_before = date_time_ymd(2090, 1, 1);
        params.not_after = date_time_ymd(2091, 1, 1);
    });
    let registry = registry(ServerTls::new(chain, key)).await;
    let error = error(builder(&registry).tls(Tls::new().ca(ca.pem()))).await;
    assert!(
        error.contains("the server's certificate is valid only in "),
        "{error}"
    );
}

#[tokio::test]
async fn texts_that_are_no_certificates_are_refused_before_anything_is_dialled() {
    let (chain, key) = certificate(&ca(), &["client"], |_| {});
    let (_, other_key) = certificate(&ca(), &["client"], |_| {});
    for (tls, said) in [
        (
            Tls::new().ca("rubbish"),
            "the CA: no certificate in it; expected PEM",
        ),
        (
            Tls::new().client_certificate("", &*key),
            "the client certificate: no certificate in it",
        ),
        (
            Tls::new().client_certificate(&*chain, "x"),
            "the client certificate's key: not readable as PEM",
        ),
        (
            Tls::new().client_certificate(&*chain, &*other_key),
            "client certificate and key: ",
        ),
        (
            Tls::new().ca(ca().pem()).server_name("a b"),
            "\"a b\" is no name that a certificate can be for",
        ),
    ] {
        let shown = format!("{tls:?}");
        assert!(!shown.contains("BEGIN"), "{shown}");
        let tls = if said.starts_with("the CA") {
            tls
        } else {
            tls.ca(ca().pem())
        };
        let error = Client::builder()
            .servers("h1")
            .tls(tls)
            .connect_lazy()
            .unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[tokio::test]
async fn a_url_switches_tls_on_and_names_the_files() {
    let ca = ca();
    let registry = registry(server(&ca, &["nacos.example"]).client_ca(ca.pem())).await;
    let (chain, key) = certificate(&ca, &["client"], |_| {});
    let dir = std::env::temp_dir().join(format!("tower-nacos-tls-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    for (name, text) in [
        ("ca.pem", ca.pem()),
        ("client.pem", chain),
        ("key.pem", key),
    ] {
        fs::write(dir.join(name), text).unwrap();
    }
    let (at, dir_shown) = (registry.addr(), dir.display());
    let url = format!(
        "nacos://{at}?tls=true&tls_ca={dir_shown}/ca.pem&tls_certificate={dir_shown}/client.pem&tls_key={dir_shown}/key.pem&tls_server_name=nacos.example"
    );
    works(
        &registry,
        Config::from_url(&url).unwrap().builder().unwrap(),
    )
    .await;
    let half = format!("nacos://{at}?tls=true&tls_key={dir_shown}/key.pem");
    let error = Config::from_url(&half)
        .unwrap()
        .builder()
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("tls_certificate and tls_key belong together"),
        "{error}"
    );
    let absent = format!("nacos://{at}?tls=true&tls_ca=/nowhere.pem");
    let error = Config::from_url(&absent)
        .unwrap()
        .builder()
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("tls_ca: /nowhere.pem: No such file"),
        "{error}"
    );
    fs::remove_dir_all(&dir).unwrap();
}

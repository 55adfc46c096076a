//! Naming requests that are signed: what a server sees of them, and when the credentials are asked
//! for anew.

use std::{
    collections::BTreeMap,
    future::Future,
    io::Write,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use ring::hmac;
use tokio::time::timeout;
use tower_nacos::{
    client::{Client, Config, RamCredentials},
    model::Instance,
    testing::{AccessKey, Fault, Registry, Script},
};

const HANG: Duration = Duration::from_secs(20);
const SECRET: &str = "s3cret-of-ram";

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(HANG, future)
        .await
        .unwrap_or_else(|_| panic!("hangs: {what}"))
}

async fn registry() -> Registry {
    let builder = Registry::builder().push_delay(None);
    builder.start().await.unwrap()
}

fn instance(port: u16) -> Instance {
    Instance::parse(&format!("127.0.0.1:{port}")).unwrap()
}

/// The headers of every request of a kind, oldest first.
fn headers(registry: &Registry, kind: &str) -> Vec<BTreeMap<String, String>> {
    registry.inspect(|view| {
        let of_kind = view
            .received()
            .filter(|received| received.frame.kind == kind);
        of_kind
            .map(|received| received.frame.headers.clone())
            .collect()
    })
}

/// That a request is signed, for this resource, and with a secret.
fn assert_signed(headers: &BTreeMap<String, String>, resource: &str, secret: &str) {
    let (millis, signed) = headers["data"].split_once("@@").unwrap();
    assert_eq!(signed, resource);
    assert!(
        millis.parse::<u64>().unwrap() > 1_700_000_000_000,
        "{millis}"
    );
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
    let tag = BASE64_STANDARD.decode(&headers["signature"]).unwrap();
    hmac::verify(&key, headers["data"].as_bytes(), &tag).expect("the signature of another secret");
    assert!(!headers.contains_key("accessToken"));
}

#[tokio::test]
async fn every_naming_request_is_signed_for_its_service_and_nothing_else_is() {
    let registry = registry().await;
    let connecting = Client::builder()
        .servers(registry.addr())
        .app_name("shop")
        .login_ram("key", SECRET)
        .connect();
    let client = soon("connect", connecting).await.unwrap();
    soon("register", client.register("G@@orders", instance(9001)))
        .await
        .unwrap();
    let orders = soon("subscribe", client.subscribe("G@@orders"))
        .await
        .unwrap();
    soon("filled", orders.wait_for(1, HANG)).await.unwrap();
    soon("read", client.instances("bills")).await.unwrap();
    soon("names", client.service_names("G")).await.unwrap();
    soon("close", client.close(HANG)).await.unwrap();
    for (kind, resource, count) in [
        ("InstanceRequest", "G@@orders", 2),
        ("SubscribeServiceRequest", "G@@orders", 2),
        ("ServiceQueryRequest", "DEFAULT_GROUP@@bills", 1),
        ("ServiceListRequest", "G@@", 1),
    ] {
        let all = headers(&registry, kind);
        assert_eq!(all.len(), count, "{kind}");
        for one in all {
            assert_signed(&one, resource, SECRET);
            let names: Vec<&str> = one.keys().map(String::as_str).collect();
            assert_eq!(names, ["ak", "app", "data", "signature"], "{kind}");
            assert_eq!((&*one["ak"], &*one["app"]), ("key", "shop"));
        }
    }
    for kind in [
        "ServerCheckRequest",
        "ConnectionSetupRequest",
        "HealthCheckRequest",
    ] {
        assert!(
            headers(&registry, kind).iter().all(BTreeMap::is_empty),
            "{kind}"
        );
    }
    registry.inspect(|view| assert_eq!(view.logins() + view.refused_logins(), 0, "no login"));
}

/// The registry checks what the client signs, each by a reading of its own of what goes on the wire.
#[tokio::test]
async fn a_registry_that_wants_signatures_lets_in_whoever_signs() {
    use tower_nacos::{model::ServiceFilter, testing::Profile};
    for (key, region, token) in [
        (AccessKey::new("key", SECRET), None, None),
        (
            AccessKey::new("key", SECRET).with_region("cn-hangzhou"),
            Some("cn-hangzhou"),
            None,
        ),
        (
            AccessKey::new("key", SECRET).with_security_token("sts"),
            None,
            Some("sts"),
        ),
    ] {
        let builder = Registry::builder().profile(Profile::V3_1).push_delay(None);
        let registry = builder.access_key(key).start().await.unwrap();
        let credentials = RamCredentials::new("key", SECRET);
        let credentials = match token {
            Some(token) => credentials.with_security_token(token),
            None => credentials,
        };
        let builder = Client::builder().servers(registry.addr());
        let builder = match region {
            Some(region) => builder.signature_region(region),
            None => builder,
        };
        let builder = builder.login_ram_with(move || {
            let credentials = credentials.clone();
            async move { Ok::<_, std::io::Error>(credentials) }
        });
        let client = soon("connect", builder.connect()).await.unwrap();
        let batch = [instance(9001), instance(9002)];
        soon("batch", client.register_batch("G@@orders", batch))
            .await
            .unwrap();
        let orders = soon("subscribe", client.subscribe("G@@orders"))
            .await
            .unwrap();
        soon("filled", orders.wait_for(2, HANG)).await.unwrap();
        let kept = instance(9003);
        soon("persist", client.register_persistent("kept", kept))
            .await
            .unwrap();
        soon("read", client.instances("kept")).await.unwrap();
        soon("names", client.service_names("G")).await.unwrap();
        let all = soon("watch", client.services(ServiceFilter::namespace()))
            .await
            .unwrap();
        assert_eq!(all.snapshot().len(), 2, "{region:?} {token:?}");
        soon("close", client.close(HANG)).await.unwrap();
        registry.inspect(|view| assert_eq!(view.denials(), 0, "{region:?} {token:?}"));
    }
}

#[tokio::test]
async fn a_registry_that_wants_signatures_lets_nobody_else_in() {
    let key = || AccessKey::new("key", SECRET);
    let builder = Registry::builder().push_delay(None).access_key(key());
    let registry = builder.start().await.unwrap();
    let patience = Duration::from_millis(500);
    let builder = || {
        Client::builder()
            .servers(registry.addr())
            .connect_timeout(patience)
    };
    for builder in [
        builder(),
        builder().login_ram("key", "another"),
        builder().login_ram("another", SECRET),
        builder()
            .login_ram("key", SECRET)
            .signature_region("cn-hangzhou"),
    ] {
        let outcome = async {
            let client = builder.connect().await.map_err(|error| error.to_string())?;
            let registered = client.register("orders", instance(9001)).await;
            registered.map_err(|error| error.to_string())
        };
        let error = soon("denied", outcome).await.unwrap_err();
        assert!(!error.contains(SECRET), "{error}");
    }
    assert!(registry.inspect(|view| view.addresses("orders").is_empty() && view.denials() >= 4));
    // Keys that rotate: a server that knows the new one only is met with the next.
    let secrets = Arc::new(Mutex::new(SECRET));
    let current = Arc::clone(&secrets);
    let builder = Client::builder().servers(registry.addr());
    let builder = builder.login_ram_with(move || {
        let secret = *current.lock().unwrap();
        async move { Ok::<_, std::io::Error>(RamCredentials::new("key", secret)) }
    });
    let client = soon("connect", builder.connect()).await.unwrap();
    soon("register", client.register("orders", instance(9001)))
        .await
        .unwrap();
    *secrets.lock().unwrap() = "the-next";
    registry.set_access_key(Some(AccessKey::new("key", "the-next")));
    registry.restart().await.unwrap();
    soon("again", client.register("users", instance(9001)))
        .await
        .unwrap();
    registry.set_access_key(None);
    let anybody = soon("connect", Client::connect(registry.addr()))
        .await
        .unwrap();
    soon("read", anybody.instances("orders")).await.unwrap();
}

#[tokio::test]
async fn options_as_data_sign_too_with_region_and_token() {
    let registry = registry().await;
    let url = format!(
        "nacos://{}/?access_key=key&secret_key=s%2Bcret&security_token=sts&signature_region=cn-hangzhou",
        registry.addr()
    );
    let of_url = Config::from_url(&url).unwrap();
    let of_file: Config = serde_json::from_str(&format!(
        r#"{{"servers": "{}", "access_key": "key", "secret_key": "s+cret", "security_token": "sts",
            "signature_region": "cn-hangzhou"}}"#,
        registry.addr()
    ))
    .unwrap();
    assert_eq!(of_url, of_file);
    assert!(!format!("{of_url:?}").contains("s+cret"));
    let builder = of_url.builder().unwrap();
    let client = soon("connect", builder.connect()).await.unwrap();
    soon("read", client.instances("orders")).await.unwrap();
    let sent = &headers(&registry, "ServiceQueryRequest")[0];
    assert_eq!(sent["signatureVersion"], "v4");
    assert_eq!((&*sent["Spas-SecurityToken"], &*sent["ak"]), ("sts", "key"));
}

#[test]
fn options_that_do_not_belong_together_are_refused_without_a_secret() {
    for (query, what) in [
        ("access_key=key", "belong together"),
        ("secret_key=s3cret", "belong together"),
        ("security_token=s3cret", "belong together"),
        ("signature_region=r", "belong together"),
        ("access_key=&secret_key=s3cret", "the access key is empty"),
        ("access_key=k&secret_key=", "the secret is empty"),
        (
            "access_key=k&secret_key=s3cret&username=jo&password=s3cret",
            "access_key and username are given",
        ),
    ] {
        let config = Config::from_url(&format!("nacos://127.0.0.1/?{query}")).unwrap();
        let error = config.builder().expect_err(query);
        let text = format!("{error} {error:?}");
        assert!(text.contains(what) && !text.contains("s3cret"), "{text}");
    }
    let error = Client::builder().signature_region("r").connect_lazy();
    assert!(error.unwrap_err().to_string().contains("nothing is signed"));
}

/// Hands out keys by number; each is refused by whoever scripts it.
fn rotating(
    asked: &Arc<AtomicU64>,
    expiry: Option<Duration>,
) -> tower_nacos::client::ClientBuilder {
    let asked = Arc::clone(asked);
    Client::builder().login_ram_with(move || {
        let number = asked.fetch_add(1, Ordering::Relaxed) + 1;
        async move {
            let key = RamCredentials::new(format!("key-{number}"), format!("{SECRET}-{number}"));
            Ok::<_, std::io::Error>(match expiry {
                Some(expiry) => key.with_expiry(expiry),
                None => key,
            })
        }
    })
}

#[tokio::test]
async fn a_denial_brings_the_next_credentials_and_the_request_again() {
    let registry = registry().await;
    let asked = Arc::new(AtomicU64::new(0));
    let connecting = rotating(&asked, None).servers(registry.addr()).connect();
    let client = soon("connect", connecting).await.unwrap();
    soon("read", client.instances("orders")).await.unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 1, "one for many requests");
    // Another server, to which the credentials are as good or bad as they are old.
    registry.restart().await.unwrap();
    registry.script(Script::next("SubscribeServiceRequest", Fault::Refuse(403)));
    let subscribed = soon("subscribe", client.subscribe("orders")).await.unwrap();
    drop(subscribed);
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    let sent = headers(&registry, "SubscribeServiceRequest");
    assert_signed(&sent[0], "DEFAULT_GROUP@@orders", &format!("{SECRET}-1"));
    assert_signed(&sent[1], "DEFAULT_GROUP@@orders", &format!("{SECRET}-2"));
    assert_eq!((&*sent[0]["ak"], &*sent[1]["ak"]), ("key-1", "key-2"));
}

#[tokio::test]
async fn credentials_are_asked_for_ahead_of_their_expiry() {
    let registry = registry().await;
    let asked = Arc::new(AtomicU64::new(0));
    let builder = rotating(&asked, Some(Duration::from_secs(1)));
    let client = soon("connect", builder.servers(registry.addr()).connect())
        .await
        .unwrap();
    soon("asked again and again", async {
        while asked.load(Ordering::Relaxed) < 4 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    soon("read", client.instances("orders")).await.unwrap();
    let sent = &headers(&registry, "ServiceQueryRequest")[0];
    let number: u64 = sent["ak"].strip_prefix("key-").unwrap().parse().unwrap();
    assert!(number >= 3, "{number}");
    assert_signed(sent, "DEFAULT_GROUP@@orders", &format!("{SECRET}-{number}"));
    registry.inspect(|view| assert_eq!(view.denials(), 0));
}

#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_secret_is_in_no_log_and_no_error() {
    let logged = Logged::default();
    let writer = logged.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    // With one subscriber alone, a line that another test's thread reaches first, which has none,
    // counts as wanted by nobody from then on. With two, all are asked.
    let _another = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(subscriber);
    let registry = registry().await;
    let asked = Arc::new(AtomicU64::new(0));
    let connecting = rotating(&asked, Some(Duration::from_secs(1)))
        .servers(registry.addr())
        .connect();
    let client = soon("connect", connecting).await.unwrap();
    registry.set_forbidden("orders", true);
    let error = soon("denied", client.subscribe("orders"))
        .await
        .unwrap_err();
    assert!(error.is_denied());
    let failing = Client::builder()
        .servers(registry.addr())
        .login_ram_with(|| async { Err::<RamCredentials, _>("no role is attached") })
        .connect_timeout(Duration::from_millis(500));
    registry.script(Script::every("ServiceListRequest", Fault::Refuse(403)));
    let no_role = soon("no credentials", failing.connect()).await.unwrap_err();
    let told = no_role.to_string();
    assert!(told.contains("no role is attached"), "{told}");
    soon("close", client.close(HANG)).await.unwrap();
    let text = String::from_utf8(logged.0.lock().unwrap().clone()).unwrap();
    assert!(
        text.contains("denies access"),
        "the log is not empty: {text}"
    );
    assert!(!text.contains(SECRET) && !format!("{error:?} {error}").contains(SECRET));
}

//! Options as data: URLs, files, variables; what is refused, and that no error shows a password.

use std::{future::Future, time::Duration};

use tokio::time::timeout;
use tower_nacos::{
    client::{Client, Config, ConnectError},
    model::Instance,
    testing::{Login, Registry},
};

const HANG: Duration = Duration::from_secs(20);
const PASSWORD: &str = "p4ss/w@rd";

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(HANG, future)
        .await
        .unwrap_or_else(|_| panic!("hangs: {what}"))
}

fn url_error(url: &str) -> String {
    let error = Config::from_url(url)
        .and_then(Config::builder)
        .expect_err(url);
    format!("{error} {error:?}")
}

fn json(text: &str) -> Result<Config, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_url_says_everything_that_a_client_needs() {
    let registry = Registry::builder()
        .push_delay(None)
        .login(Login::new("jo", PASSWORD))
        .start()
        .await
        .unwrap();
    let server = registry.addr();
    let url = format!("nacos://jo:p4ss%2Fw%40rd@{server}/dev?group=G&app_name=shop&idle_check=4s");
    let client = soon("connect", Client::from_url(&url)).await.unwrap();
    assert_eq!(client.namespace(), "dev");
    let register = client.register("orders", Instance::parse("127.0.0.1:9001").unwrap());
    soon("register", register).await.unwrap();
    let listed = soon("read", client.instances("G@@orders")).await.unwrap();
    assert_eq!(
        listed.instances().len(),
        1,
        "a name without a group lies in the default one"
    );
    let listed = soon("read", client.instances("DEFAULT_GROUP@@orders"))
        .await
        .unwrap();
    assert_eq!(
        listed.instances().len(),
        0,
        "a named group is never replaced"
    );
    registry.inspect(|view| {
        let label = |connection: &tower_nacos::testing::ConnectionInfo| {
            connection.labels.get("AppName").cloned()
        };
        assert_eq!(label(&view.connections()[0]).as_deref(), Some("shop"));
    });
}

#[test]
fn the_three_sources_share_one_vocabulary() {
    let url = "nacos://jo:s3cret@h1:8848,h2/dev?group=G&call_timeout=2s&tries=5&safety_read=off&max_message_size=1MiB";
    let of_url = Config::from_url(url).unwrap();
    let of_file = json(
        r#"{"servers": ["h1:8848", "h2"], "namespace": "dev", "username": "jo",
            "password": "s3cret", "group": "G", "call_timeout": "2s", "tries": 5,
            "safety_read": false, "max_message_size": 1048576}"#,
    )
    .unwrap();
    let of_variables = Config::from_variables([
        (
            "NACOS_URL",
            "nacos://jo:other@h3/dev?group=G&call_timeout=9s",
        ),
        ("NACOS_SERVERS", "h1:8848,h2"),
        ("NACOS_PASSWORD", "s3cret"),
        ("NACOS_CALL_TIMEOUT", "2s"),
        ("NACOS_TRIES", "5"),
        ("NACOS_SAFETY_READ", "off"),
        ("NACOS_MAX_MESSAGE_SIZE", "1MiB"),
        ("NACOS_APP_NAME", ""),
        ("NACOS_SERVICE_HOST", "10.0.0.1"),
        ("PATH", "/bin"),
    ])
    .unwrap();
    assert_eq!(of_url, of_file);
    assert_eq!(of_url, of_variables);
    let builder = format!("{:?}", of_url.builder().unwrap());
    for shown in [
        "call_timeout: 2s",
        "tries: 5",
        "safety_read: None",
        "max_message_size: 1048576",
    ] {
        assert!(builder.contains(shown), "{shown}: {builder}");
    }
}

#[test]
fn every_option_is_read_from_each_source() {
    let pairs = [
        ("namespace", "dev"),
        ("group", "G"),
        ("app_name", "shop"),
        ("client_name", "orders-api"),
        ("username", "jo"),
        ("password", "s3cret"),
        ("context_path", "/n"),
        ("grpc_port", "9999"),
        ("connect_timeout", "1s"),
        ("request_timeout", "1s"),
        ("resolve_timeout", "1s"),
        ("dial_timeout", "1s"),
        ("check_timeout", "1s"),
        ("ready_timeout", "1s"),
        ("call_timeout", "1s"),
        ("login_timeout", "1s"),
        ("idle_check", "1s"),
        ("tries", "2"),
        ("first_retry", "1s"),
        ("reconnect_spread", "1s"),
        ("retry_cap", "1s"),
        ("services_interval", "1s"),
        ("safety_read", "1m"),
        ("max_connection_age", "1h"),
        ("max_message_size", "1KiB"),
        ("own_thread", "true"),
        ("address_server", "http://endpoint:8080/nacos/serverlist"),
        ("address_server_interval", "20s"),
        ("cache_dir", "/var/cache/orders"),
        ("start_from", "cache_then_registry"),
        ("cache_max_age", "1h"),
    ];
    let quoted = pairs.map(|(name, value)| format!("{name:?}: {value:?}"));
    let of_file = json(&format!("{{{}}}", quoted.join(","))).unwrap();
    let of_variables = Config::from_variables(
        pairs.map(|(name, value)| (format!("NACOS_{}", name.to_uppercase()), value)),
    )
    .unwrap();
    assert_eq!(of_file, of_variables);
    let shown = format!("{of_file:?}");
    // Absent: the servers, the four of RAM and the six of TLS.
    assert_eq!(shown.matches(": None").count(), 11, "{shown}");
    of_file.builder().unwrap();
}

#[test]
fn unknown_names_are_refused_and_the_known_ones_shown() {
    let error = json(r#"{"servers": "h1", "call_timout": "2s"}"#).unwrap_err();
    assert!(
        error.contains("unknown field `call_timout`, expected one of"),
        "{error}"
    );
    let error = url_error("nacos://h1?call_timout=2s");
    assert!(error.contains("unknown field `call_timout`"), "{error}");
    assert!(error.contains("`call_timeout`"), "{error}");
}

#[test]
fn a_bad_value_names_the_option_and_what_it_takes() {
    for (url, said) in [
        (
            "nacos://h1?call_timeout=2",
            "URL: call_timeout: \"2\" is not a time with its unit, such as 500ms, 10s or 1m30s",
        ),
        (
            "nacos://h1?tls=yes",
            "URL: tls: \"yes\" is neither true nor false",
        ),
        (
            "nacos://h1?tries=-1",
            "URL: tries: \"-1\" is not a whole number",
        ),
        (
            "nacos://h1?grpc_port=70000",
            "URL: grpc_port: \"70000\" is not",
        ),
        (
            "nacos://h1?grpc_port=0",
            "a port is a number from 1 to 65535",
        ),
        (
            "nacos://h1?group=G&group=H",
            "URL: group: it is given twice",
        ),
        ("nacos://h1?group", "a part without ="),
        ("nacos://h1/a/b", "the path has several parts"),
        ("nacos://h1/a%zz", "the namespace has a %"),
        ("nacos://", "it names no server"),
        ("http://h1:8848", "it does not begin with nacos://"),
        ("nacos://jo@h1", "no password behind it"),
        (
            "nacos://h1,h2:0/dev",
            "invalid server address \"h2:0\": a port is not a number",
        ),
        (
            "nacos://h1,,h2",
            "invalid server address \"h1,,h2\": two separators follow each other",
        ),
        (
            "nacos://h1?namespace=dev&servers=http://h1:8848/nacos",
            "servers",
        ),
    ] {
        let error = url_error(url);
        assert!(error.contains(said), "{url}: {error}");
    }
    let error = Config::from_variables([("NACOS_TRIES", "many")]).unwrap_err();
    assert!(
        error.to_string().contains("NACOS_TRIES: \"many\""),
        "{error}"
    );
    let error = json(r#"{"call_timeout": 2}"#).unwrap_err();
    assert!(error.contains("expected a time with its unit"), "{error}");
    let error = json(r#"{"servers": ["h1", "h 2:0"]}"#).unwrap_err();
    assert!(error.contains("invalid server address \"2:0\""), "{error}");
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    for (url, said) in [
        (
            "nacos://h1?username=jo",
            "there is a username but no password",
        ),
        (
            "nacos://h1?password=x",
            "there is a password but no username",
        ),
        (
            "nacos://h1?tls_ca=/ca.pem",
            "tls_ca is given but TLS is off; set tls=true",
        ),
        (
            "nacos://h1?tls=false&tls_server_name=n",
            "tls_server_name is given but TLS is off",
        ),
        (
            "nacos://h1?idle_check=20s",
            "idle_check: servers question clients",
        ),
        ("nacos://h1?call_timeout=0s", "call_timeout: it is zero"),
        (
            "nacos://h1?first_retry=2s",
            "first_retry (2s) is longer than retry_cap (1.5s)",
        ),
        (
            "nacos://h1?safety_read=10ms",
            "safety_read: less than a second",
        ),
    ] {
        let error = url_error(url);
        assert!(error.contains(said), "{url}: {error}");
    }
}

#[test]
fn a_grpc_port_for_all_does_not_replace_one_that_is_named() {
    let config = Config::from_variables([
        ("NACOS_SERVERS", "h1:8848/9900,h2"),
        ("NACOS_GRPC_PORT", "9901"),
    ]);
    let error = config.and_then(Config::builder).unwrap_err().to_string();
    let said = "grpc_port is 9901, but server h1:8848/9900 names its own";
    assert!(error.contains(said), "{error}");
}

#[tokio::test]
async fn the_builder_refuses_the_same_contradictions() {
    let error = Client::builder()
        .servers("h1")
        .idle_check(Duration::from_secs(30))
        .connect_lazy()
        .unwrap_err();
    assert!(matches!(error, ConnectError::InvalidConfig(_)), "{error}");
    let error = Client::builder().servers("h1").group("a b").connect_lazy();
    assert!(
        matches!(error, Err(ConnectError::InvalidGroup(_))),
        "{error:?}"
    );
}

#[test]
fn no_error_and_no_debug_shows_a_password() {
    for url in [
        "nacos://jo:s3cret@h1?unknown=1",
        "nacos://jo:s3cret@h 1",
        "nacos://jo:s3cret@h1:0",
        "nacos://jo:s3/cret@h1/dev",
        "nacos://jo:s3?cret@h1/dev",
        "nacos://jo:s3#cret@h1/dev",
        "nacos://jo:a@s3/cret@h1/dev",
        "nacos://jo:%zzs3cret@h1",
        "nacos://jo:s3%ffcret@h1",
        "http://jo:s3cret@h1",
        "nacos:/jo:s3cret@h1",
        "nacos://jo:s3cret@h1?password=s3cret",
        "nacos://jo:s3cret@h1?call_timeout=0s",
        "nacos://h1?password=s3cret",
    ] {
        let error = url_error(url).replace("`secret_key`", ""); // the name of an option
        assert!(
            !error.contains("s3") && !error.contains("cret"),
            "{url}: {error}"
        );
        let error = Config::from_variables([("NACOS_URL", url)])
            .and_then(Config::builder)
            .unwrap_err();
        let error = error.to_string().replace("`secret_key`", "");
        assert!(!error.contains("cret"), "{url}: {error}");
    }
    for text in [
        r#"{"password": ["s3cret"]}"#,
        r#"{"password": {"s3cret": 1}}"#,
        r#"{"password": 31.25}"#,
        r#"{"password": true}"#,
        r#"{"servers": "jo:s3cret@h1:8848"}"#,
    ] {
        let error = json(text).unwrap_err();
        assert!(
            !error.contains("s3cret") && !error.contains("31.25"),
            "{error}"
        );
    }
    let config = Config::from_url("nacos://jo:s3cret@h1").unwrap();
    assert!(!format!("{config:?}").contains("s3cret"));
    assert!(!format!("{:?}", config.builder().unwrap()).contains("s3cret"));
    assert_eq!(
        json(r#"{"password": 1234}"#),
        json(r#"{"password": "1234"}"#)
    );
}

#[tokio::test]
async fn the_grpc_port_can_be_named_for_all() {
    let registry = Registry::start().await.unwrap();
    let connecting = Client::builder()
        .servers("127.0.0.1:1")
        .grpc_port(registry.grpc_addr().port())
        .connect();
    let client = soon("connect", connecting).await.unwrap();
    assert!(client.state().is_connected());
}

#[tokio::test]
async fn an_old_connection_is_left_for_another_without_a_gap() {
    let registry = Registry::builder().push_delay(None).start().await.unwrap();
    let connecting = Client::builder()
        .servers(registry.addr())
        .max_connection_age(Duration::from_secs(1))
        .connect();
    let client = soon("connect", connecting).await.unwrap();
    let orders = soon("subscribe", client.subscribe("orders")).await.unwrap();
    let first = registry.subscribers("orders")[0];
    let moved = registry.wait_until(|view| {
        let now = view.subscribers("orders");
        now.len() == 1 && now[0] != first
    });
    soon("moves", moved).await;
    registry.register("orders", &Instance::parse("127.0.0.1:9001").unwrap());
    soon("push", orders.wait_for(1, HANG)).await.unwrap();
}

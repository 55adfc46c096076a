//! Every line of the log names what it is about by the same fields: `namespace`, `group`,
//! `service`, `instance`, `revision`, `cause`. A file of its own: the log is the whole process's.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::timeout;
use tower::ServiceExt;
use tower_nacos::{
    Balance, Client, Instance,
    balance::Maglev,
    http::BuildHttp,
    logs::TRANSPORT,
    testing::{Fault, Registry, Script},
    transport::Transport,
};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context, prelude::*};

const HANG: Duration = Duration::from_secs(20);

/// The fields that name what a line is about.
const STABLE: [&str; 6] = [
    "namespace",
    "group",
    "service",
    "instance",
    "revision",
    "cause",
];
/// Names that would be other words for the same, and would break whoever searches.
const SYNONYMS: [&str; 12] = [
    "error",
    "reason",
    "err",
    "key",
    "host",
    "address",
    "addr",
    "endpoint",
    "service_name",
    "group_name",
    "ns",
    "first",
];

#[derive(Clone, Debug)]
struct Line {
    target: String,
    level: Level,
    fields: BTreeMap<String, String>,
}

impl Line {
    fn message(&self) -> &str {
        &self.fields["message"]
    }
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<Line>>>);

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let target = event.metadata().target();
        if target != "tower_nacos" && !target.starts_with("tower_nacos::") {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        self.0.lock().unwrap().push(Line {
            target: target.to_owned(),
            level: *event.metadata().level(),
            fields: fields.0,
        });
    }
}

#[derive(Default)]
struct Fields(BTreeMap<String, String>);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(HANG, future).await.expect("nothing for 20 s")
}

fn instance(n: u8) -> Instance {
    Instance::parse(&format!("10.0.0.{n}:80")).unwrap()
}

#[tokio::test]
async fn lines_name_what_they_are_about_by_the_same_fields() {
    let lines = Lines::default();
    tracing_subscriber::registry().with(lines.clone()).init();
    let wait_for = |message: &'static str| {
        let lines = lines.clone();
        async move {
            let said = || {
                lines
                    .0
                    .lock()
                    .unwrap()
                    .iter()
                    .any(|line| line.message().contains(message))
            };
            let waiting = async {
                while !said() {
                    tokio::task::yield_now().await;
                }
            };
            assert!(
                timeout(HANG, waiting).await.is_ok(),
                "never said: {message}"
            );
        }
    };

    let registry = Registry::builder().push_delay(None).start().await.unwrap();
    registry.register_as(
        "p",
        "shop@@orders",
        &[instance(1), instance(2), instance(3)],
    );
    let client = within(Client::connect(registry.addr())).await.unwrap();
    let orders = within(client.subscribe("shop@@orders")).await.unwrap();
    wait_for("registry connection").await;
    registry.register_as(
        "p",
        "shop@@orders",
        &[instance(2), instance(3).with_weight(2.0)],
    );
    wait_for("instance removed").await;
    wait_for("instance updated").await;
    registry.push_raw(
        "shop@@orders",
        r#"{"name":"orders","groupName":"shop","hosts":[{"ip":"10.0.0.2","port":80},{"ip":"x","port":0}]}"#,
    );
    wait_for("left out").await;
    registry.push_raw(
        "shop@@orders",
        r#"{"name":"orders","groupName":"shop","hosts":7}"#,
    );
    wait_for("could not be read").await;
    within(client.register("mine", instance(9).with_weight(0.0)))
        .await
        .unwrap();
    registry.script(
        Script::every("SubscribeServiceRequest", Fault::RefuseAsError(400)).of_service("bad"),
    );
    within(client.subscribe("bad")).await.unwrap_err();
    wait_for("refuses the subscription").await;
    registry.clear_scripts();
    within(registry.restart()).await.unwrap();
    wait_for("connection lost").await;
    wait_for("are held").await;
    drop(orders);
    within(client.close(HANG)).await.unwrap();
    wait_for("subscription closed").await;

    // A port that nobody listens on any more.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = closed.local_addr().unwrap().to_string();
    drop(closed);
    registry.register_as("q", "dead", &[Instance::parse(&gone).unwrap()]);
    let client = within(Client::connect(registry.addr())).await.unwrap();
    let dead = within(client.subscribe("dead")).await.unwrap();
    let balance = Balance::builder(&dead).build_http(Transport::builder().build());
    let request = http::Request::new(String::new().into());
    within(balance.oneshot(request)).await.unwrap_err();
    wait_for("ejected").await;
    let balance = Balance::builder(&dead).policy(Maglev::new()).picker();
    _ = balance.try_pick();
    wait_for("no hash key").await;
    let builder = Client::builder().servers(&gone).client_name("lost");
    let lost = builder.connect_lazy().unwrap();
    let nowhere = lost.subscribe_lazy("orders").unwrap();
    wait_for("no registry connection since the start").await;
    let hint = nowhere.hint().expect("what stands in the way");
    assert!(hint.contains("refused"), "{hint}");
    let nobody = Balance::builder(&nowhere).picker().try_pick().unwrap_err();
    assert!(nobody.to_string().contains(&*hint), "{nobody}");

    let lines = lines.0.lock().unwrap().clone();
    for line in &lines {
        let has = |field: &str| line.fields.contains_key(field);
        for synonym in SYNONYMS {
            assert!(!has(synonym), "{synonym} in {line:?}");
        }
        // A connection to an instance is of no one service.
        if line.level <= Level::INFO && line.target != TRANSPORT {
            assert!(has("namespace"), "whose is {line:?}");
            assert_eq!(line.fields["namespace"], "public");
        }
        assert_eq!(has("group"), has("service"), "{line:?}");
        if let Some(service) = line.fields.get("service") {
            assert!(!service.contains('@') && !service.contains(' '), "{line:?}");
        }
        if let Some(revision) = line.fields.get("revision") {
            assert!(revision.parse::<u64>().is_ok(), "{line:?}");
        }
    }
    for (part, fields) in [
        ("instance removed", &STABLE[..]),
        ("instance added", &STABLE[..5]),
        ("instance updated", &STABLE[..5]),
        ("left out", &["group", "cause"]),
        ("could not be read", &["group", "cause"]),
        ("refuses the subscription", &["group", "cause"]),
        ("connection lost", &["cause"]),
        ("weight 0", &["group", "instance", "client"]),
        ("no hash key", &["namespace", "group", "service"]),
        ("ejected", &["group", "instance", "client", "cause"]),
        ("registry connection", &["client"]),
        (
            "since the start",
            &["cause", "client", "attempts", "lasted"],
        ),
    ] {
        let said: Vec<_> = lines
            .iter()
            .filter(|line| line.message().contains(part))
            .collect();
        assert!(!said.is_empty(), "nobody said {part}");
        for line in said {
            for field in fields {
                assert!(line.fields.contains_key(*field), "no {field} in {line:?}");
            }
        }
    }
}

//! At debug the log tells what calls, dials and probes went through, a line each; of a call that goes well it
//! says nothing. A file of its own: the log is the whole process's.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, routing::get};
use http_body_util::BodyExt;
use tokio::{net::TcpListener, time::timeout};
use tower::{Service, ServiceExt, service_fn};
use tower_nacos::{
    Balance, Client, Instance, Subscription, endpoint::Verdict, http, testing::Registry,
};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context, prelude::*};

const HANG: Duration = Duration::from_secs(20);

/// What was said at debug or below: message and fields.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<BTreeMap<String, String>>>>);

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let (target, level) = (event.metadata().target(), *event.metadata().level());
        if target.starts_with("tower_nacos::") && level >= Level::DEBUG {
            let mut fields = Fields::default();
            event.record(&mut fields);
            self.0.lock().unwrap().push(fields.0);
        }
    }
}

#[derive(Default)]
struct Fields(BTreeMap<String, String>);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

impl Lines {
    /// All since this was last asked.
    fn take(&self) -> Vec<BTreeMap<String, String>> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    /// The messages of those.
    fn said(&self) -> Vec<String> {
        self.take()
            .into_iter()
            .map(|mut line| line.remove("message").unwrap())
            .collect()
    }
}

async fn within<T>(future: impl IntoFuture<Output = T>) -> T {
    timeout(HANG, future).await.expect("nothing for 20 s")
}

#[tokio::test]
async fn what_went_otherwise_has_a_line_and_what_went_well_has_none() {
    let lines = Lines::default();
    tracing_subscriber::registry().with(lines.clone()).init();
    by_hand(&lines).await;
    over_sockets(&lines).await;
}

/// A client of a registry, one instance, and one that is gone and still listed.
async fn over_sockets(lines: &Lines) {
    let registry = Registry::builder().push_delay(None).start().await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let there = Instance::parse(&listener.local_addr().unwrap().to_string()).unwrap();
    let app = Router::new().route("/", get(async || "here"));
    #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
    tokio::spawn(axum::serve(listener, app).into_future());
    registry.register_as("p", "orders", std::slice::from_ref(&there));
    let nacos = within(Client::connect(registry.addr())).await.unwrap();
    let client = http::Client::new(&nacos);
    let call = async || {
        let response = within(client.get("nacos://orders/")).await.unwrap();
        within(response.into_body().collect()).await.unwrap();
    };
    assert_eq!(lines.said(), ["a server of the registry is dialled"]);

    call().await;
    assert_eq!(
        lines.said(),
        ["an instance was dialled: there is a connection"]
    );
    for _ in 0..100 {
        call().await;
    }
    assert_eq!(lines.said(), [""; 0], "of calls that went well");

    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = closed.local_addr().unwrap().to_string();
    drop(closed);
    registry.register_as("p", "orders", &[there, Instance::parse(&gone).unwrap()]);
    let orders = client.service("orders").unwrap();
    within(orders.subscription().wait_for(2, HANG))
        .await
        .unwrap();
    while orders.counters().moved == 0 {
        call().await;
    }
    let story = lines.take();
    let moved: Vec<_> = story.iter().map(|line| &*line["message"]).collect();
    assert_eq!(
        moved,
        [
            "an instance was dialled in vain",
            "a request that the instance did not process moves to another"
        ]
    );
    for line in &story {
        assert_eq!(line["instance"], gone, "{line:?}");
        assert!(line["cause"].contains("refused"), "{line:?}");
    }
    assert_eq!(story[1]["service"], "orders");
}

/// A service of one's own: probes are the next call's, and failures what it says.
async fn by_hand(lines: &Lines) {
    let orders = Subscription::fixed([Instance::parse("10.0.0.1:80").unwrap()]);
    let balance = Balance::builder(&orders)
        .classify(|_: &&str| Verdict::unreachable("it is away"))
        .redial_after(Duration::ZERO)
        .build(|_: &Instance| {
            service_fn(async |well: bool| if well { Ok(()) } else { Err("away") })
        });
    let call = async |well| within(balance.clone().oneshot(well)).await;
    lines.take();
    call(true).await.unwrap();
    assert_eq!(lines.said(), [""; 0]);
    call(false).await.unwrap_err();
    assert_eq!(lines.said(), ["a request failed"]); // that it is ejected is said at info
    call(false).await.unwrap_err();
    assert_eq!(
        lines.said(),
        [
            "an instance is to be probed by the next call",
            "a probe failed",
            "a request failed"
        ]
    );
    call(true).await.unwrap();
    assert_eq!(
        lines.said(),
        ["an instance is to be probed by the next call"]
    );
    call(true).await.unwrap();
    assert_eq!(lines.said(), [""; 0]);

    let nobody = Subscription::fixed([]);
    let mut balance = Balance::builder(&nobody)
        .build(|_: &Instance| service_fn(async |_: ()| Ok::<_, Infallible>(())));
    let refused = balance.ready().await.unwrap().call(());
    assert!(within(refused).await.unwrap_err().is_no_instances());
    assert_eq!(
        lines.said(),
        ["a request was refused before an instance had it"]
    );
}

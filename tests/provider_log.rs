//! What the log says of providers that come and leave. A file of its own: the log is the whole process's.

#![expect(
    clippy::disallowed_methods,
    reason = "a test owns the tasks that it spawns"
)]

use std::{
    fmt::Debug,
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{net::TcpListener, time::timeout};
use tower_nacos::{
    Client, logs,
    provider::{Provider, Stage},
    testing::Registry,
};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context, prelude::*};

const HANG: Duration = Duration::from_secs(20);

/// Level, service and words of each line about providers.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<(Level, Fields)>>>);

#[derive(Clone, Debug, Default)]
struct Fields {
    message: String,
    service: String,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == logs::PROVIDER {
            let mut fields = Fields::default();
            event.record(&mut fields);
            let line = (*event.metadata().level(), fields);
            self.0.lock().unwrap().push(line);
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            "service" => self.service = format!("{value:?}"),
            _ => {}
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "service" {
            value.clone_into(&mut self.service);
        }
    }
}

impl Lines {
    fn find(&self, level: Level, service: &str, beginning: &str) -> Option<String> {
        let lines = self.0.lock().unwrap();
        let found = lines.iter().find(|(at, line)| {
            *at == level && line.service.contains(service) && line.message.starts_with(beginning)
        });
        found.map(|(_, line)| line.message.clone())
    }

    async fn wait_for(&self, level: Level, service: &str, beginning: &str) -> String {
        let found = timeout(HANG, async {
            loop {
                if let Some(message) = self.find(level, service, beginning) {
                    return message;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        found
            .await
            .unwrap_or_else(|_| panic!("{level} {service} {beginning}: {self:?}"))
    }
}

impl Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.lock().unwrap().fmt(f)
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(HANG, future).await.expect("nothing for 20 s")
}

fn provider(nacos: &Client, service: &str, listener: &TcpListener) -> Provider {
    Provider::builder(nacos, service)
        .instance(listener.local_addr().unwrap().into())
        .push_delay(Duration::ZERO)
        .build()
}

#[tokio::test]
async fn one_line_says_how_it_left_and_an_end_in_between_is_loud() {
    let lines = Lines::default();
    tracing_subscriber::registry().with(lines.clone()).init();
    let registry = Registry::start().await.unwrap();
    let nacos = Client::connect(registry.addr()).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();

    let ordinary = provider(&nacos, "ordinary", &listener);
    within(ordinary.online()).await.unwrap();
    lines
        .wait_for(Level::INFO, "ordinary", "provider is online")
        .await;
    let report = within(ordinary.offline()).await;
    let wanted = format!("provider is offline: {report}");
    let said = lines
        .wait_for(Level::INFO, "ordinary", "provider is offline")
        .await;
    assert_eq!(said, wanted);
    assert!(said.starts_with("provider is offline: acknowledged after "));
    drop(ordinary);

    // Its runtime ends while it is online: nothing is left that could do it in order.
    let online = provider(&nacos, "torn", &listener);
    let torn = online.clone();
    let ended = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(torn.online()).unwrap();
    });
    within(ended).await.unwrap();
    let beginning = "the runtime of a provider ended before it was offline";
    lines.wait_for(Level::ERROR, "torn", beginning).await;

    // While it lingers: nobody lists it, but callers may not have heard.
    let hour = Duration::from_secs(3_600);
    let lingers = Provider::builder(&nacos, "lingers")
        .instance(listener.local_addr().unwrap().into())
        .push_delay(hour)
        .max_linger(hour)
        .build();
    let ended = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            lingers.online().await.unwrap();
            let leaving = lingers.clone();
            tokio::spawn(async move { leaving.offline().await });
            lingers.reached(Stage::Lingering).await;
        });
    });
    within(ended).await.unwrap();
    let beginning = "the runtime of a provider ended before callers had heard";
    lines.wait_for(Level::WARN, "lingers", beginning).await;
    assert!(lines.find(Level::ERROR, "lingers", "").is_none());
    assert!(lines.find(Level::ERROR, "ordinary", "").is_none());

    #[cfg(target_os = "linux")]
    {
        let missed = provider(&nacos, "missed", &listener);
        within(missed.online()).await.unwrap();
        drop(listener);
        let beginning = "nobody listens any more where callers were told to call";
        lines.wait_for(Level::WARN, "missed", beginning).await;
        within(missed.reached(Stage::Over)).await;
    }
}

//! HTTP by the name of a service: two axum providers, a client that knows neither address.
//!
//! Starts a registry of its own, or uses `NACOS_SERVER=host:8848`. One provider goes offline half
//! way; no call fails for it. Checks what it says, and ends with a line that begins `http: ok`.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Json, Router,
    extract::Path,
    routing::{get, post},
};
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use tower_nacos::{Client, http, testing::Registry};

type Error = Box<dyn std::error::Error + Send + Sync>;

const SERVICE: &str = "example-http-items";
const CALLS: usize = 100;

#[derive(Serialize, Deserialize)]
struct Item {
    id: u32,
    from: String,
}

/// An axum application that registers itself.
struct Provider {
    nacos: Client,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Provider {
    async fn start(server: &str, name: &'static str) -> Result<Self, Error> {
        let item = async move |Path(id): Path<u32>| {
            let from = name.to_owned();
            Json(Item { id, from })
        };
        let app = Router::new()
            .route("/v1/items/{id}", get(item))
            .route("/v1/items", post(async |Json(item): Json<Item>| Json(item)));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let serving = axum::serve(listener, app).with_graceful_shutdown(async {
            let _ = stopped.await;
        });
        #[expect(clippy::disallowed_methods, reason = "joined in `go_offline`")]
        let serving = tokio::spawn(serving.into_future());
        // One client for each: a Nacos server keeps one instance of a service per connection.
        let nacos = Client::connect(server).await?;
        nacos.register(SERVICE, address.into()).await?;
        Ok(Self {
            nacos,
            stop,
            serving,
        })
    }

    /// Leaves the registry first, goes on serving until every caller must have heard of it, and
    /// only then stops.
    async fn go_offline(self) -> Result<(), Error> {
        self.nacos.deregister(SERVICE).await?;
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        let _ = self.stop.send(());
        self.serving.await??;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let (_registry, server) = match std::env::var("NACOS_SERVER") {
        Ok(server) => (None, server),
        Err(_) => {
            let registry = Registry::start().await?;
            let server = registry.addr();
            (Some(registry), server)
        }
    };
    let red = Provider::start(&server, "red").await?;
    let blue = Provider::start(&server, "blue").await?;

    let nacos = Client::connect(&server).await?;
    let http = http::Client::new(&nacos);
    // Only to see both at once; calls would wait for the first by themselves.
    let items = http.service(SERVICE)?;
    let both = items.subscription().wait_for(2, Duration::from_secs(20));
    both.await?;

    let mut shares = BTreeMap::new();
    for id in 0..CALLS as u32 {
        let item = fetch(&http, id).await?;
        *shares.entry(item.from).or_insert(0) += 1;
    }
    println!("{CALLS} calls by name: {shares:?}");
    assert_eq!(shares.len(), 2, "both are called");

    let sent = Item {
        id: 7,
        from: "here".into(),
    };
    let response = http
        .post(
            format!("nacos://{SERVICE}/v1/items"),
            serde_json::to_string(&sent)?,
        )
        .header("content-type", "application/json")
        .timeout(Duration::from_secs(5))
        .await?;
    assert_eq!(response.status(), 200);
    let body = response.into_body().collect().await?.to_bytes();
    assert_eq!(serde_json::from_slice::<Item>(&body)?.id, 7);
    println!("POST came back as it was sent");

    // Calls go on while one provider leaves.
    let mut leaving = std::pin::pin!(red.go_offline());
    let (mut meanwhile, mut last) = (0, String::new());
    loop {
        tokio::select! {
            left = &mut leaving => { left?; break }
            item = fetch(&http, 1) => { last = item?.from; meanwhile += 1 }
        }
    }
    println!("{meanwhile} calls while one provider went offline, the last to {last}");
    assert_eq!(last, "blue");

    let error = http.get("nacos://example-http-itms/").await.unwrap_err();
    assert!(error.is_no_instances());
    println!("a misspelt name: {error}");

    blue.go_offline().await?;
    println!(
        "http: ok requests={} failed=0 providers=2",
        CALLS + 1 + meanwhile
    );
    Ok(())
}

async fn fetch(http: &http::Client, id: u32) -> Result<Item, Error> {
    let response = http.get(format!("nacos://{SERVICE}/v1/items/{id}")).await?;
    assert_eq!(response.status(), 200);
    let body = response.into_body().collect().await?.to_bytes();
    let item: Item = serde_json::from_slice(&body)?;
    assert_eq!(item.id, id);
    Ok(item)
}

//! `rolling HOST:PORT SERVICE`: the official Rust SDK chooses an instance for each call of a plain client.
//!
//! Subscribes, as the SDK's users do, takes the SDK's choice for each POST, over connections that are kept,
//! and repeats nothing. Ends when its standard input does, with `calls=N failed=M`.

use std::{io::Read, process::ExitCode, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use nacos_sdk::api::{
    constants::DEFAULT_GROUP,
    naming::{NamingChangeEvent, NamingEventListener, NamingServiceBuilder},
    props::ClientProps,
};
use tokio::{
    task::spawn_blocking,
    time::{sleep, timeout},
};

type Error = Box<dyn std::error::Error + Send + Sync>;
type Pool = Client<HttpConnector, Full<Bytes>>;

/// The SDK keeps the list by itself.
struct Listener;

impl NamingEventListener for Listener {
    fn event(&self, _: Arc<NamingChangeEvent>) {}
}

async fn post(pool: &Pool, address: &str) -> Result<(), Error> {
    let request = http::Request::post(format!("http://{address}/orders"))
        .header("x-way", "rust")
        .body(Full::new(Bytes::from_static(b"order")))?;
    let response = pool.request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    match (status.as_u16(), &*body) {
        (200, b"order") => Ok(()),
        _ => Err(format!("{status} {}", String::from_utf8_lossy(&body)).into()),
    }
}

async fn run(server: &str, service: &str) -> Result<(u64, u64), Error> {
    let ended = spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    let folder = std::env::temp_dir().join(format!("rolling-rust-{}", std::process::id()));
    let props = ClientProps::new()
        .server_addr(server)
        .namespace("public")
        .app_name("rolling")
        .cache_dir(folder.clone());
    let naming = NamingServiceBuilder::new(props).build().await?;
    let group = || Some(DEFAULT_GROUP.to_owned());
    naming
        .subscribe(service.to_owned(), group(), Vec::new(), Arc::new(Listener))
        .await?;
    // Not even what hyper-util repeats by default.
    let mut builder = Client::builder(TokioExecutor::new());
    let pool: Pool = builder.retry_canceled_requests(false).build_http();
    let (mut calls, mut failed) = (0, 0);
    while !ended.is_finished() {
        let chosen = naming
            .select_one_healthy_instance(service.to_owned(), group(), Vec::new(), true)
            .await?;
        let address = format!("{}:{}", chosen.ip, chosen.port);
        calls += 1;
        let called = timeout(Duration::from_secs(60), post(&pool, &address)).await;
        if let Err(error) = called.map_err(Error::from).and_then(|called| called) {
            failed += 1;
            eprintln!("rust: {address}: {error:?}");
        }
        sleep(Duration::from_millis(10)).await;
    }
    let _ = std::fs::remove_dir_all(folder);
    Ok((calls, failed))
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (Some(server), Some(service)) = (args.next(), args.next()) else {
        eprintln!("rolling HOST:PORT SERVICE");
        return ExitCode::FAILURE;
    };
    match run(&server, &service).await {
        Ok((calls, failed)) => {
            println!("calls={calls} failed={failed}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("rust: {error:?}");
            ExitCode::FAILURE
        }
    }
}

//! An axum service that calls two others by their names: `stock` over HTTP, `greeter` over gRPC.
//!
//! `cargo run --example axum_service`
//!
//! `checkout` is what one would write: the clients are in axum's state, a call's deadline and
//! trace are carried on to whom it calls, and what goes wrong there becomes a status that says
//! whose fault it was. The rest of the program is its world, on the embedded registry: two instances of
//! each service that is called, and a caller that checks all that. Each of them registers and leaves
//! through `Provider`.

#![expect(
    clippy::disallowed_methods,
    reason = "a program spawns tasks and reads the clock"
)]

mod checkout;
mod context;
mod failure;
#[allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::use_self
)]
#[path = "../greeter/greeter.rs"]
mod greeter;
mod providers;

use std::{process::ExitCode, time::Duration};

use axum::Router;
use http::StatusCode;
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::time::timeout;
use tower_nacos::{Client, Subscription, grpc, http as by_name, testing::Registry};

use crate::{
    checkout::Checkout,
    context::{TIMEOUT, TRACEPARENT},
    greeter::greeter_client::GreeterClient,
    providers::{Seen, Served},
};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// No step takes longer than this unless something hangs.
const HANG: Duration = Duration::from_secs(20);
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(last_line) => {
            println!("{last_line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("axum: FAILED: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<String, Error> {
    let registry = Registry::start().await?;
    let server = registry.addr();
    let seen = Seen::default();
    let two = async |service, router: Router| {
        let one = Served::start(&server, service, router.clone());
        tokio::try_join!(one, Served::start(&server, service, router))
    };
    let stock = two("stock", providers::stock(&seen)).await?;
    let greeters = two("greeter", providers::greeter(&seen)).await?;

    // The service. Clients are made once; both live as long as the state does.
    let nacos = Client::connect(&*server).await?;
    let greeter = nacos.subscribe("greeter").await?;
    let checkout = Checkout {
        http: by_name::Client::new(&nacos),
        greeter: GreeterClient::new(grpc::Channel::new(&greeter)),
    };
    let _checkout = Served::start(&server, "checkout", checkout::router(checkout)).await?;

    // Its caller.
    let caller = Caller {
        http: by_name::Client::new(&nacos),
        seen: seen.clone(),
    };
    listed(&nacos.subscribe("checkout").await?, 1).await?;
    let listed_stock = nacos.subscribe("stock").await?;
    listed(&listed_stock, 2).await?;
    listed(&greeter, 2).await?;

    caller.good().await?;
    caller
        .expect("Ann/nothing", StatusCode::NOT_FOUND, "no nothing in stock")
        .await?;
    caller
        .expect("Ann/slow", StatusCode::GATEWAY_TIMEOUT, "stock")
        .await?;
    caller
        .expect("sleepy/book", StatusCode::GATEWAY_TIMEOUT, "greeter")
        .await?;
    caller
        .expect("Ann/broken", StatusCode::BAD_GATEWAY, "stock")
        .await?;

    tokio::try_join!(stock.0.leave(), stock.1.leave())?;
    listed(&listed_stock, 0).await?;
    caller
        .expect("Ann/book", StatusCode::SERVICE_UNAVAILABLE, "stock")
        .await?;
    let _stock = two("stock", providers::stock(&seen)).await?;
    listed(&listed_stock, 2).await?;
    caller.good().await?;

    tokio::try_join!(greeters.0.leave(), greeters.1.leave())?;
    listed(&greeter, 0).await?;
    caller
        .expect("Ann/book", StatusCode::SERVICE_UNAVAILABLE, "greeter")
        .await?;
    let _greeters = two("greeter", providers::greeter(&seen)).await?;
    listed(&greeter, 2).await?;
    caller.good().await?;

    nacos.close(Duration::from_secs(5)).await?;
    Ok("axum: ok answered=3 not_found=1 timeouts=2 bad_gateway=1 unavailable=2".to_owned())
}

struct Caller {
    http: by_name::Client,
    seen: Seen,
}

impl Caller {
    /// A call that is answered: with what both said, and both knew of trace and deadline.
    async fn good(&self) -> Result<(), Error> {
        self.seen.forget();
        let (status, answer) = self.call("Ann/book", Duration::from_secs(10)).await?;
        if status != StatusCode::OK || answer["left"] != 3 || answer["greeting"] != "Hello, Ann" {
            return Err(format!("an order is answered {status} {answer}").into());
        }
        let seen = self.seen.all();
        let mut services: Vec<_> = seen.iter().map(|call| call.service).collect();
        services.sort_unstable();
        if services != ["greeter", "stock"] {
            return Err(format!("called were {services:?}").into());
        }
        for call in seen {
            if !call.traceparent.contains(TRACE) || call.traceparent.contains(SPAN) {
                return Err(format!("{} saw trace {}", call.service, call.traceparent).into());
            }
            if call
                .within
                .is_none_or(|within| within > Duration::from_secs(10))
            {
                return Err(format!("{} was given {:?}", call.service, call.within).into());
            }
        }
        println!("answered: {answer}");
        Ok(())
    }

    /// A call that is answered with this status, and an error that says so much.
    async fn expect(&self, path: &str, wanted: StatusCode, says: &str) -> Result<(), Error> {
        let (status, answer) = self.call(path, Duration::from_millis(500)).await?;
        println!("{path}: {status} {answer}");
        match answer["error"].as_str() {
            Some(error) if status == wanted && error.contains(says) => Ok(()),
            _ => Err(format!("{path} is answered {status} and not {wanted}: {answer}").into()),
        }
    }

    async fn call(&self, path: &str, within: Duration) -> Result<(StatusCode, Value), Error> {
        let request = self.http.get(format!("nacos://checkout/orders/{path}"));
        let request = request
            .header(TIMEOUT, within.as_millis().to_string())
            .header(TRACEPARENT, format!("00-{TRACE}-{SPAN}-01"));
        let response = timeout(HANG, request.send())
            .await
            .map_err(|_| "a call hangs")??;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Ok((status, serde_json::from_slice(&body)?))
    }
}

const SPAN: &str = "b7ad6b7169203331";

/// Waits until so many are listed and whoever left is called no more.
async fn listed(service: &Subscription, instances: usize) -> Result<(), Error> {
    let mut changes = service.changes();
    let reached = async {
        while service.snapshot().callable_len() != instances {
            changes.next().await.ok_or("the subscription ended")?;
        }
        service.applied(service.revision()).await?;
        Ok::<_, Error>(())
    };
    timeout(HANG, reached)
        .await
        .map_err(|_| "a change of instances never came")?
}

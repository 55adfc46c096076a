//! What a registry has, told as it happens: a line for each service and instance that comes or goes.
//!
//! Starts a registry of its own, in which two services come and one goes, and ends with a line that
//! begins `services: ok`; or watches `NACOS_SERVER=host:8848` until Ctrl-C, all of it, or the groups
//! and names of the arguments: `cargo run --example services -- shop 'order-*'`. Servers before 3.0
//! list one group at a time.

use std::{env, time::Duration};

use tokio::time::timeout;
use tower_nacos::{
    Client,
    client::{WatchAll, Watched},
    model::{Instance, ServiceFilter, ServiceName},
    testing::{Profile, Registry},
};

type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut patterns = env::args().skip(1);
    let filter = ServiceFilter::group(patterns.next().unwrap_or_else(|| "*".to_owned()))
        .name(patterns.next().unwrap_or_else(|| "*".to_owned()));
    match env::var("NACOS_SERVER") {
        Ok(server) => watch(&server, filter).await,
        Err(_) => demonstrate(filter).await,
    }
}

async fn watch(server: &str, filter: ServiceFilter) -> Result<(), Error> {
    let nacos = Client::connect(server).await?;
    let mut all = nacos.watch_all(filter).await?;
    loop {
        tokio::select! {
            change = all.next() => match change {
                Some((service, change)) => println!("{}", line(&service, &change)),
                None => return Ok(()),
            },
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

async fn demonstrate(filter: ServiceFilter) -> Result<(), Error> {
    let registry = Registry::builder().profile(Profile::V3_1).start().await?;
    registry.register("orders", &Instance::parse("10.0.0.1:8080")?);
    let nacos = Client::connect(registry.addr()).await?;
    let mut all = nacos.watch_all(filter).await?;
    expect(
        &mut all,
        "DEFAULT_GROUP@@orders: instance added 10.0.0.1:8080",
    )
    .await?;
    registry.register("billing@invoices", &Instance::parse("10.0.0.2:8080")?);
    expect(&mut all, "billing@@invoices: instance added 10.0.0.2:8080").await?;
    registry.deregister("orders", "10.0.0.1:8080");
    expect(&mut all, "DEFAULT_GROUP@@orders: removed").await?;
    nacos.close(Duration::from_secs(3)).await?;
    println!("services: ok");
    Ok(())
}

/// Prints what changes until that line came.
async fn expect(all: &mut WatchAll, wanted: &str) -> Result<(), Error> {
    let reading = async {
        while let Some((service, change)) = all.next().await {
            let line = line(&service, &change);
            println!("{line}");
            if line == wanted {
                return Ok(());
            }
        }
        Err(Error::from("the client was closed"))
    };
    timeout(Duration::from_secs(30), reading).await?
}

fn line(service: &ServiceName, change: &Watched) -> String {
    match change {
        Watched::Added => format!("{service}: added"),
        Watched::Removed => format!("{service}: removed"),
        Watched::Instance(change) => {
            let what = format!("{:?}", change.kind).to_lowercase();
            let what = what.split([' ', '{']).next().unwrap_or_default();
            format!("{service}: instance {what} {}", change.instance.address())
        }
        other => format!("{service}: {other:?}"),
    }
}

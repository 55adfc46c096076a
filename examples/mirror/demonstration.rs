//! Two registries of our own, and a mirror in each direction between them.

use std::{future::Future, time::Duration};

use futures_util::FutureExt;
use tokio::{sync::oneshot, time::timeout};
use tower_nacos::{
    Client, Weight,
    directory::Subscription,
    model::{Instance, ServiceFilter},
    testing::{Profile, Registry},
};
use tracing::info;

use crate::{Error, mirror::Mirror};

const HANG: Duration = Duration::from_secs(30);

pub(crate) async fn run() -> Result<(), Error> {
    let builder = || Registry::builder().profile(Profile::V3_1);
    let (old, new) = (builder().start().await?, builder().start().await?);
    let (stop_forth, stopped) = oneshot::channel();
    let forth = tokio::spawn(mirror(old.addr(), new.addr(), "old", stopped));
    let (stop_back, stopped) = oneshot::channel();
    let back = tokio::spawn(mirror(new.addr(), old.addr(), "new", stopped));

    step("an instance that comes in one registry comes in the other");
    let provider = Client::connect(old.addr()).await?;
    let instance = |port: u16| Instance::parse(&format!("10.0.0.1:{port}"));
    provider
        .register(
            "shop@@orders",
            instance(8080)?.with_weight(Weight::new(2.0)),
        )
        .await?;
    let caller = Client::connect(new.addr()).await?;
    let orders = caller.subscribe("shop@@orders").await?;
    let is = |wanted: &'static [(&'static str, f64)]| {
        move |listed: &[Seen]| {
            let listed = listed.iter().map(|seen| (&*seen.address, seen.weight));
            listed.eq(wanted.iter().copied())
        }
    };
    until(&orders, is(&[("10.0.0.1:8080", 2.0)])).await?;

    step("what changes is followed");
    old.set_weight("shop@@orders", "10.0.0.1:8080", 5.0);
    until(&orders, is(&[("10.0.0.1:8080", 5.0)])).await?;

    step("and the other way round, and nothing goes in circles");
    new.register("shop@@orders", &instance(9090)?);
    let other = Client::connect(old.addr()).await?;
    let seen_there = other.subscribe("shop@@orders").await?;
    let both = is(&[("10.0.0.1:8080", 5.0), ("10.0.0.1:9090", 1.0)]);
    until(&seen_there, both).await?;
    until(&orders, both).await?;
    new.deregister("shop@@orders", "10.0.0.1:9090");
    until(&seen_there, is(&[("10.0.0.1:8080", 5.0)])).await?;
    until(&orders, is(&[("10.0.0.1:8080", 5.0)])).await?;

    step("a source that restarts takes nothing away, a target that restarts is told again");
    let mut changes = orders.changes();
    soon(changes.next()).await?.ok_or("the client was closed")?;
    old.restart().await?;
    provider.register("shop@@users", instance(7070)?).await?;
    let users = caller.subscribe("shop@@users").await?;
    until(&users, is(&[("10.0.0.1:7070", 1.0)])).await?;
    if let Some(change) = changes.next().now_or_never() {
        return Err(format!("the restart was to be unseen: {change:?}").into());
    }
    new.restart().await?;
    let listed = |view: &tower_nacos::testing::View<'_>| {
        view.addresses("shop@@orders") == ["10.0.0.1:8080"]
            && view.addresses("shop@@users") == ["10.0.0.1:7070"]
    };
    soon(new.wait_until(listed)).await?;

    step("a mirror that ends takes back what it mirrored");
    drop(stop_forth);
    soon(forth).await???;
    soon(new.wait_until(|view| view.addresses("shop@@orders").is_empty())).await?;
    drop(stop_back);
    soon(back).await???;
    println!("mirror: ok, two registries in step, both restarted, nothing in circles");
    Ok(())
}

/// An instance as a caller of the target sees it.
struct Seen {
    address: String,
    weight: f64,
}

fn step(what: &str) {
    info!("--- {what}");
}

async fn mirror(
    from: String,
    to: String,
    origin: &'static str,
    stop: oneshot::Receiver<()>,
) -> Result<(), Error> {
    let (from, to) = (Client::connect(from).await?, Client::connect(to).await?);
    let mirror = Mirror::new(from, to.clone(), origin, crate::RETRY);
    let filters = [ServiceFilter::namespace()];
    let stop = async { drop(stop.await) };
    mirror.run(&filters, stop).await?;
    Ok(to.close(HANG).await?)
}

/// Waits until a subscription shows what is wanted.
async fn until(orders: &Subscription, wanted: impl Fn(&[Seen]) -> bool) -> Result<(), Error> {
    let mut changes = orders.changes();
    let seen = async {
        loop {
            let snapshot = orders.snapshot();
            let instances = snapshot.callable().map(|entry| entry.instance());
            let seen = instances.map(|instance| Seen {
                address: instance.address().to_string(),
                weight: instance.weight().get(),
            });
            if wanted(&seen.collect::<Vec<_>>()) {
                return Ok(());
            }
            changes.next().await.ok_or("the client was closed")?;
        }
    };
    soon(seen).await?
}

async fn soon<T>(future: impl Future<Output = T>) -> Result<T, Error> {
    Ok(timeout(HANG, future).await?)
}

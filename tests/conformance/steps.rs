//! Steps that the tests are made of.

use std::future::Future;

use tokio::time::timeout;
use tower_nacos::{
    client::Client,
    directory::{Change, ChangeKind, Changes, Subscription},
    model::{Address, Instance},
};

use crate::server::{HANG, Server};

/// Awaits something that a sound crate brings in time.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(HANG, future)
        .await
        .unwrap_or_else(|_| panic!("hangs: {what}"))
}

pub(crate) fn instance(port: u16) -> Instance {
    Instance::parse(&format!("127.0.0.1:{port}")).unwrap()
}

pub(crate) fn address(port: u16) -> Address {
    instance(port).address().clone()
}

/// A client that publishes one instance of `service`, as a provider's process does.
pub(crate) async fn provider(server: &Server, service: &str, instance: Instance) -> Client {
    let client = server.client().await;
    soon("register", client.register(service, instance))
        .await
        .unwrap();
    client
}

/// The next change that `is` true of, the others passed over.
pub(crate) async fn change(
    changes: &mut Changes,
    what: &str,
    mut is: impl FnMut(&Change) -> bool,
) -> Change {
    soon(what, async {
        loop {
            let change = changes
                .next()
                .await
                .unwrap_or_else(|| panic!("ended before: {what}"));
            if is(&change) {
                return change;
            }
        }
    })
    .await
}

pub(crate) async fn added(changes: &mut Changes, port: u16) -> Change {
    let wanted = address(port);
    change(changes, &format!("{wanted} added"), |c| {
        c.kind == ChangeKind::Added && *c.instance.address() == wanted
    })
    .await
}

pub(crate) async fn removed(changes: &mut Changes, port: u16) -> Change {
    let wanted = address(port);
    change(changes, &format!("{wanted} removed"), |c| {
        c.cause().is_some() && *c.instance.address() == wanted
    })
    .await
}

/// The ports of the instances that may be called now.
pub(crate) fn callable(subscription: &Subscription) -> Vec<u16> {
    subscription
        .snapshot()
        .callable()
        .map(|e| e.instance().address().port())
        .collect()
}

/// Waits until exactly these ports may be called.
pub(crate) async fn settles(subscription: &Subscription, ports: &[u16]) {
    let mut changes = subscription.changes();
    soon(&format!("the set {ports:?}"), async {
        while callable(subscription) != ports {
            changes.next().await.expect("the subscription lives");
        }
    })
    .await;
}

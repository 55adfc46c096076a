//! `ls` and `get`: what there is now.

use std::time::Duration;

use clap::Args;
use serde_json::json;
use tower_nacos::{Client, Subscription, directory::Options, model::ServiceFilter};

use crate::{
    failure::Failure,
    output::{INSTANCE_HEAD, Output, instance_json, instance_row, plain},
};

#[derive(Args)]
pub(crate) struct Ls {
    /// `order-*` in the default group, `group@pattern`, or `*@*` for a whole namespace
    #[arg(default_value = "*")]
    pattern: String,
    /// How many instances each has, too: one read a service
    #[arg(short, long)]
    long: bool,
}

#[derive(Args)]
pub(crate) struct Get {
    /// The service, `[group@]name`
    service: String,
}

impl Ls {
    pub(crate) async fn run(self, nacos: &Client, output: &mut Output) -> Result<(), Failure> {
        let (group, name) = match self.pattern.rsplit_once('@') {
            Some((group, name)) => (group.trim_end_matches('@'), name),
            None => (nacos.group(), &*self.pattern),
        };
        let filter = ServiceFilter::group(group).name(name);
        let services = nacos.services(filter).await.map_err(Failure::registry)?;
        let mut names: Vec<_> = services.snapshot().iter().cloned().collect();
        names.sort();
        let mut rows = Vec::new();
        for name in &names {
            let mut row = vec![plain(name.group()), plain(name.name())];
            let mut value = json!({ "group": &**name.group(), "name": &**name.name() });
            if self.long {
                let listing = nacos.instances(name).await.map_err(Failure::registry)?;
                let healthy = listing.instances().iter();
                let healthy = healthy.filter(|instance| instance.is_healthy()).count();
                row.push(listing.instances().len().to_string());
                row.push(healthy.to_string());
                value["instances"] = listing.instances().len().into();
                value["healthy"] = healthy.into();
            }
            if output.json {
                output.value(&value)?;
            }
            rows.push(row);
        }
        if !output.json {
            let head = ["GROUP", "SERVICE", "INSTANCES", "HEALTHY"];
            output.table(&head[..if self.long { 4 } else { 2 }], &rows)?;
        }
        if names.is_empty() {
            return Err(Failure::not_so(format_args!(
                "no service matches in namespace {}",
                nacos.namespace()
            )));
        }
        Ok(())
    }
}

impl Get {
    pub(crate) async fn run(self, nacos: &Client, output: &mut Output) -> Result<(), Failure> {
        let service = subscribe(nacos, &self.service).await?;
        let snapshot = service.snapshot();
        if output.json {
            let instances: Vec<_> = snapshot.entries().iter().map(instance_json).collect();
            output.value(&json!({
                "service": service.key().to_string(),
                "callable": snapshot.callable_len(),
                "instances": instances,
            }))?;
        } else {
            let rows: Vec<_> = snapshot.entries().iter().map(instance_row).collect();
            output.table(&INSTANCE_HEAD, &rows)?;
        }
        if snapshot.callable_len() == 0 {
            return Err(nobody(&service).await);
        }
        Ok(())
    }
}

/// A subscription that has its first list, and an empty one is waited for as long as a registry that has
/// just started takes to know better.
pub(crate) async fn subscribe(nacos: &Client, service: &str) -> Result<Subscription, Failure> {
    let subscribed = nacos.subscribe(service).await;
    let service = subscribed.map_err(Failure::registry)?;
    let patience = Options::default().unknown_while_empty;
    let some = service.wait_until(|snapshot| !snapshot.entries().is_empty() || snapshot.is_known());
    let _ = tokio::time::timeout(patience, some).await;
    Ok(service)
}

/// Why nobody may be called; a hint is found out by the client beside the list.
pub(crate) async fn nobody(service: &Subscription) -> Failure {
    let found = async {
        while service.hint().is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(2), found).await;
    let hint = service.hint().map(|hint| format!(": {hint}"));
    Failure::not_so(format_args!(
        "no instance of {} may be called{}",
        service.key(),
        hint.unwrap_or_default()
    ))
}

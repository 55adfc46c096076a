//! `explain`: why an instance is picked, or is not.

use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::time::timeout;
use tower_nacos::{Address, Balance, Client, model::ServiceName};

use crate::{
    failure::Failure,
    list::{nobody, subscribe},
    output::{Output, plain},
};

/// For what is missed by nobody.
const PATIENCE: Duration = Duration::from_secs(2);
const BRIEF: Duration = Duration::from_millis(5);

#[derive(Args)]
pub(crate) struct Explain {
    /// The service, `[group@]name`
    service: String,
    /// One instance, `host:port`; all that are listed without it
    address: Option<Address>,
}

impl Explain {
    pub(crate) async fn run(self, nacos: &Client, output: &mut Output) -> Result<(), Failure> {
        let service = subscribe(nacos, &self.service).await?;
        // A protection threshold and the like, where the server's main port tells them.
        let name = ServiceName::from(service.key().service());
        let _ = timeout(PATIENCE, nacos.service_details(name)).await;
        let picker = Balance::builder(&service).picker();
        let listed = service.snapshot();
        let addresses: Vec<_> = match &self.address {
            Some(address) => vec![address],
            None => listed
                .entries()
                .iter()
                .map(|entry| entry.instance().address())
                .collect(),
        };
        // The balancer's task may be making its first table just now, and without one nobody has a share.
        let made = async {
            let shares = || {
                let all = listed.entries().iter();
                all.map(|entry| picker.explain(entry.instance().address()))
                    .any(|why| why.share > 0.0)
            };
            while listed.callable_len() > 0 && !shares() {
                tokio::time::sleep(BRIEF).await;
            }
        };
        let _ = timeout(PATIENCE, made).await;
        let mut picked = false;
        for address in &addresses {
            let why = picker.explain(address);
            picked |= why.is_pickable();
            if output.json {
                output.value(&json!({
                    "address": address.to_string(),
                    "picked": why.is_pickable(),
                    "share": why.share,
                    "why": why.to_string(),
                }))?;
            } else {
                output.line(plain(&format!("{address}: {why}")))?;
            }
        }
        match &self.address {
            None if !picked => Err(nobody(&service).await),
            Some(_) if !picked => Err(Failure::NotSo(String::new())),
            _ => Ok(()),
        }
    }
}

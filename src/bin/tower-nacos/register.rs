//! `register`: a provider for what cannot register itself.

use std::time::Duration;

use clap::Args;
use serde_json::json;
use tower_nacos::{
    Address, Client, Instance,
    provider::{self, Provider, Stage},
};

use crate::{failure::Failure, output::Output};

#[derive(Args)]
pub(crate) struct Register {
    /// The service, `[group@]name`
    service: String,
    /// The port that is listened on, or `host:port` as callers are to see it
    at: String,
    /// Its share of the calls beside others
    #[arg(short, long, default_value_t = 1.0)]
    weight: f64,
    /// Its cluster
    #[arg(short, long)]
    cluster: Option<String>,
    /// A pair of its metadata; may be given several times
    #[arg(short, long = "meta", value_name = "KEY=VALUE", value_parser = pair)]
    metadata: Vec<(String, String)>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("it is no KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

impl Register {
    pub(crate) async fn run(self, nacos: &Client, output: &mut Output) -> Result<(), Failure> {
        let instance = match self.at.parse::<u16>() {
            Ok(port) => Instance::on_port(port),
            Err(_) => {
                let address: Address = self.at.parse().map_err(|error| {
                    Failure::usage(format_args!(
                        "{}: neither a port nor an address: {error}",
                        self.at
                    ))
                })?;
                Instance::new(address)
            }
        };
        let mut instance = instance.with_weight(self.weight).with_metadata(
            self.metadata
                .iter()
                .map(|(key, value)| (key.as_str(), value.as_str()))
                .collect(),
        );
        if let Some(cluster) = self.cluster {
            instance = instance.with_cluster(cluster);
        }
        let provider = Provider::builder(nacos, &*self.service)
            .instance(instance)
            .build();
        let mut end = std::pin::pin!(provider::signal());
        let online = tokio::select! {
            online = provider.online() => online,
            () = &mut end => return Ok(()),
        };
        if let Err(error) = online {
            if !error.is_tried_again() {
                return Err(Failure::registry(error));
            }
            eprintln!("tower-nacos: {error}; it is tried again");
            tokio::select! {
                () = provider.reached(Stage::Online) => {}
                () = &mut end => return Ok(()),
            }
        }
        if output.json {
            output.value(&json!({ "registered": self.service, "at": self.at }))?;
        } else {
            output.line(format_args!(
                "{} is registered at {}, until Ctrl-C",
                self.service, self.at
            ))?;
        }
        // What is registered may stop listening, which ends it too.
        tokio::select! {
            () = &mut end => {}
            () = provider.reached(Stage::Over) => {}
        }
        let report = provider.offline().await;
        let _ = nacos.close(Duration::from_secs(3)).await;
        output.line(&report)?;
        match &report.offline {
            Some(offline) if offline.is_confirmed() => Ok(()),
            _ => Err(Failure::registry(
                "the registry has not confirmed that it is gone",
            )),
        }
    }
}

use clap::Args;
use serde_json::json;
use tower_nacos::{provider, testing::Registry};

use crate::{failure::Failure, output::Output};

#[derive(Args)]
pub(crate) struct Serve {
    /// The main port; gRPC is 1000 above. 0 is any that is free
    #[arg(short, long, default_value_t = 8848)]
    port: u16,
}

impl Serve {
    pub(crate) async fn run(self, output: &mut Output) -> Result<(), Failure> {
        let registry = match self.port {
            0 => Registry::builder(),
            port => Registry::builder().port(port),
        };
        let started = registry.start().await;
        let registry = started
            .map_err(|error| Failure::not_so(format_args!("port {}: {error}", self.port)))?;
        if output.json {
            output.value(&json!({ "registry": registry.addr() }))?;
        } else {
            output.line(format_args!(
                "registry at {}, until Ctrl-C",
                registry.addr()
            ))?;
        }
        provider::signal().await;
        Ok(())
    }
}

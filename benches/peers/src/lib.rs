//! tower-nacos beside the official Rust SDK, live, on one rnacos, in one process.
//!
//! One binary for each question: `recovery`, `changes`, `unary`, `picks`. See `benches/README.md`.

pub mod changes;
pub mod picks;
pub mod recovery;
pub mod unary;

mod load;
mod observer;
mod peer;
mod stats;

#[path = "../../../tests/real_faults/nodes.rs"]
#[allow(
    dead_code,
    reason = "shared with tests/real_faults.rs; each uses its part"
)]
mod nodes;
#[path = "../../../tests/conformance/server.rs"]
#[allow(
    dead_code,
    reason = "shared with the tests; only rnacos's part is used"
)]
mod server;

use std::{collections::BTreeSet, error, path::PathBuf, process::ExitCode, time::Duration};

use tower_nacos::{Client, Instance, Subscription};

/// What ends a run.
pub type Error = Box<dyn error::Error + Send + Sync>;

/// Longer than anything takes that still works; the official SDK backs off up to 64 s.
const HANG: Duration = Duration::from_secs(120);

/// The value after `--name` on the command line.
fn option(name: &str, default: usize) -> Result<usize, Error> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    match (arguments.next(), arguments.next()) {
        (None, _) => Ok(default),
        (Some(_), value) => Ok(value.ok_or(format!("{name} wants a number"))?.parse()?),
    }
}

fn program() -> Result<PathBuf, Error> {
    server::rnacos_program().ok_or_else(|| "no rnacos in PATH, and RNACOS names none".into())
}

fn instance(port: u16) -> Instance {
    Instance::parse(&format!("127.0.0.1:{port}")).expect("an address")
}

/// The ports of the instances that may be called.
fn callable(subscription: &Subscription) -> BTreeSet<u16> {
    let snapshot = subscription.snapshot();
    let ports = snapshot.callable().map(|e| e.instance().address().port());
    ports.collect()
}

/// A client that publishes one instance of `service`, as a provider's process does.
async fn provider(servers: &str, service: &str, port: u16) -> Result<Client, Error> {
    let client = Client::connect(servers).await?;
    client.register(service, instance(port)).await?;
    Ok(client)
}

/// Says how a run ended.
pub fn finish(name: &str, result: Result<(), Error>) -> ExitCode {
    let _ = std::fs::remove_dir_all(peer::cache());
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

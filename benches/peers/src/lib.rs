//! tower-nacos beside the official Rust SDK, live, on one server, in one process.
//!
//! One binary for each question: `recovery`, `changes`, `unary`, `picks`. See `benches/README.md`.

pub mod changes;
pub mod picks;
pub mod recovery;
pub mod unary;

mod java;
mod load;
mod observer;
mod peer;
mod stats;

#[path = "../../../tests/real_faults/cluster.rs"]
#[allow(
    dead_code,
    reason = "shared with tests/real_faults.rs; each uses its part"
)]
mod cluster;
#[path = "../../../tests/conformance/server.rs"]
#[allow(
    dead_code,
    reason = "shared with the tests; only rnacos's part is used"
)]
mod server;

use std::{collections::BTreeSet, error, process::ExitCode, time::Duration};

use tower_nacos::{Client, Instance, Subscription};

use server::node::{Program, USER};

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

/// What runs as the server: rnacos, or with `--nacos 1` genuine Nacos 3.1.0 (`tools/nacos`), with
/// `--auth 1` too one that wants a login.
fn program() -> Result<Program, Error> {
    if option("--nacos", 0)? == 0 {
        return Program::rnacos().ok_or_else(|| "no rnacos in PATH, and RNACOS names none".into());
    }
    let program = Program::nacos("3.1.0").ok_or("tools/nacos/prepare was not run")?;
    let auth = option("--auth", 0)? != 0;
    Ok(if auth { program.with_auth() } else { program })
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
    let client = connect(servers).await?;
    client.register(service, instance(port)).await?;
    Ok(client)
}

/// A client of ours, with a login if the server wants one.
async fn connect(servers: &str) -> Result<Client, Error> {
    let builder = Client::builder().servers(servers).connect_timeout(HANG);
    let builder = if option("--auth", 0)? == 0 {
        builder
    } else {
        builder.login(USER, USER)
    };
    Ok(builder.connect().await?)
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

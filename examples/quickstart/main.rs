//! Three providers register in Nacos, and sixteen callers use them, half of them through tower's own
//! p2c balancer and half through our `Balance`, while providers leave and return.
//!
//! With nothing installed it starts the embedded registry; with `NACOS_SERVER=host:port` it uses
//! that server. It checks what it claims and exits with 1 when a claim fails:
//!
//! * once an eviction is reported applied, no call enters the evicted instance. Each request is
//!   stamped with a sequence number inside `Service::call`, and the *provider* counts the ones
//!   stamped after its own eviction;
//! * an instance that returns gets calls again;
//! * the connection to an instance that goes offline closes although no request passes.

#![expect(
    clippy::disallowed_methods,
    reason = "a program spawns tasks and reads the clock"
)]

mod caller;
mod provider;

use std::{process::ExitCode, time::Duration};

use tokio::time::timeout;
use tower_nacos::{
    client::Client,
    directory::{Change, ChangeKind, Changes, Subscription},
    testing::Registry,
};

use crate::{
    caller::{BALANCERS, Callers},
    provider::Provider,
};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// How many requests the run makes at least, and how many of them between two events.
const REQUESTS: u64 = 100_000;
const BETWEEN: u64 = REQUESTS / 12;
/// No step takes longer than this unless something hangs: a real registry needs up to two seconds.
const HANG: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(last_line) => {
            println!("{last_line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("quickstart: FAILED: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<String, Error> {
    let (server, _registry) = match std::env::var("NACOS_SERVER") {
        Ok(server) => (server, None),
        Err(_) => {
            let registry = Registry::start().await?;
            (registry.addr(), Some(registry))
        }
    };
    say(&format!("registry at {server}"));
    let service = format!("quickstart-{}", std::process::id());

    // The providers: each an HTTP server with a Nacos client and a runtime of its own, so that one
    // can be killed as a process is.
    let a = Provider::start("a", &server, &service).await?;
    let mut b = Provider::start("b", &server, &service).await?;
    let c = Provider::start("c", &server, &service).await?;

    // The caller.
    let nacos = Client::connect(&*server).await?;
    let orders = nacos.subscribe(&*service).await?;
    orders.wait_for(3, HANG).await?;
    let mut changes = orders.changes();
    let callers = Callers::start(&orders, 16);
    let mut evictions = Vec::new();

    callers.wait_for_calls(BETWEEN).await?;
    say(&format!(
        "three providers: {}",
        callers.shares(&[&a, &b, &c])
    ));

    for round in 1..=3 {
        say(&format!(
            "round {round}: a goes offline in the registry; it would still answer"
        ));
        a.deregister().await?;
        evictions.push(evicted(&orders, &mut changes, &a, &callers).await?);
        callers.wait_for_calls(BETWEEN).await?;
        say(&format!("    without a: {}", callers.shares(&[&a, &b, &c])));
        a.register().await?;
        returned(&mut changes, &a, &callers).await?;
        callers.wait_for_calls(BETWEEN).await?;
        a.must_have_calls()?;
        say(&format!("    a is back: {}", callers.shares(&[&a, &b, &c])));
    }

    say("b is killed: its sockets close, nobody tells the registry");
    b.kill();
    evictions.push(evicted(&orders, &mut changes, &b, &callers).await?);
    let lost = callers.failed();
    callers.wait_for_calls(BETWEEN).await?;
    say(&format!(
        "    {lost} calls were lost to it before the eviction"
    ));
    b = Provider::restart(b, &server, &service).await?;
    returned(&mut changes, &b, &callers).await?;
    callers.wait_for_calls(BETWEEN).await?;
    b.must_have_calls()?;
    say(&format!("b is back: {}", callers.shares(&[&a, &b, &c])));

    callers.wait_for_total(REQUESTS).await?;
    let total = callers.stop().await?;
    say("the callers rest");
    c.must_be_connected()?;
    c.deregister().await?;
    evictions.push(evicted(&orders, &mut changes, &c, &callers).await?);
    timeout(HANG, c.disconnected())
        .await
        .map_err(|_| "c's connections stayed open")?;
    say("c went offline and its last connection closed; no request passed");

    let after = [0, 1].map(|balancer: usize| {
        let providers = [&a, &b, &c];
        let after = providers.iter().map(|p| p.after_eviction()[balancer]);
        after.sum::<u64>()
    });
    for (balancer, name) in BALANCERS.iter().enumerate() {
        let (made, after) = (callers.made()[balancer], after[balancer]);
        say(&format!(
            "{name}: {made} calls reached a provider, after_eviction={after}"
        ));
        if made == 0 {
            return Err(format!("no call went through {name}").into());
        }
    }
    let after: u64 = after.iter().sum();
    let failed_otherwise = callers.failed() - lost;
    let slowest = evictions
        .iter()
        .max()
        .expect("there were evictions")
        .as_micros();
    let why = callers.last_error().unwrap_or_default();
    callers.close().await;
    nacos.close(Duration::from_secs(5)).await?;
    if after != 0 {
        return Err(format!("{after} requests entered an instance after its eviction").into());
    }
    if failed_otherwise != 0 {
        return Err(
            format!("{failed_otherwise} calls failed while no provider died: {why}").into(),
        );
    }
    Ok(format!(
        "quickstart: ok requests={total} after_eviction={after} lost_before_eviction={lost} \
         evicted_in_us={slowest}"
    ))
}

/// Waits until `provider`'s eviction is applied, marks the moment in the sequence of requests, and
/// returns how long it took from the push leaving the socket.
async fn evicted(
    orders: &Subscription,
    changes: &mut Changes,
    provider: &Provider,
    callers: &Callers,
) -> Result<Duration, Error> {
    let change = next(changes, |change| {
        change.cause().is_some() && change.instance.address() == provider.address()
    })
    .await?;
    timeout(HANG, orders.applied(change.revision))
        .await
        .map_err(|_| "never applied")??;
    let applied = tokio::time::Instant::now().into_std();
    provider.mark_evicted(callers.sequence());
    callers.reset_shares();
    let took = applied - change.received_at.ok_or("an eviction without a push")?;
    say(&format!(
        "    {change}; applied {} µs after the push",
        took.as_micros()
    ));
    Ok(took)
}

async fn returned(
    changes: &mut Changes,
    provider: &Provider,
    callers: &Callers,
) -> Result<(), Error> {
    let change = next(changes, |change| {
        change.kind == ChangeKind::Added && change.instance.address() == provider.address()
    })
    .await?;
    callers.reset_shares();
    say(&format!("    {change}"));
    Ok(())
}

async fn next(changes: &mut Changes, is: impl Fn(&Change) -> bool) -> Result<Change, Error> {
    let wanted = async {
        while let Some(change) = changes.next().await {
            if is(&change) {
                return Ok(change);
            }
        }
        Err("the subscription ended".into())
    };
    timeout(HANG, wanted)
        .await
        .map_err(|_| "an expected change never came")?
}

fn say(line: &str) {
    println!("{line}");
}

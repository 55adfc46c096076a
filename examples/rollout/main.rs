//! A rolling restart of every provider while callers call by HTTP/1, HTTP/2 and gRPC.
//!
//! `cargo run --example rollout [-- --mode graceful|kill]`
//!
//! The providers are processes of their own, on the embedded registry, which takes as long to push
//! as real ones do, or on `NACOS_SERVER=host:8848`. It checks what it claims against the
//! providers' journals, and exits with 1 when a claim fails:
//!
//! * graceful (told to go; `Provider` deregisters, marks its responses, lingers and drains): no call
//!   fails, and none has to move to another instance, long answers included, which are read on from an
//!   instance that is evicted;
//! * kill (`kill -9`, in mid-call): no call fails but what that instance, or a connection to it,
//!   had taken;
//! * in both: no request is done twice, none enters an instance after its eviction is reported as
//!   applied, and who returns is called again.
//!
//! In the end it draws a picture: calls per instance over time, with what happened when.

#![expect(
    clippy::disallowed_methods,
    reason = "a program spawns tasks and reads the clock"
)]

mod books;
mod callers;
mod check;
mod child;
#[allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::use_self
)]
#[path = "../greeter/greeter.rs"]
mod greeter;
mod options;
mod picture;
mod provider;
mod restart;
mod view;
mod wires;

use std::{fmt::Write as _, process::ExitCode, sync::Arc, time::Duration};

use tower_nacos::{Client, testing::Registry};

use crate::{
    books::Books,
    callers::Callers,
    check::check,
    child::{AS_PROVIDER, Child, Place},
    options::{Mode, Options},
    restart::{Fleet, Witness},
    view::View,
    wires::Wires,
};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// No step takes longer than this unless something hangs: a real registry needs up to two seconds.
const HANG: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match &*args.iter().map(|arg| &**arg).collect::<Vec<_>>() {
        [AS_PROVIDER, server, service, name, at, push_delay] => {
            let ours = "from the program that started this one";
            let push_delay = Duration::from_millis(push_delay.parse().expect(ours));
            let at = at.parse().expect(ours);
            provider::run((server, service), name, at, push_delay).await
        }
        _ => rollout(args.into_iter())
            .await
            .map(|last_line| println!("{last_line}")),
    };
    match done {
        // At once: a provider's runtime would wait for its standard input.
        Ok(()) => std::process::exit(0),
        Err(error) => {
            eprintln!("rollout: FAILED: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn rollout(args: impl Iterator<Item = String>) -> Result<String, Error> {
    let options = Options::read(args, std::env::var("NACOS_SERVER").ok())?;
    let (server, _registry) = match &options.servers {
        Some(servers) => (servers.clone(), None),
        None => {
            let registry = Registry::start().await?;
            (registry.addr(), Some(registry))
        }
    };
    let service = format!("rollout-{}", std::process::id());
    let place = &Place {
        server: &server,
        service: &service,
        push_delay: options.hear / 2,
    };
    println!(
        "{} providers on {server}, mode {}",
        options.providers,
        options.mode.name()
    );

    let books = Arc::new(Books::open(options.providers));
    let mut providers = Vec::new();
    for provider in 0..options.providers {
        providers.push(Child::start(&books, place, provider, None).await?);
    }
    let nacos = Client::connect(&*server).await?;
    let orders = nacos.subscribe(&*service).await?;
    orders.wait_for(options.providers, HANG).await?;
    let wires = Wires::lay(&nacos, &orders)?;
    let callers = Callers::start(&books, &wires, options.rate);

    let view = View::open(&books);
    let mut fleet = Fleet {
        options: &options,
        place,
        changes: orders.changes(),
        witness: Witness {
            books: books.clone(),
            view: &view,
            orders,
        },
    };
    let restarted = fleet.restart(&mut providers).await;
    let stopped = callers.stop().await;
    view.close(&books);
    restarted?;
    stopped?;
    let ends = providers.into_iter().map(async |mut provider| {
        provider.offline().await?;
        provider.ended().await
    });
    futures_util::future::try_join_all(ends).await?;
    nacos.close(Duration::from_secs(5)).await?;

    books.mark_last_calls();
    let pages = books.read();
    std::fs::write(&options.svg, picture::draw(&pages, options.mode))?;
    println!("picture: {}", options.svg.display());
    let mut found = check(&pages, options.mode == Mode::Kill);
    if options.mode == Mode::Graceful && wires.moved() > 0 {
        let text = format!("{} calls had to move to another instance", wires.moved());
        found.wrong.push(text);
    }
    if !found.wrong.is_empty() {
        let mut text = format!("{} claims do not hold:", found.wrong.len());
        for wrong in found.wrong.iter().take(20) {
            let _ = write!(text, "\n    {wrong}");
        }
        return Err(text.into());
    }
    let mut line = format!(
        "rollout: ok mode={} requests={}",
        options.mode.name(),
        found.requests
    );
    let _ = match options.mode {
        Mode::Graceful => write!(line, " failed={} marked={}", found.failed, pages.marked),
        Mode::Kill => write!(
            line,
            " lost_in_flight={} failed_other={} lost_begun={} lost_after_death={}",
            found.lost_in_flight,
            found.failed_other(),
            found.lost_begun,
            found.lost_after_death
        ),
    };
    let _ = write!(
        line,
        " after_eviction={} moved={}",
        found.after_eviction,
        wires.moved(),
    );
    if let Some(took) = found.evicted_p99 {
        let _ = write!(line, " evicted_p99_us={}", took.as_micros());
    }
    Ok(line)
}

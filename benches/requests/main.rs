//! What a request costs through us, beside clients that know no registry.
//!
//! `cargo bench --bench requests`; `-- --quick` for fewer and shorter rounds, `-- --workers N` for
//! more threads (one by default, so that nothing but the calls themselves differs).
//!
//! HTTP/1 and HTTP/2 beside hyper-util's client at one fixed address, gRPC beside tonic's
//! `balance_channel` over three instances with a connection to each, and the same with one of the
//! three dead. `*_tries` are ours with `retry` and `per_try_timeout` beside
//! ours without; `*_tls` are through TLS, the peer's HTTP by hyper-rustls. Servers are processes of their own, so CPU time is the client's alone. Rounds of
//! ours and the peer's take turns, and who begins changes; a line gives medians, and of their
//! ratio the 95 % interval.

#![expect(
    clippy::disallowed_methods,
    reason = "a bench spawns callers and measures real time"
)]

mod callers;
#[allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::use_self
)]
#[path = "../../examples/greeter/greeter.rs"]
mod greeter;
mod ours;
mod peers;
mod server;
mod stats;

use std::{process::ExitCode, time::Duration};

use tokio::runtime::Runtime;
use tower_nacos::transport::Protocol;

use crate::{
    callers::{Call, Round, round},
    server::{AS_SERVER, Server},
    stats::Paired,
};

type Error = Box<dyn std::error::Error + Send + Sync>;

struct Plan {
    rounds: usize,
    each: Duration,
    workers: usize,
    only: Option<String>,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == AS_SERVER) {
        return server::run();
    }
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    let value = |flag: &str| {
        let at = args.iter().position(|arg| arg == flag)?;
        args.get(at + 1).cloned()
    };
    let (rounds, each) = match () {
        () if has("--test") => (1, 20),
        () if has("--quick") => (15, 200),
        () => (41, 400),
    };
    let plan = Plan {
        rounds,
        each: Duration::from_millis(each),
        workers: value("--workers").and_then(|n| n.parse().ok()).unwrap_or(1),
        only: value("--only"),
    };
    match bench(&plan) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("requests: FAILED: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench(plan: &Plan) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(plan.workers)
        .enable_all()
        .build()?;
    let mut servers = (0..3)
        .map(|_| Server::start(false))
        .collect::<Result<Vec<_>, _>>()?;
    let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();

    let http = runtime.block_on(ours::Http::new(addresses[0]))?;
    for callers in [16, 1, 256] {
        let name = named("http1_hyper_util", callers, 16);
        compare(
            plan,
            &runtime,
            &name,
            callers,
            &http.http1(),
            &peers::http1(addresses[0]),
        )?;
    }
    for callers in [16, 1, 256] {
        let name = named("http2_hyper_util", callers, 16);
        compare(
            plan,
            &runtime,
            &name,
            callers,
            &http.http2(),
            &peers::http2(addresses[0]),
        )?;
    }

    let _entered = runtime.enter();
    let ours = ours::grpc(&addresses);
    let peer = runtime.block_on(peers::grpc(&addresses))?;
    for callers in [1, 16, 256] {
        let name = format!("grpc_balance_channel_{callers}");
        compare(plan, &runtime, &name, callers, &ours, &peer)?;
    }
    let tries = [
        ("http1_tries", http.tries(Protocol::Http1), http.http1()),
        ("http2_tries", http.tries(Protocol::Http2), http.http2()),
        ("grpc_tries", ours::grpc_tries(&addresses), ours.clone()),
    ];
    for (name, with, without) in &tries {
        compare(plan, &runtime, name, 16, with, without)?;
    }
    over_tls(plan, &runtime)?;
    if plan.wants("grpc_one_of_three_dead") {
        servers.remove(2).kill()?;
        one_dead(plan, &runtime, &ours, &peer)?;
    }
    Ok(())
}

fn over_tls(plan: &Plan, runtime: &Runtime) -> Result<(), Error> {
    let server = Server::start(true)?;
    let (at, config) = (server.address, ours::trusting(&server.certificate)?);
    let http = runtime.block_on(ours::Http::new(at))?;
    let grpc = runtime.block_on(peers::grpcs(at, &server.certificate))?;
    let [http1, http2] = [Protocol::Http1, Protocol::Http2].map(|over| http.tls(over, &config));
    let lines = [
        ("http1_tls", http1, peers::https(at, false, &config)),
        ("http2_tls", http2, peers::https(at, true, &config)),
        ("grpc_tls", ours::grpcs(at, &config), grpc),
    ];
    for (name, ours, peer) in &lines {
        compare(plan, runtime, name, 16, ours, peer)?;
    }
    Ok(())
}

fn named(what: &str, callers: usize, usual: usize) -> String {
    match callers == usual {
        true => what.to_owned(),
        false => format!("{what}_{callers}"),
    }
}

fn compare(
    plan: &Plan,
    runtime: &Runtime,
    name: &str,
    callers: usize,
    ours: &Call,
    peer: &Call,
) -> Result<(), Error> {
    if !plan.wants(name) {
        return Ok(());
    }
    let (mut own, mut theirs) = (Vec::new(), Vec::new());
    // One that does not count: connections are made, code and memory are warm.
    for at in 0..=plan.rounds {
        let mut pair = [None, None];
        for side in [at % 2, (at + 1) % 2] {
            let call = [ours, peer][side];
            let result = round(runtime, callers, plan.each, call);
            if let Some(error) = &result.first_error {
                return Err(format!("{name}: a call failed: {error}").into());
            }
            pair[side] = Some(result);
        }
        if let ([Some(our), Some(their)], 1..) = (pair, at) {
            own.push(our);
            theirs.push(their);
        }
    }
    let paired = |of: fn(&Round) -> f64| Paired::new(&own, &theirs, of);
    let (time, p99, cpu) = (
        paired(Round::ns),
        paired(Round::p99_us),
        paired(Round::cpu_ns),
    );
    println!(
        "ratio {name} ours_ns={:.0} peer_ns={:.0} peer_over_ours={:.3} ci95={:.3}..{:.3} \
         middle_half={:.3}..{:.3} p99_ours_us={:.0} p99_peer_us={:.0} p99_ours_over_peer={:.3} \
         cpu_ours_ns={:.0} cpu_peer_ns={:.0} cpu_ours_over_peer={:.3} callers={callers} rounds={}",
        time.ours,
        time.peer,
        time.peer_over_ours,
        time.interval.0,
        time.interval.1,
        time.middle_half.0,
        time.middle_half.1,
        p99.ours,
        p99.peer,
        1.0 / p99.peer_over_ours,
        cpu.ours,
        cpu.peer,
        1.0 / cpu.peer_over_ours,
        plan.rounds,
    );
    Ok(())
}

/// Both have the dead one in their list, as a registry that has not noticed leaves it there.
fn one_dead(plan: &Plan, runtime: &Runtime, ours: &Call, peer: &Call) -> Result<(), Error> {
    let mut counts = [(0, 0); 2];
    let mut first_error = [None, None];
    for at in 0..plan.rounds {
        for side in [at % 2, (at + 1) % 2] {
            let result = round(runtime, 16, plan.each, [ours, peer][side]);
            counts[side].0 += result.calls + result.failed;
            counts[side].1 += result.failed;
            first_error[side] = first_error[side].take().or(result.first_error);
        }
    }
    let [(our_calls, our_failed), (peer_calls, peer_failed)] = counts;
    println!(
        "requests grpc_one_of_three_dead ours_calls={our_calls} ours_failed={our_failed} \
         peer_calls={peer_calls} peer_failed={peer_failed} peer_failed_share={:.3}",
        peer_failed as f64 / peer_calls as f64
    );
    if let [_, Some(error)] = &first_error {
        println!("# the peer's first error: {error}");
    }
    match first_error {
        [Some(error), _] => Err(format!("{our_failed} of our calls failed: {error}").into()),
        _ => Ok(()),
    }
}

impl Plan {
    fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(&**only))
    }
}

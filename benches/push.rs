//! What one push costs: from the frame in memory to applied, one of n instances removed, or all changed.
//!
//! Ours is everything that happens to a push: the envelope, the session's machine, decoding,
//! admission, the difference to the last snapshot, publication, the acknowledgement, a `Discovery`
//! that is polled for it, and a default `Balance` that makes its pick table of it and drops the old
//! one. The peer is what any client does at least: serde's derived
//! decoding of the same JSON into owned strings and hash maps, and dropping the result.
//!
//! `cargo bench --bench push`; `-- --quick` for fewer rounds. The two run interleaved in one
//! process; a line gives the medians, the allocations of one push, and the spread of the ratio.

#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]

mod support;

use std::{
    collections::HashMap,
    convert::Infallible,
    future::Ready,
    hint::black_box,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Instant,
};

use bytes::Bytes;
use futures_core::Stream;
use serde::Deserialize;
use support::{allocations, median, timed};
use tower_nacos::{
    balance::{Balance, Hints},
    model::{Instance, ServiceKey},
    push_path::PushPath,
};

/// The peer: what a client that keeps what it is sent decodes into.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "decoded to be dropped")]
struct OwnedPush {
    request_id: Option<String>,
    service_info: OwnedServiceInfo,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "decoded to be dropped")]
struct OwnedServiceInfo {
    name: String,
    group_name: String,
    clusters: String,
    cache_millis: u64,
    last_ref_time: i64,
    checksum: String,
    reach_protection_threshold: bool,
    hosts: Vec<OwnedHost>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "decoded to be dropped")]
struct OwnedHost {
    instance_id: Option<String>,
    ip: String,
    port: u32,
    weight: f64,
    healthy: bool,
    enabled: bool,
    ephemeral: bool,
    cluster_name: Option<String>,
    service_name: Option<String>,
    metadata: HashMap<String, String>,
}

/// An instance's service, which is never called here.
#[derive(Clone)]
struct Idle;

impl tower::Service<()> for Idle {
    type Response = ();
    type Error = Infallible;
    type Future = Ready<Result<(), Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        std::future::ready(Ok(()))
    }
}

fn main() {
    let quick = std::env::args().any(|arg| arg == "--quick" || arg == "--test");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let _entered = runtime.enter();
    for (n, pushes) in [(10, 2_000), (1_000, 40), (10_000, 4)] {
        for what in [Push::OneGone, Push::AllChanged] {
            measure(what, n, pushes, if quick { 11 } else { 31 });
        }
    }
}

/// What a push says that is timed.
#[derive(Clone, Copy)]
enum Push {
    OneGone,
    /// Each instance has another zone: no new start, so nobody is called gone.
    AllChanged,
}

impl Push {
    fn json(self, n: usize, at: usize) -> String {
        match self {
            Self::OneGone => json(n, Some(at * n / 16), 0),
            Self::AllChanged => json(n, None, 1 + at),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::OneGone => "push",
            Self::AllChanged => "push_all",
        }
    }
}

fn measure(what: Push, n: usize, pushes: usize, rounds: usize) {
    let key = ServiceKey::new("public", "bench".parse().unwrap()).unwrap();
    let mut path = PushPath::new(key, Instant::now());
    let mut discovery = Box::pin(path.subscription().discover(|_: &Instance| Idle));
    // Its own task does not run while we do not yield: the pick table is made by the next call, and
    // so counted here.
    let balance = Balance::builder(path.subscription()).build(|_: &Instance| Idle);
    let hints = Hints::new();
    // Instance `gone` is missing from one push and back in the next: each pair of pushes is one
    // removal and one return, and the removals are timed. Likewise a change of all and a change back.
    let frames: Vec<(Bytes, Bytes)> = (0..pushes.min(16))
        .map(|at| {
            (
                PushPath::frame(json(n, None, 0)),
                PushPath::frame(what.json(n, at)),
            )
        })
        .collect();
    let texts: Vec<String> = (0..frames.len()).map(|at| what.json(n, at)).collect();

    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    let mut allocated = 0;
    for _ in 0..rounds {
        let mut spent = 0.0;
        for at in 0..pushes {
            let (whole, without) = &frames[at % frames.len()];
            path.push(whole.clone());
            drain(discovery.as_mut());
            assert!(balance.pass(&hints));
            let before = allocations();
            spent += timed(|| {
                path.push(black_box(without.clone()));
                drain(discovery.as_mut());
                assert!(balance.pass(&hints)); // it takes over the new set
            });
            allocated = allocations() - before;
        }
        ours.push(spent / pushes as f64);

        let peer = timed(|| {
            for at in 0..pushes {
                let text = &texts[at % texts.len()];
                let push: OwnedPush = serde_json::from_slice(black_box(text.as_bytes())).unwrap();
                drop(black_box(push));
            }
        });
        theirs.push(peer / pushes as f64);
    }
    let left = match what {
        Push::OneGone => n - 1,
        Push::AllChanged => n,
    };
    assert_eq!(path.subscription().snapshot().callable_len(), left);

    let mut ratios: Vec<f64> = theirs.iter().zip(&ours).map(|(t, o)| t / o).collect();
    let (ours, theirs, ratio) = (median(&mut ours), median(&mut theirs), median(&mut ratios));
    println!(
        "ratio {}_{n} ours_ns={ours:.0} peer_ns={theirs:.0} peer_over_ours={ratio:.2} \
         spread={:.2}..{:.2} ours_allocs={allocated} peer=owned_serde",
        what.name(),
        ratios[0],
        ratios[ratios.len() - 1],
    );
}

fn drain<S: Stream>(mut discovery: Pin<&mut S>) {
    let mut cx = Context::from_waker(Waker::noop());
    while let Poll::Ready(Some(change)) = discovery.as_mut().poll_next(&mut cx) {
        drop(change);
    }
}

/// A push as Alibaba's server 3.0 writes it, without host `gone`, in zones of this version.
fn json(n: usize, gone: Option<usize>, version: usize) -> String {
    let hosts: Vec<String> = (0..n)
        .filter(|at| Some(*at) != gone)
        .map(|at| {
            let ip = format!("10.{}.{}.{}", at / 62_500, at / 250 % 250, at % 250);
            format!(
                r#"{{"instanceId":"{ip}#8080#DEFAULT#DEFAULT_GROUP@@bench","ip":"{ip}","port":8080,"weight":1.0,"healthy":true,"enabled":true,"ephemeral":true,"clusterName":"DEFAULT","serviceName":"DEFAULT_GROUP@@bench","metadata":{{"preserved.register.source":"SPRING_CLOUD","version":"1.4.2","zone":"cn-hangzhou-{}","startTime":"17952510865{:02}"}},"instanceHeartBeatInterval":5000,"instanceHeartBeatTimeOut":15000,"ipDeleteTimeout":30000}}"#,
                at % 3 + 3 * version,
                at % 100,
            )
        })
        .collect();
    format!(
        r#"{{"headers":{{}},"requestId":"42","module":"naming","serviceInfo":{{"name":"bench","groupName":"DEFAULT_GROUP","clusters":"","cacheMillis":10000,"hosts":[{}],"lastRefTime":1795251086572,"checksum":"","allIps":false,"reachProtectionThreshold":false,"valid":true}}}}"#,
        hosts.join(",")
    )
}

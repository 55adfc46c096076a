//! A push: from the frame in memory to applied, with a balancer and a `Discover` that follow it.

use std::{
    convert::Infallible,
    future::Ready,
    pin::pin,
    task::{Context, Poll, Waker},
    time::Instant,
};

use futures_core::Stream;
use tower_nacos::{
    Balance, Instance, ServiceKey,
    balance::{Hints, Random},
    push_path::PushPath,
};

use crate::{Line, Operations};

pub(crate) fn lines() -> Vec<Line> {
    [("one", 1), ("all", 1_000)]
        .map(|(what, changed)| {
            let name = format!("push_{what}_of_1000_changed");
            Line::new(name, 4, 4, move || pushing(1_000, changed))
        })
        .into()
}

/// An instance's service, which is never called here.
#[derive(Clone)]
pub(crate) struct Idle;

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

/// Pushes `n` instances of which the first so many have another version each time.
fn pushing(n: usize, changed: usize) -> Operations {
    Random::seed_thread(16);
    let key = ServiceKey::new("public", "bench".parse().unwrap()).unwrap();
    let mut path = PushPath::new(key, Instant::now());
    let mut discovery = Box::pin(path.subscription().discover(|_: &Instance| Idle));
    // Its own task does not run, since nobody waits: the next pick takes the set over.
    let balance = Balance::builder(path.subscription()).build(|_: &Instance| Idle);
    let frames = [0, changed].map(|changed| PushPath::frame(json(n, changed, |_| Some(1.0))));
    let mut at = 0;
    Box::new(move |count| {
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..count {
            at += 1;
            path.push(frames[at % 2].clone());
            let mut discovery = pin!(&mut discovery);
            while let Poll::Ready(Some(change)) = discovery.as_mut().poll_next(&mut cx) {
                drop(change);
            }
            assert!(balance.pass(&Hints::new()));
        }
    })
}

/// As Alibaba's server 3.0 writes it. Who has no weight is not listed.
pub(crate) fn json(n: usize, changed: usize, weight: impl Fn(usize) -> Option<f64>) -> String {
    let hosts: Vec<String> = (0..n)
        .filter_map(|at| Some((at, weight(at)?)))
        .map(|(at, weight)| {
            let ip = format!("10.{}.{}.{}", at / 62_500, at / 250 % 250, at % 250);
            let version = if at < changed { "1.4.3" } else { "1.4.2" };
            format!(
                r#"{{"instanceId":"{ip}#8080#DEFAULT#DEFAULT_GROUP@@bench","ip":"{ip}","port":8080,"weight":{weight:.1},"healthy":true,"enabled":true,"ephemeral":true,"clusterName":"DEFAULT","serviceName":"DEFAULT_GROUP@@bench","metadata":{{"preserved.register.source":"SPRING_CLOUD","version":"{version}","zone":"cn-hangzhou-{}","startTime":"17952510865{:02}"}},"instanceHeartBeatInterval":5000,"instanceHeartBeatTimeOut":15000,"ipDeleteTimeout":30000}}"#,
                at % 3,
                at % 100,
            )
        })
        .collect();
    format!(
        r#"{{"headers":{{}},"requestId":"42","module":"naming","serviceInfo":{{"name":"bench","groupName":"DEFAULT_GROUP","clusters":"","cacheMillis":10000,"hosts":[{}],"lastRefTime":1795251086572,"checksum":"","allIps":false,"reachProtectionThreshold":false,"valid":true}}}}"#,
        hosts.join(",")
    )
}

//! A pick, its admission and its release; and a whole call of a service that answers at once.

use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    hint::black_box,
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tower::Service;
use tower_nacos::{
    Balance, Instance, Subscription,
    balance::{
        Hints, Maglev, P2c, PeakEwma, Policy, Random, WeightedRandom, WeightedRoundRobin,
        stable_hash,
    },
    retry::Retry,
};

use crate::{Line, Operations};

pub(crate) fn lines() -> Vec<Line> {
    let mut lines = Vec::new();
    for n in [3, 300, 10_000] {
        // Enough that the draws' own differences come to nothing.
        let many = 5_000;
        lines.push(pass("p2c", n, many, P2c::new));
        lines.push(pass("random", n, many, WeightedRandom::new));
        lines.push(pass("round_robin", n, many, WeightedRoundRobin::new));
        lines.push(pass("maglev", n, many, Maglev::new));
        lines.push(pass("peak_ewma", n, many, PeakEwma::new));
    }
    for n in [3, 300] {
        lines.push(Line::new(
            format!("call_p2c_{n}"),
            made(n),
            3_000,
            move || calling(Balance::builder(&orders(n)).build(|_: &Instance| Noop)),
        ));
    }
    lines.push(Line::new("call_p2c_300_per_try", made(300), 3_000, || {
        let builder = Balance::builder(&orders(300)).per_try_timeout(Duration::from_secs(10));
        calling(builder.build(|_: &Instance| Noop))
    }));
    lines.push(Line::new("call_p2c_300_tries", made(300), 3_000, || {
        let builder = Balance::builder(&orders(300))
            .per_try_timeout(Duration::from_secs(10))
            .retry(Retry::seeded(1))
            .replay(|request: &u64| Some(*request));
        calling(builder.build(|_: &Instance| Noop))
    }));
    lines
}

/// How many calls it takes until each instance's service is made, with all but certainty.
const fn made(n: usize) -> u64 {
    20 * n as u64
}

#[derive(Clone)]
struct Noop;

impl Service<u64> for Noop {
    type Response = u64;
    type Error = Infallible;
    type Future = Ready<Result<u64, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Self::Future {
        ready(Ok(request))
    }
}

fn orders(n: usize) -> Subscription {
    Random::seed_thread(16);
    Subscription::fixed((0..n).map(|at| {
        let address = format!("10.{}.{}.{}:80", at / 62_500, at / 250 % 250, at % 250);
        Instance::parse(&address).unwrap()
    }))
}

fn pass<P: Policy>(
    what: &str,
    n: usize,
    counted: u64,
    policy: impl FnOnce() -> P + 'static,
) -> Line {
    Line::new(format!("pass_{what}_{n}"), 1_000, counted, move || {
        let balance = Balance::builder(&orders(n))
            .policy(policy())
            .build(|_: &Instance| Noop);
        let mut at = 0_u64;
        Box::new(move |count| {
            for _ in 0..count {
                at += 1;
                let hints = Hints::new().hash_key(stable_hash(&at.to_le_bytes()));
                assert!(black_box(balance.pass(&hints)));
            }
        })
    })
}

fn calling<B>(mut balance: B) -> Operations
where
    B: Service<u64, Response = u64, Error: std::fmt::Debug, Future: 'static> + 'static,
{
    Box::new(move |count| {
        let mut cx = Context::from_waker(Waker::noop());
        for request in 0..count {
            assert!(balance.poll_ready(&mut cx).is_ready());
            let answer = pin!(balance.call(request)).poll(&mut cx);
            assert!(black_box(answer).is_ready());
        }
    })
}

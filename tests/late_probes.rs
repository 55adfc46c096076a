//! A call that is an instance's probe and is out of time, in virtual time: nothing has answered, so nothing is
//! restored by it.

#![allow(clippy::disallowed_methods, reason = "a test owns its clock")]

use std::{fmt, future::pending, time::Duration};

use tower::{ServiceExt, service_fn};
use tower_nacos::{
    Balance, Instance, Subscription,
    balance::{Outliers, Pickable, WeightedRoundRobin},
    endpoint::{CallError, Outcome, Verdict},
};

#[derive(Debug)]
struct Failed(Verdict);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl std::error::Error for Failed {}

/// What a request comes to.
#[derive(Clone, Copy, Debug)]
enum Comes {
    ToNothing,
    ToNoConnection,
    ToALoss,
    To(u16),
}

async fn answer(request: Comes) -> Result<u16, Failed> {
    match request {
        Comes::ToNothing => pending().await,
        Comes::ToNoConnection => Err(Failed(Verdict::Unreachable("refused".into()))),
        Comes::ToALoss => Err(Failed(Verdict::Lost("reset".into()))),
        Comes::To(status) => Ok(status),
    }
}

const A: &str = "10.0.0.1:80";

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_out_of_time_restores_nobody() {
    for (failure, times, rest) in [
        (Comes::ToNoConnection, 1, Duration::from_millis(1_100)),
        (Comes::ToALoss, 1, Duration::from_millis(10)),
        (Comes::To(500), 5, Duration::from_secs(31)),
    ] {
        let orders = Subscription::fixed([A, "10.0.0.2:80"].map(|at| Instance::parse(at).unwrap()));
        let balance = Balance::builder(&orders)
            .policy(WeightedRoundRobin::new())
            .per_try_timeout(Duration::from_millis(100))
            .classify(|failed: &Failed| failed.0.clone())
            .outliers(
                Outliers::new(),
                |result: Result<&u16, &Failed>| match result {
                    Ok(200) => Outcome::Success,
                    Ok(_) => Outcome::Failure,
                    Err(_) => Outcome::Ignored,
                },
            )
            .build(|instance: &Instance| {
                let ill = instance.address().to_string() == A;
                service_fn(move |request: (Comes, Comes)| {
                    answer(if ill { request.0 } else { request.1 })
                })
            });
        let at = A.parse().unwrap();
        let well = Comes::To(200);
        // Until it is out.
        let mut failed = 0;
        for _ in 0..2 * times {
            let answered = balance.clone().oneshot((failure, well)).await;
            failed += u32::from(!matches!(answered, Ok(200)));
        }
        assert_eq!(failed, times, "{failure:?}");
        let was = balance.explain(&at).verdict;
        tokio::time::sleep(rest).await;
        // Its probe among them, which nothing answers.
        let mut late = 0;
        for _ in 0..10 {
            let called = balance.clone().oneshot((Comes::ToNothing, well)).await;
            late += u32::from(called.is_err_and(|error: CallError| error.is_try_timed_out()));
        }
        assert_eq!(late, 1, "{failure:?} {times}: one is its probe");
        let is = balance.explain(&at).verdict;
        assert!(
            !matches!(is, Pickable::Yes),
            "{failure:?} {times}: {was:?}, {is:?}"
        );
        // And one that is answered does.
        tokio::time::sleep(Duration::from_secs(62)).await;
        for _ in 0..10 {
            balance.clone().oneshot((well, well)).await.unwrap();
        }
        assert!(balance.explain(&at).is_pickable(), "{failure:?} {times}");
        assert_eq!(balance.counts(), [0; 3]);
    }
}

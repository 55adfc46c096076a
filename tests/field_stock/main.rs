//! What callers see of ten instances of which one is slow, one fails and one is overloaded: through ours,
//! with and without outlier detection, retries and hedges, beside tower's own layers for the same. Discrete
//! events in virtual time, seeded; each line is the mean of several seeds.
//!
//! tower's hedges have no budget, ours share the retries': at the 99th percentile its hedges alone gain a
//! little more for that.
//!
//! `cargo test --test field_stock -- --nocapture` prints the table.

#![allow(
    clippy::disallowed_methods,
    reason = "a test owns its clock and its tasks"
)]

mod field;
mod stock;

use std::{future::Future, io, time::Duration};

use field::{DEADLINE, Field, INSTANCES, SETTLED, Seen, instances};
use futures_util::future::BoxFuture;
use tower::{BoxError, Service, ServiceExt};
use tower_nacos::{
    Balance, Instance, Subscription,
    balance::{FailurePercentage, Outliers, Random, SlowStart, SuccessRate},
    endpoint::{Outcome, Unclassified, WithOutcomes},
    retry::{Again, Hedge, Retry},
};

/// What is switched on beside the balancer itself.
#[derive(Clone, Copy, Default)]
struct Tries {
    /// A time-out for each try, and further ones.
    retry: bool,
    /// A second one beside the first at the 95th percentile.
    hedge: bool,
}

/// Five times what an answer takes on the average.
const PER_TRY: Duration = Duration::from_millis(300);
const SEEDS: [u64; 2] = [14, 15];

async fn ours(seed: u64, tries: Tries, outliers: bool) -> Seen {
    Random::seed_thread(seed);
    let field = Field::new(seed);
    let orders = Subscription::fixed(instances());
    let maker = field.clone();
    let mut builder = Balance::builder(&orders);
    if outliers {
        let detected = Outliers::new()
            .success_rate(SuccessRate::new())
            .failure_percentage(FailurePercentage::new());
        builder = builder
            .slow_start(SlowStart::new().after_ejection())
            .eject_outliers(detected);
    }
    if tries.retry {
        builder = builder.per_try_timeout(PER_TRY).retry(Retry::seeded(seed));
    }
    if tries.hedge {
        builder = builder.hedge(Hedge::at_p95());
    }
    let balance = builder
        .judge(WithOutcomes::new(Unclassified::default(), judge))
        .replay(|(): &()| Some(()))
        .again(again)
        .build(move |instance: &Instance| maker.make(instance));
    field.load(|| called(balance.clone())).await
}

fn called<B>(balance: B) -> BoxFuture<'static, Result<u16, BoxError>>
where
    B: Service<(), Response = u16, Error: Into<BoxError> + Send> + Send + 'static,
    B::Future: Send,
{
    Box::pin(async move { balance.oneshot(()).await.map_err(Into::into) })
}

fn judge(result: Result<&u16, &io::Error>) -> Outcome {
    match result {
        Ok(200) => Outcome::Success,
        _ => Outcome::Failure,
    }
}

fn again(result: Result<&u16, &io::Error>) -> Again {
    match result {
        Ok(200) => Again::No,
        _ => Again::Yes,
    }
}

/// Prints the mean of several seeds.
async fn line<S: Future<Output = Seen>>(name: &str, seen: impl Fn(u64) -> S) -> Seen {
    let mut mean = Seen {
        goodput: 0.0,
        p99: Duration::ZERO,
        tries: 0.0,
    };
    for seed in SEEDS {
        let one = seen(seed).await;
        let share = 1.0 / SEEDS.len() as f64;
        mean.goodput += one.goodput * share;
        mean.p99 += one.p99.mul_f64(share);
        mean.tries += one.tries * share;
    }
    println!(
        "{name:44} {:7.2} % {:8.1} ms {:6.2}",
        mean.goodput * 100.0,
        mean.p99.as_secs_f64() * 1_000.0,
        mean.tries,
    );
    mean
}

#[tokio::test(start_paused = true)]
async fn callers_see_less_of_what_is_bad_than_through_towers_own_layers() {
    println!(
        "one of {INSTANCES} slow, one failing, one overloaded; calls have {DEADLINE:?}; the last {SETTLED} s\n\
         {:44} {:>9} {:>11} {:>6}",
        "", "goodput", "p99", "tries"
    );
    let none = Tries::default();
    let retry = Tries {
        retry: true,
        hedge: false,
    };
    let both = Tries {
        retry: true,
        hedge: true,
    };
    let stock_alone = line("tower: p2c", |seed| stock::stock(seed, none)).await;
    let alone = line("ours:  p2c", |seed| ours(seed, none, false)).await;
    let detecting = line("ours:  p2c, outliers", |seed| ours(seed, none, true)).await;
    let stock_retry = line("tower: p2c, time-out, retry", |seed| {
        stock::stock(seed, retry)
    })
    .await;
    let retrying = line("ours:  p2c, time-out, retry", |seed| {
        ours(seed, retry, false)
    })
    .await;
    let retrying_detecting = line("ours:  p2c, time-out, retry, outliers", |seed| {
        ours(seed, retry, true)
    })
    .await;
    let stock_both = line("tower: p2c, time-out, retry, hedge", |seed| {
        stock::stock(seed, both)
    })
    .await;
    let hedging = line("ours:  p2c, time-out, retry, hedge", |seed| {
        ours(seed, both, false)
    })
    .await;
    let all = line("ours:  p2c, time-out, retry, hedge, outliers", |seed| {
        ours(seed, both, true)
    })
    .await;
    // The same layers: no worse, and no more load on the service.
    for (ours, stock) in [
        (alone, stock_alone),
        (retrying, stock_retry),
        (hedging, stock_both),
    ] {
        // tower's dice are its own: alone it was seen between 89.9 and 91.2 %.
        assert!(ours.goodput > stock.goodput - 0.025, "{ours:?} {stock:?}");
        assert!(ours.tries < stock.tries + 0.01, "{ours:?} {stock:?}");
    }
    // And better where it is known who is bad, which no layer above a balancer can tell it.
    for (ours, stock, of_its_p99) in [
        (detecting, stock_alone, 1.0),
        (retrying_detecting, stock_retry, 0.85),
        (all, stock_both, 0.9),
    ] {
        assert!(ours.goodput > stock.goodput, "{ours:?} {stock:?}");
        assert!(
            ours.p99 <= stock.p99.mul_f64(of_its_p99),
            "{ours:?} {stock:?}"
        );
        assert!(ours.tries < stock.tries + 0.01, "{ours:?} {stock:?}");
    }
    assert!(detecting.goodput > stock_alone.goodput + 0.05);
    assert!(retrying_detecting.tries < 1.05 && all.tries < 1.1);
}

//! Peak EWMA: among equals nobody goes without calls, who is slow loses, and a stream's life is no
//! latency.

#![allow(
    clippy::disallowed_methods,
    reason = "a test owns its clock and its tasks"
)]

mod discover_support;

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use discover_support::{instance, now, registry};
use tower::{ServiceExt, load::completion::TrackCompletion};
use tower_nacos::{
    Balance, Instance,
    balance::{PeakEwma, Random},
    endpoint::InFlight,
};

type Book = Arc<Mutex<HashMap<String, usize>>>;

fn addresses(n: usize) -> Vec<String> {
    (1..=n).map(|at| format!("10.0.0.{at}:80")).collect()
}

/// Ends a call when what it is asked for is dropped, as a body does.
#[derive(Clone)]
struct WithBody;

impl<T> TrackCompletion<InFlight, T> for WithBody {
    type Output = (T, InFlight);

    fn track_completion(&self, handle: InFlight, value: T) -> Self::Output {
        (value, handle)
    }
}

/// Calls to `n` instances by so many at once; each takes what `took` says of its place, times what
/// an exponential distribution says. After `grow_at` calls one more comes. Returns each one's calls,
/// and those of the newcomer within 100.
async fn calls(
    n: usize,
    at_once: usize,
    total: usize,
    seed: u64,
    took: fn(usize) -> f64,
    newcomer: bool,
) -> (Vec<usize>, usize) {
    Random::seed_thread(seed);
    let (mut writer, orders) = registry();
    writer.publish(addresses(n).iter().map(|a| instance(a)), now());
    let book = Book::default();
    let random = Arc::new(Mutex::new(Random::seeded(seed ^ 77)));
    let counted = Arc::clone(&book);
    let balance =
        Balance::builder(&orders)
            .policy(PeakEwma::new())
            .build(move |instance: &Instance| {
                let address = instance.address().to_string();
                let place: usize = address[7..address.len() - 3].parse().unwrap();
                let (book, random) = (Arc::clone(&counted), Arc::clone(&random));
                tower::service_fn(move |(): ()| {
                    *book.lock().unwrap().entry(address.clone()).or_default() += 1;
                    let unit = random.lock().unwrap().unit();
                    let ms = took(place) * (0.5 - 0.5 * (1.0 - unit).ln());
                    async move {
                        tokio::time::sleep(Duration::from_secs_f64(ms / 1e3)).await;
                        Ok::<_, io::Error>(())
                    }
                })
            });
    let run = async |calls: usize| {
        let left = AtomicUsize::new(calls);
        let one = async || {
            let more = |left: usize| left.checked_sub(1);
            while left.fetch_update(SeqCst, SeqCst, more).is_ok() {
                balance.clone().oneshot(()).await.unwrap();
            }
        };
        futures_join((0..at_once).map(|_| one()).collect()).await;
    };
    run(total).await;
    let read = |n| {
        let book = book.lock().unwrap();
        let counts = addresses(n);
        let counts = counts.iter().map(|a| book.get(a).copied().unwrap_or(0));
        counts.collect::<Vec<_>>()
    };
    let counts = read(n);
    if newcomer {
        writer.publish(addresses(n + 1).iter().map(|a| instance(a)), now());
        run(100).await;
    }
    (counts, read(n + 1)[n])
}

async fn futures_join<F: Future<Output = ()>>(futures: Vec<F>) {
    let mut futures: Vec<_> = futures.into_iter().map(|f| Some(Box::pin(f))).collect();
    std::future::poll_fn(|cx| {
        for future in &mut futures {
            if let Some(running) = future
                && running.as_mut().poll(cx).is_ready()
            {
                *future = None;
            }
        }
        match futures.iter().all(Option::is_none) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn of_equals_each_has_half_a_share_at_least_and_a_newcomer_is_called_within_100_calls() {
    for (n, seed) in [(2, 1), (3, 2), (4, 3), (6, 4), (8, 5)] {
        for at_once in [1, 16] {
            let total = 40_000 * at_once.min(2);
            let (counts, new) = calls(n, at_once, total, seed, |_| 10.0, true).await;
            let least = *counts.iter().min().unwrap();
            let half = total / n / 2;
            assert!(least >= half, "{at_once} at once: {counts:?}");
            assert!(new > 0, "{at_once} at once, {n}: no call to the newcomer");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_five_times_as_slow_loses_more_than_half() {
    for at_once in [1, 16] {
        let slow = |place| if place == 1 { 50.0 } else { 10.0 };
        let (counts, _) = calls(4, at_once, 20_000, 9, slow, false).await;
        assert!(counts[0] * 8 <= 20_000, "{at_once} at once: {counts:?}");
        assert!(counts[0] > 0, "{at_once} at once: it is tried again");
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_stream_does_not_make_its_instance_slow() {
    Random::seed_thread(4);
    let (mut writer, orders) = registry();
    writer.publish(addresses(3).iter().map(|a| instance(a)), now());
    let balance = Balance::builder(&orders)
        .policy(PeakEwma::new())
        .completion(WithBody)
        .build(|instance: &Instance| {
            let address = instance.address().to_string();
            tower::service_fn(move |(): ()| {
                let address = address.clone();
                async move {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    Ok::<_, io::Error>(address)
                }
            })
        });
    for _ in 0..100 {
        drop(balance.clone().oneshot(()).await.unwrap());
    }
    let (streaming, stream) = balance.clone().oneshot(()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(4)).await;
    drop(stream);
    let mut there = 0;
    for _ in 0..300 {
        let (address, body) = balance.clone().oneshot(()).await.unwrap();
        there += usize::from(address == streaming);
        drop(body);
    }
    assert!(there >= 50, "{there} of 300");
}

#[tokio::test(start_paused = true)]
async fn failing_at_once_is_not_being_fast() {
    Random::seed_thread(4);
    let (mut writer, orders) = registry();
    writer.publish(addresses(3).iter().map(|a| instance(a)), now());
    let failed = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&failed);
    let balance =
        Balance::builder(&orders)
            .policy(PeakEwma::new())
            .build(move |instance: &Instance| {
                let fails = instance.address().to_string() == addresses(1)[0];
                let count = Arc::clone(&count);
                tower::service_fn(move |(): ()| {
                    count.fetch_add(usize::from(fails), SeqCst);
                    async move {
                        if fails {
                            return Err(io::Error::other("at once"));
                        }
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        Ok(())
                    }
                })
            });
    for _ in 0..300 {
        let _ = balance.clone().oneshot(()).await;
    }
    let failed = failed.load(SeqCst);
    assert!(failed <= 4, "{failed} of 300");
}

//! Peak EWMA gives instances that are alike the same, whoever came first, and still sheds the slow.

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
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use discover_support::{instance, now, registry};
use futures_util::future::join_all;
use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::time::sleep;
use tower::{Service, ServiceExt, load::completion::TrackCompletion};
use tower_nacos::{
    Balance, Instance,
    balance::PeakEwma,
    directory::{Subscription, Writer},
    endpoint::InFlight,
};

/// Instances whose answers take `usual` to twice that, one of them perhaps `slow` times as long.
#[derive(Clone)]
struct Field {
    calls: Arc<Mutex<HashMap<String, usize>>>,
    random: Arc<Mutex<StdRng>>,
    slow: Arc<Mutex<Option<(String, u32)>>>,
}

type Answer = futures_util::future::BoxFuture<'static, Result<(), io::Error>>;

impl Field {
    fn new(seed: u64) -> Self {
        Self {
            calls: Arc::default(),
            random: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))),
            slow: Arc::default(),
        }
    }

    fn balance(
        &self,
        orders: &Subscription,
    ) -> Balance<
        impl Service<(), Response = (), Error = io::Error, Future = Answer> + Clone + use<>,
        PeakEwma,
    > {
        let field = self.clone();
        Balance::builder(orders)
            .policy(PeakEwma::new())
            .build(move |instance: &Instance| {
                let (address, field) = (instance.address().to_string(), field.clone());
                tower::service_fn(move |(): ()| field.answer(&address))
            })
    }

    fn answer(&self, address: &str) -> Answer {
        *self
            .calls
            .lock()
            .unwrap()
            .entry(address.to_owned())
            .or_default() += 1;
        let usual = self.random.lock().unwrap().random_range(USUAL..2 * USUAL);
        let times = match &*self.slow.lock().unwrap() {
            Some((slow, times)) if slow == address => *times,
            _ => 1,
        };
        Box::pin(async move {
            sleep(usual * times).await;
            Ok(())
        })
    }

    fn called(&self, address: &str) -> usize {
        let calls = self.calls.lock().unwrap();
        calls.get(address).copied().unwrap_or(0)
    }
}

fn addresses(n: usize) -> Vec<String> {
    (1..=n).map(|at| format!("10.0.0.{at}:80")).collect()
}

fn list(writer: &mut Writer, addresses: &[String]) {
    writer.publish(addresses.iter().map(|a| instance(a)), now());
}

/// Calls it so often, so many at a time.
async fn call<S>(balance: &Balance<S, PeakEwma>, calls: usize, at_once: usize)
where
    Balance<S, PeakEwma>: Service<(), Response = ()> + Clone,
    <Balance<S, PeakEwma> as Service<()>>::Error: std::fmt::Debug,
{
    let callers = (0..at_once).map(|_| async {
        for _ in 0..calls / at_once {
            balance.clone().oneshot(()).await.unwrap();
        }
    });
    join_all(callers).await;
}

fn in_virtual_time(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.unwrap().block_on(test);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn of_equal_instances_each_has_at_least_half_of_its_share(
        n in 2_usize..12, at_once in prop_oneof![Just(1_usize), Just(8), Just(64)], seed: u64,
    ) {
        in_virtual_time(async move {
            let (mut writer, orders) = registry();
            let all = addresses(n);
            list(&mut writer, &all);
            let field = Field::new(seed);
            let calls = 400 * n;
            call(&field.balance(&orders), calls, at_once).await;
            for address in &all {
                let called = field.called(address);
                assert!(called * 2 * n >= calls, "{address}: {called} of {calls} by {n}");
            }
        });
    }

    #[test]
    fn a_newcomer_is_called_within_a_hundred_calls_and_has_half_of_its_share(
        n in 2_usize..10, at_once in prop_oneof![Just(1_usize), Just(8)], seed: u64,
    ) {
        in_virtual_time(async move {
            let (mut writer, orders) = registry();
            let all = addresses(n + 1);
            let (newcomer, old) = all.split_last().unwrap();
            list(&mut writer, old);
            let field = Field::new(seed);
            let balance = field.balance(&orders);
            call(&balance, 200 * n, at_once).await;
            list(&mut writer, &all);
            call(&balance, 96, at_once).await;
            assert!(field.called(newcomer) > 0, "not among 96 calls");
            let before = field.called(newcomer);
            let calls = 400 * (n + 1);
            call(&balance, calls, at_once).await;
            let called = field.called(newcomer) - before;
            assert!(called * 2 * (n + 1) >= calls, "{called} of {calls} by {}", n + 1);
        });
    }

    #[test]
    fn a_slow_one_loses_at_least_half_of_its_share_and_gets_it_back(
        n in 3_usize..10, at_once in prop_oneof![Just(1_usize), Just(8)], times in 5_u32..50, seed: u64,
    ) {
        in_virtual_time(async move {
            let (mut writer, orders) = registry();
            let all = addresses(n);
            list(&mut writer, &all);
            let field = Field::new(seed);
            let balance = field.balance(&orders);
            call(&balance, 100 * n, at_once).await;
            *field.slow.lock().unwrap() = Some((all[0].clone(), times));
            let before = field.called(&all[0]);
            let calls = 400 * n;
            call(&balance, calls, at_once).await;
            let called = field.called(&all[0]) - before;
            assert!(called * 2 * n <= calls, "{called} of {calls} by {n}");
            // Well again, and its past fades by 1/e in 10 s.
            *field.slow.lock().unwrap() = None;
            sleep(Duration::from_secs(60)).await;
            let before = field.called(&all[0]);
            call(&balance, calls, at_once).await;
            let called = field.called(&all[0]) - before;
            assert!(called * 2 * n >= calls, "{called} of {calls} by {n}");
        });
    }
}

/// Called one at a time, who has a third of the weight has more than a third of its share.
#[tokio::test(start_paused = true)]
async fn small_weights_do_not_starve() {
    let (mut writer, orders) = registry();
    let all = addresses(2);
    let weights = [1.0, 3.0];
    let listed = all.iter().zip(weights);
    writer.publish(listed.map(|(a, w)| instance(a).with_weight(w)), now());
    let field = Field::new(7);
    call(&field.balance(&orders), 2_000, 1).await;
    let called = field.called(&all[0]);
    assert!((400..=700).contains(&called), "{called} of 2,000");
}

/// Keeps the first call in flight beyond its response, as a stream does.
#[derive(Clone, Default)]
struct Stream(Arc<Mutex<Option<InFlight>>>, Arc<AtomicBool>);

impl TrackCompletion<InFlight, ()> for Stream {
    type Output = ();

    fn track_completion(&self, in_flight: InFlight, (): ()) {
        if !self.1.swap(true, SeqCst) {
            *self.0.lock().unwrap() = Some(in_flight);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn how_long_a_stream_lasts_is_not_how_slow_its_instance_is() {
    let (mut writer, orders) = registry();
    let all = addresses(3);
    list(&mut writer, &all);
    let (field, stream) = (Field::new(7), Stream::default());
    let answering = field.clone();
    let balance = Balance::builder(&orders)
        .policy(PeakEwma::new())
        .completion(stream.clone())
        .build(move |instance: &Instance| {
            let (address, field) = (instance.address().to_string(), answering.clone());
            tower::service_fn(move |(): ()| field.answer(&address))
        });
    balance.clone().oneshot(()).await.unwrap();
    let streamed = all.iter().find(|a| field.called(a) > 0).unwrap();
    sleep(Duration::from_secs(4)).await;
    drop(stream.0.lock().unwrap().take());
    for _ in 0..600 {
        balance.clone().oneshot(()).await.unwrap();
    }
    let called = field.called(streamed);
    assert!(called >= 100, "{called} of 600");
}

const USUAL: Duration = Duration::from_millis(5);

/// With answers that have a long tail.
mod long_tail {
    use std::{
        collections::HashMap,
        io,
        sync::{
            Arc, Mutex,
            atomic::{AtomicUsize, Ordering::SeqCst},
        },
        time::Duration,
    };

    use super::discover_support::{instance, now, registry};
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
}

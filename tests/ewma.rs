//! Peak EWMA gives instances that are alike the same, whoever came first, and still sheds those that
//! are slow or fail; a stream's life is no latency.

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
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
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
    endpoint::{InFlight, Recover, Recovered},
};

/// Instances that take so long to answer, one of them perhaps `slow` times as long; one may fail at
/// once instead.
#[derive(Clone)]
struct Field {
    calls: Arc<Mutex<HashMap<String, usize>>>,
    random: Arc<Mutex<StdRng>>,
    takes: Takes,
    slow: Arc<Mutex<Option<(String, u32)>>>,
    failing: Arc<Mutex<Option<String>>>,
}

#[derive(Clone, Copy)]
enum Takes {
    /// From the usual to twice that, one as likely as the other.
    Evenly,
    /// From half the usual on, with an exponential tail.
    LongTailed,
}

type Answer = futures_util::future::BoxFuture<'static, Result<(), io::Error>>;

impl Field {
    fn new(takes: Takes, seed: u64) -> Self {
        Self {
            calls: Arc::default(),
            random: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))),
            takes,
            slow: Arc::default(),
            failing: Arc::default(),
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
        let usual = {
            let mut random = self.random.lock().unwrap();
            match self.takes {
                Takes::Evenly => random.random_range(USUAL..2 * USUAL),
                Takes::LongTailed => USUAL.mul_f64(0.5 - 0.5 * (1.0 - random.random::<f64>()).ln()),
            }
        };
        let fails = self.failing.lock().unwrap().as_deref() == Some(address);
        let times = match &*self.slow.lock().unwrap() {
            Some((slow, times)) if slow == address => *times,
            _ => 1,
        };
        Box::pin(async move {
            if fails {
                return Err(io::Error::other("at once"));
            }
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
            let field = Field::new(Takes::Evenly, seed);
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
            let field = Field::new(Takes::Evenly, seed);
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
            let field = Field::new(Takes::Evenly, seed);
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

/// Answers that differ by more than the policy takes for noise are still those of equals.
#[tokio::test(start_paused = true)]
async fn of_equals_whose_answers_have_a_long_tail_each_has_half_a_share_at_least() {
    for (n, seed) in [(2, 1), (3, 2), (4, 3), (6, 4), (8, 5)] {
        for at_once in [1, 16] {
            let (mut writer, orders) = registry();
            let all = addresses(n + 1);
            let (newcomer, old) = all.split_last().unwrap();
            list(&mut writer, old);
            let field = Field::new(Takes::LongTailed, seed);
            let balance = field.balance(&orders);
            let calls = 10_000 * at_once.min(2);
            call(&balance, calls, at_once).await;
            for address in old {
                let called = field.called(address);
                assert!(
                    called * 2 * n >= calls,
                    "{at_once} at once, {called} by {n}"
                );
            }
            list(&mut writer, &all);
            call(&balance, 96, at_once).await;
            assert!(field.called(newcomer) > 0, "{at_once} at once, {n}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn failing_at_once_is_not_being_fast() {
    let (mut writer, orders) = registry();
    let all = addresses(3);
    list(&mut writer, &all);
    let field = Field::new(Takes::Evenly, 7);
    *field.failing.lock().unwrap() = Some(all[0].clone());
    let balance = field.balance(&orders);
    for _ in 0..300 {
        let _ = balance.clone().oneshot(()).await;
    }
    let failed = field.called(&all[0]);
    assert!((1..=4).contains(&failed), "{failed} of 300");
}

/// A request that comes back, since there was no room after all.
#[derive(Debug)]
struct NoRoom;

impl std::fmt::Display for NoRoom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no room")
    }
}

impl std::error::Error for NoRoom {}

#[derive(Clone, Copy)]
struct ComesBack;

impl Recover<(), NoRoom> for ComesBack {
    fn recover(&self, _: &mut NoRoom) -> Option<Recovered<()>> {
        Some(Recovered::Full(()))
    }
}

/// Who says so at once is neither fast nor a failure: an instance that was full has its share again when it
/// has room, and meanwhile no call fails.
#[tokio::test(start_paused = true)]
async fn an_instance_that_was_full_is_neither_fast_nor_slow_for_it() {
    for at_once in [1, 8] {
        let (mut writer, orders) = registry();
        let all = addresses(3);
        list(&mut writer, &all);
        let field = Field::new(Takes::Evenly, 7);
        let (full, found) = (
            Arc::new(AtomicBool::new(true)),
            Arc::new(AtomicUsize::new(0)),
        );
        let (answering, is_full, finds) = (field.clone(), Arc::clone(&full), Arc::clone(&found));
        let full_one = all[0].clone();
        let balance = Balance::builder(&orders)
            .policy(PeakEwma::new())
            .recover(ComesBack)
            .build(move |instance: &Instance| {
                let (address, field) = (instance.address().to_string(), answering.clone());
                let (full, found) = (Arc::clone(&is_full), Arc::clone(&finds));
                let may_be_full = address == full_one;
                tower::service_fn(move |(): ()| {
                    let answer = match may_be_full && full.load(SeqCst) {
                        true => {
                            found.fetch_add(1, SeqCst);
                            None
                        }
                        false => Some(field.answer(&address)),
                    };
                    async move {
                        match answer {
                            None => Err(NoRoom),
                            Some(answer) => answer.await.map_err(|_| NoRoom),
                        }
                    }
                })
            });
        let calls = |calls: usize| {
            let callers = (0..at_once)
                .map(|_| balance.clone())
                .map(|balance| async move {
                    for _ in 0..calls / at_once {
                        balance.clone().oneshot(()).await.unwrap();
                    }
                });
            join_all(callers)
        };
        calls(600).await;
        assert_eq!(field.called(&all[0]), 0);
        // One in three draws is of it; of calls at once the others have the load, so that it is whom two
        // in three draws come to, again and again. It would be one at a time as well if it seemed fast.
        let usual = [150..=450, 600..=1_800];
        let found = found.load(SeqCst);
        assert!(
            usual[usize::from(at_once > 1)].contains(&found),
            "{found} of 600, {at_once} at once"
        );
        full.store(false, SeqCst);
        calls(600).await;
        let called = field.called(&all[0]);
        assert!(
            (100..=300).contains(&called),
            "{called} of 600, {at_once} at once"
        );
        assert_eq!(balance.counters().ejections, 0);
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
    let field = Field::new(Takes::Evenly, 7);
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
    let (field, stream) = (Field::new(Takes::Evenly, 7), Stream::default());
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

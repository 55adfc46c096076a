//! New instances get their calls little by little.

#![allow(
    clippy::disallowed_methods,
    reason = "a test owns its clock and its tasks"
)]

mod discover_support;

use std::{
    future::Future,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use discover_support::{Book, Echo, instance, now, registry};
use tower::{Service, ServiceExt};
use tower_nacos::{
    Balance, Instance,
    balance::{Alias, Candidate, Loads, P2c, PickContext, Policy, Random, SlowStart},
    directory::{Subscription, Writer},
};

const A: &str = "10.0.0.1:80";
const B: &str = "10.0.0.2:80";
const C: &str = "10.0.0.3:80";
const D: &str = "10.0.0.4:80";

struct World {
    writer: Writer,
    orders: Subscription,
    book: Book,
    balance: Balance<Echo>,
}

impl World {
    fn new(first: &[&str], slow_start: SlowStart) -> Self {
        let (mut writer, orders) = registry();
        writer.publish(first.iter().map(|a| instance(a)), now());
        let book = Book::default();
        let balance = Balance::builder(&orders)
            .policy(P2c::new())
            .slow_start(slow_start)
            .build(book.maker());
        Self {
            writer,
            orders,
            book,
            balance,
        }
    }

    fn list(&mut self, addresses: &[&str]) {
        self.writer
            .publish(addresses.iter().map(|a| instance(a)), now());
    }

    async fn share(&mut self, of: &str) -> f64 {
        let before = self.book.called(of);
        for _ in 0..20_000 {
            self.balance.clone().oneshot(1).await.unwrap();
        }
        (self.book.called(of) - before) as f64 / 20_000.0
    }

    fn told(&self, of: &str) -> f64 {
        self.balance.explain(&of.parse().unwrap()).share
    }
}

/// What the formula says of one new instance among `old` others of the same weight.
fn formula(part: f64, old: f64) -> f64 {
    part / (part + old)
}

#[tokio::test(start_paused = true)]
async fn a_new_instance_rises_from_a_tenth_to_its_share_over_30_seconds() {
    let mut world = World::new(&[A, B, C], SlowStart::new());
    assert!(
        (world.share(A).await - 1.0 / 3.0).abs() < 0.02,
        "the first list is not new"
    );
    world.list(&[A, B, C, D]);
    let mut last = 0.0;
    for second in 0..32_u32 {
        let told = world.told(D);
        // It is as old as the last tick.
        let part = |age: f64| (age / 30.0).clamp(0.1, 1.0);
        let most = formula(part(f64::from(second)), 3.0);
        let least = formula(part(f64::from(second) - 1.1), 3.0);
        assert!(
            told <= most * 1.001 && told >= least * 0.999,
            "{second} s: {told}"
        );
        assert!(told >= last, "{second} s: it fell");
        last = told;
        if second % 10 == 5 {
            let share = world.share(D).await;
            assert!((share - told).abs() < 0.02, "{share} for {told}");
            let explained = world.balance.explain(&D.parse().unwrap());
            assert!(
                explained.warmth.is_some_and(|part| part < 1.0),
                "{explained}"
            );
            let text = explained.to_string();
            assert!(text.contains("warming up, at "), "{text}");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(last, 0.25);
    let explained = world.balance.explain(&D.parse().unwrap());
    assert_eq!(explained.warmth, None, "{explained}");
}

/// Also for the choice of two: what is compared is the calls for the weight of the moment.
#[tokio::test(start_paused = true)]
async fn under_load_a_new_instance_has_calls_in_flight_for_what_it_weighs_now() {
    Random::seed_thread(3);
    let (mut writer, orders) = registry();
    writer.publish([A, B].map(instance), now());
    let called = Arc::new(Mutex::new(0));
    let count = Arc::clone(&called);
    let balance = Balance::builder(&orders)
        .policy(P2c::new())
        .slow_start(SlowStart::new())
        .build(move |instance: &Instance| {
            let (is_new, count) = (instance.address().to_string() == C, Arc::clone(&count));
            tower::service_fn(move |(): ()| {
                *count.lock().unwrap() += usize::from(is_new);
                std::future::pending::<Result<(), std::io::Error>>()
            })
        });
    assert_eq!(balance.explain(&A.parse().unwrap()).share, 0.5); // nobody is new
    writer.publish([A, B, C].map(instance), now());
    let mut calls: Vec<_> = (0..1_000)
        .map(|_| Box::pin(balance.clone().oneshot(())))
        .collect();
    for call in &mut calls {
        let mut cx = discover_support::idle_context();
        assert!(call.as_mut().poll(&mut cx).is_pending());
    }
    // A tenth of what the two weigh each; by the number of calls alone it would be twice as many.
    let called = *called.lock().unwrap();
    assert!((35..=60).contains(&called), "{called} of 1,000");
}

#[tokio::test(start_paused = true)]
async fn when_more_than_half_are_new_none_is_spared_and_none_falls_back() {
    let mut world = World::new(&[A], SlowStart::new());
    world.list(&[A, B, C]);
    for address in [A, B, C] {
        assert!((world.told(address) - 1.0 / 3.0).abs() < 1e-9, "{address}");
    }
    world.list(&[A, B, C, D]);
    assert!(
        (world.told(B) - formula(1.0, 2.1)).abs() < 1e-3,
        "it stays warm"
    );
    assert!((world.told(D) - formula(0.1, 3.0)).abs() < 1e-3);
}

#[tokio::test(start_paused = true)]
async fn what_comes_back_as_the_same_start_is_not_new_and_another_start_is() {
    let mut world = World::new(&[A, B, C], SlowStart::new());
    assert_eq!(world.told(C), 1.0 / 3.0);
    // Drained and put back: it was there all the time.
    let drained = [instance(A), instance(B), instance(C).with_weight(0.0)];
    world.writer.publish(drained, now());
    tokio::task::yield_now().await;
    assert_eq!(world.told(C), 0.0);
    world.list(&[A, B, C]);
    assert_eq!(world.told(C), 1.0 / 3.0);
    // Gone and back.
    world.list(&[A, B]);
    assert_eq!(world.told(C), 0.0);
    world.list(&[A, B, C]);
    assert!((world.told(C) - formula(0.1, 2.0)).abs() < 1e-3);
}

fn started(address: &str, ago: Duration) -> Instance {
    let since: Duration = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let start = since.checked_sub(ago).unwrap().as_millis().to_string();
    instance(address).with_metadata([("timestamp", start)].into_iter().collect())
}

#[tokio::test(start_paused = true)]
async fn a_start_time_in_the_metadata_counts_also_in_the_first_list() {
    let hours = Duration::from_secs(10_000);
    let list = [
        started(A, hours),
        started(B, hours),
        started(C, Duration::from_secs(3)),
    ];
    let (mut writer, orders) = registry();
    writer.publish(list.clone(), now());
    let of = |slow_start: SlowStart, address: &str| {
        let balance = Balance::builder(&orders)
            .slow_start(slow_start)
            .build(Book::default().maker());
        balance.explain(&address.parse().unwrap()).share
    };
    let young = of(SlowStart::new(), C);
    assert!(young < formula(0.3, 2.0), "{young}");
    assert_eq!(of(SlowStart::new().ignore_start_time(), C), 1.0 / 3.0);
    // A start in the future is a clock that is wrong.
    let ahead = instance(C).with_metadata([("timestamp", "4000000000000")].into_iter().collect());
    writer.publish([list[0].clone(), list[1].clone(), ahead], now());
    assert_eq!(of(SlowStart::new(), C), 1.0 / 3.0);
}

#[tokio::test(start_paused = true)]
async fn an_old_process_that_is_seen_for_the_first_time_is_not_new() {
    let mut world = World::new(&[A, B], SlowStart::new());
    assert_eq!(world.told(A), 0.5);
    let list = [
        instance(A),
        instance(B),
        started(C, Duration::from_secs(5_000)),
    ];
    world.writer.publish(list, now());
    assert!((world.told(C) - 1.0 / 3.0).abs() < 1e-9);
    assert_eq!(
        world.orders.applied_revision(),
        world.orders.snapshot().revision()
    );
}

/// Notes the weights that its last table was made of.
#[derive(Clone, Default)]
struct Noted(Arc<Mutex<Vec<f64>>>);

impl Policy for Noted {
    type Table = Alias;

    fn build(&self, candidates: &[Candidate]) -> Alias {
        *self.0.lock().unwrap() = candidates.iter().map(Candidate::weight).collect();
        Alias::new(candidates)
    }

    fn pick(
        &self,
        table: &Alias,
        _: &dyn Loads,
        random: &mut Random,
        _: &PickContext,
    ) -> Option<usize> {
        table.draw(random)
    }
}

#[test]
fn without_a_runtime_it_warms_up_as_calls_pass() {
    let (mut writer, orders) = registry();
    writer.publish([A, B].map(instance), now());
    let noted = Noted::default();
    let mut balance = Balance::builder(&orders)
        .policy(noted.clone())
        .slow_start(SlowStart::new().window(Duration::from_millis(300)))
        .build(Book::default().maker());
    let mut call = || {
        let mut context = discover_support::idle_context();
        let mut future = std::pin::pin!(balance.call(1));
        assert!(future.as_mut().poll(&mut context).is_ready());
    };
    call();
    writer.publish([A, B, C].map(instance), now());
    call();
    let weights = || noted.0.lock().unwrap().clone();
    assert_eq!(weights(), [1.0, 1.0, 0.1]);
    let until = now() + Duration::from_secs(20);
    while weights() != [1.0; 3] {
        call();
        assert!(now() < until, "it never gets warm");
        std::thread::yield_now();
    }
}

#[test]
fn the_curve_is_envoys() {
    let part = |slow: SlowStart, s: f64| slow.part(Duration::from_secs_f64(s));
    let line = SlowStart::new();
    assert_eq!(part(line, 0.0), 0.1);
    assert!((part(line, 15.0) - 0.5).abs() < 1e-9);
    assert_eq!(part(line, 30.0), 1.0);
    let early = line.aggression(2.0);
    assert!((part(early, 7.5) - 0.5).abs() < 1e-9);
    let odd = line
        .window(Duration::ZERO)
        .minimum(f64::NAN)
        .aggression(-3.0);
    assert_eq!(part(odd, 0.0), 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_start_time_that_makes_no_sense_is_passed_by() {
    let ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now_ms = ms.as_millis().to_string();
    let weight_of = async |told: &[(&str, &str)]| {
        let (mut writer, orders) = registry();
        let metadata = told.iter().copied().collect();
        let young = instance(C).with_metadata(metadata);
        writer.publish([instance(A), instance(B), young], now());
        let noted = Noted::default();
        let mut balance = Balance::builder(&orders)
            .policy(noted.clone())
            .slow_start(SlowStart::new())
            .build(Book::default().maker());
        balance.call(1).await.unwrap();
        noted.0.lock().unwrap()[2]
    };
    for nonsense in [
        "0",
        "-1",
        "soon",
        "",
        "99999999999999999999",
        "1e12",
        "9999999999999",
    ] {
        assert_eq!(
            weight_of(&[("timestamp", nonsense)]).await,
            1.0,
            "{nonsense}"
        );
        let both = [("timestamp", nonsense), ("startTime", &*now_ms)];
        let other = weight_of(&both).await;
        // A time in the future is one that is told, and not believed.
        let expected = if nonsense.len() == 13 { 1.0 } else { 0.1 };
        assert!((other - expected).abs() < 0.05, "{nonsense}: {other}");
    }
}

//! Ejection for how many of an instance's calls go badly, beside how many in a row; panic; and slow
//! start after an ejection. In virtual time.

#![allow(
    clippy::disallowed_methods,
    reason = "a test owns its clock and its tasks"
)]

mod discover_support;

use std::{
    collections::HashMap,
    future::ready,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use discover_support::{instance, logs::Logs, now, registry};
use tower::{ServiceExt, load::CompleteOnResponse, service_fn, util::BoxCloneSyncService};
use tower_nacos::{
    Balance, Instance,
    balance::{
        BalanceBuilder, BalanceExplanation, FailurePercentage, Outliers, Panic, Pickable, Random,
        SlowStart, SuccessRate, WeightedRoundRobin,
    },
    directory::{Subscription, Writer},
    endpoint::{HealthCheck, NeverRecover, Outcome, Verdict, WithOutcomes},
};

const A: &str = "10.0.0.1:80";
const B: &str = "10.0.0.2:80";
const C: &str = "10.0.0.3:80";
const D: &str = "10.0.0.4:80";
const E: &str = "10.0.0.5:80";
const FIVE: [&str; 5] = [A, B, C, D, E];

/// What instances do: the part of each one's calls that it fails, and who cannot be reached.
#[derive(Clone)]
struct World(Arc<Mutex<State>>);

struct State {
    failing: HashMap<String, f64>,
    refusing: Vec<String>,
    called: HashMap<String, usize>,
    random: Random,
}

/// What a request does to whoever gets it.
#[derive(Clone, Copy, PartialEq)]
enum Request {
    Good,
    /// The server fails for what is in it, and says so as if it were its own fault.
    Poison,
    /// The same, and it says whose fault it is.
    Wrong,
}

type Boxed = BoxCloneSyncService<Request, u16, io::Error>;
type Rules = fn(Result<&u16, &io::Error>) -> Outcome;
type Judge = WithOutcomes<fn(&io::Error) -> Verdict, Rules>;
type Judged = Balance<Boxed, WeightedRoundRobin, NeverRecover, CompleteOnResponse, Judge>;
type Building = BalanceBuilder<WeightedRoundRobin, NeverRecover, CompleteOnResponse, Judge>;

impl World {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            failing: HashMap::new(),
            refusing: Vec::new(),
            called: HashMap::new(),
            random: Random::seeded(7),
        })))
    }

    fn fails(&self, address: &str, part: f64) {
        let mut state = self.0.lock().unwrap();
        state.failing.insert(address.to_owned(), part);
    }

    fn refuses(&self, addresses: &[&str]) {
        self.0.lock().unwrap().refusing = addresses.iter().map(|a| (*a).to_owned()).collect();
    }

    fn called(&self, address: &str) -> usize {
        let state = self.0.lock().unwrap();
        state.called.get(address).copied().unwrap_or(0)
    }

    fn answer(&self, address: &str, request: Request) -> io::Result<u16> {
        let mut state = self.0.lock().unwrap();
        *state.called.entry(address.to_owned()).or_default() += 1;
        if state.refusing.iter().any(|a| a == address) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let part = state.failing.get(address).copied().unwrap_or(0.0);
        Ok(match request {
            Request::Good if state.random.unit() < part => 500,
            Request::Good => 200,
            Request::Poison => 500,
            Request::Wrong => 400,
        })
    }

    fn balance(&self, orders: &Subscription, outliers: Outliers) -> Judged {
        self.build(orders, outliers, None)
    }

    fn build(&self, orders: &Subscription, outliers: Outliers, slow: Option<SlowStart>) -> Judged {
        self.build_with(orders, outliers, |builder| match slow {
            Some(slow) => builder.slow_start(slow),
            None => builder,
        })
    }

    fn build_with(
        &self,
        orders: &Subscription,
        outliers: Outliers,
        set: impl FnOnce(Building) -> Building,
    ) -> Judged {
        let world = self.clone();
        let classify: fn(&io::Error) -> Verdict = |error| Verdict::unreachable(error);
        let judge: Rules = |result| match result {
            Ok(500..) | Err(_) => Outcome::Failure,
            Ok(400..) => Outcome::Ignored,
            Ok(_) => Outcome::Success,
        };
        let builder = Balance::builder(orders)
            .policy(WeightedRoundRobin::seeded(1))
            .classify(classify)
            .outliers(outliers, judge);
        set(builder).build(move |instance: &Instance| {
            let (address, world) = (instance.address().to_string(), world.clone());
            Boxed::new(service_fn(move |r| ready(world.answer(&address, r))))
        })
    }
}

fn list(addresses: &[&str]) -> (Writer, Subscription) {
    let (mut writer, orders) = registry();
    writer.publish(addresses.iter().map(|a| instance(a)), now());
    (writer, orders)
}

/// So many calls a second for so many seconds; how many of them went well.
async fn load(
    balance: &Judged,
    seconds: u64,
    a_second: u32,
    request: impl Fn(u32) -> Request,
) -> u32 {
    let mut good = 0;
    for at in 0..seconds as u32 * a_second {
        let answer = balance.clone().oneshot(request(at)).await;
        good += u32::from(answer.is_ok_and(|status| status == 200));
        tokio::time::sleep(Duration::from_secs(1) / a_second).await;
    }
    good
}

async fn good_calls(balance: &Judged, seconds: u64) -> u32 {
    load(balance, seconds, 100, |_| Request::Good).await
}

fn explain(balance: &Judged, address: &str) -> BalanceExplanation {
    balance.explain(&address.parse().unwrap())
}

fn outliers<'a>(balance: &Judged, of: &[&'a str]) -> Vec<&'a str> {
    let is_out = |address: &&&str| {
        let verdict = explain(balance, address).verdict;
        matches!(verdict, Pickable::Outlier { .. })
    };
    of.iter().filter(is_out).copied().collect()
}

#[tokio::test(start_paused = true)]
async fn who_does_worse_than_the_others_is_ejected_by_its_success_rate() {
    let (logs, _guard) = Logs::begin();
    let (_writer, orders) = list(&FIVE);
    let world = World::new();
    let rules = Outliers::new().consecutive(0);
    let named = world.balance(&orders, rules.success_rate(SuccessRate::new()));
    let unnamed = world.balance(&orders, rules);
    for address in FIVE {
        world.fails(address, 0.01);
    }
    world.fails(C, 0.4);
    // 20 calls a second each: 100 in the first 5 s, and nothing happens before 10.
    load(&named, 9, 100, |_| Request::Good).await;
    assert!(outliers(&named, &FIVE).is_empty());
    good_calls(&named, 2).await;
    assert_eq!(outliers(&named, &FIVE), [C]);
    assert_eq!(named.counters().outlier_ejections, 1);
    let lines = logs.lines("an instance is ejected for its answers");
    assert_eq!(lines.len(), 1);
    assert!(
        lines[0].contains("of its calls went well, which is below"),
        "{lines:?}"
    );
    let before = world.called(C);
    good_calls(&named, 10).await;
    assert_eq!(world.called(C), before, "it gets no call");
    good_calls(&unnamed, 15).await;
    assert!(outliers(&unnamed, &FIVE).is_empty(), "off unless named");
}

#[tokio::test(start_paused = true)]
async fn one_bad_of_three_is_found_by_its_failure_percentage() {
    let (_writer, orders) = list(&[A, B, C]);
    let world = World::new();
    world.fails(B, 0.9);
    // A good call in ten keeps it from five bad ones in a row often enough for this to be switched off.
    let of_three = FailurePercentage::new().instances(3);
    let rules = Outliers::new().consecutive(0);
    let by_percentage = world.balance(&orders, rules.failure_percentage(of_three));
    let by_rate = world.balance(&orders, rules.success_rate(SuccessRate::new().instances(3)));
    for balance in [&by_percentage, &by_rate] {
        good_calls(balance, 11).await;
    }
    assert_eq!(outliers(&by_percentage, &[A, B, C]), [B]);
    // Of three none is 1.9 deviations below the mean.
    assert!(outliers(&by_rate, &[A, B, C]).is_empty());
    // It is back once its one call goes well, and what it did before is forgotten.
    world.fails(B, 0.0);
    good_calls(&by_percentage, 45).await;
    assert!(outliers(&by_percentage, &[A, B, C]).is_empty());
}

/// The other end: the instances are well, and some requests are not.
#[tokio::test(start_paused = true)]
async fn good_instances_are_not_ejected_for_what_requests_do() {
    let (_writer, orders) = list(&FIVE);
    let world = World::new();
    let rates = Outliers::new()
        .success_rate(SuccessRate::new())
        .failure_percentage(FailurePercentage::new());
    let mut random = Random::seeded(3);
    // Of a third that is bad five in a row come once in 250 calls: where requests go so badly the first
    // rule is the wrong one.
    let cases = [(200, rates), (20, rates), (3, rates.consecutive(0))];
    for (chance, rules) in cases {
        let balance = world.balance(&orders, rules);
        let some: Vec<bool> = (0..6_000).map(|_| random.below(chance) == 0).collect();
        load(&balance, 60, 100, |at| match some[at as usize] {
            true => Request::Poison,
            false => Request::Good,
        })
        .await;
        let counters = balance.counters();
        assert_eq!(counters.outlier_ejections, 0, "1 in {chance}: {counters:?}");
    }
    let balance = world.balance(&orders, rates);
    // What says that the request is wrong counts nowhere, whoever gets it.
    load(&balance, 60, 100, |at| match at % 5 {
        2 => Request::Wrong,
        _ => Request::Good,
    })
    .await;
    assert_eq!(balance.counters().outlier_ejections, 0);
}

#[tokio::test(start_paused = true)]
async fn no_more_than_half_are_ejected_by_rates_and_all_bad_is_nobodys_fault() {
    let (_writer, orders) = list(&FIVE);
    let world = World::new();
    let rules = Outliers::new().consecutive(0);
    let balance = world.balance(&orders, rules.failure_percentage(FailurePercentage::new()));
    for address in FIVE {
        world.fails(address, 1.0);
    }
    load(&balance, 30, 100, |_| Request::Good).await;
    assert_eq!(outliers(&balance, &FIVE).len(), 2, "half of five");
    assert_eq!(balance.counters().panics, 0);
}

/// What health checks refuse and who was ejected are let in by different hands.
#[tokio::test(start_paused = true)]
async fn one_panic_counts_once_and_the_next_one_again() {
    let ill = Arc::new(Mutex::new(Vec::<&str>::new()));
    let asked = Arc::clone(&ill);
    let check = HealthCheck::custom(move |instance: Instance| {
        let address = instance.address().to_string();
        let ill = asked.lock().unwrap().contains(&&*address);
        ready(if ill { Err("ill") } else { Ok(()) })
    });
    let check = check
        .interval(Duration::from_secs(1))
        .interval_jitter(0.0)
        .unhealthy_threshold(1);
    let (_writer, orders) = list(&FIVE);
    let world = World::new();
    let balance = world.build_with(&orders, Outliers::new(), |builder| {
        builder.health_check(check)
    });
    let set_ill = async |addresses: &[&'static str]| {
        *ill.lock().unwrap() = addresses.to_vec();
        tokio::time::sleep(Duration::from_millis(1_500)).await;
    };
    world.fails(A, 1.0);
    good_calls(&balance, 1).await;
    assert_eq!(outliers(&balance, &FIVE), [A]);
    assert_eq!(balance.counters().panics, 0);
    // With the outlier these make four of five, and three of five without it.
    set_ill(&[B, C, D]).await;
    good_calls(&balance, 30).await;
    assert_eq!(outliers(&balance, &FIVE), [""; 0], "let in for that");
    assert_eq!(balance.counters().panics, 1);
    world.fails(A, 0.0);
    set_ill(&[]).await;
    good_calls(&balance, 1).await;
    assert_eq!(balance.counters().panics, 1);
    set_ill(&[B, C, D]).await;
    assert_eq!(balance.counters().panics, 2, "another one");
}

#[tokio::test(start_paused = true)]
async fn panic_lifts_ejections_for_answers_and_is_told() {
    let (logs, _guard) = Logs::begin();
    let (_writer, orders) = list(&FIVE);
    let world = World::new();
    let balance = world.balance(&orders, Outliers::new());
    world.fails(A, 1.0);
    world.fails(B, 1.0);
    good_calls(&balance, 1).await;
    assert_eq!(outliers(&balance, &FIVE), [A, B]);
    assert_eq!(
        (balance.counters().panics, explain(&balance, A).panic),
        (0, None)
    );
    // A third that cannot be reached makes three of five: the two are called again, it is not.
    world.refuses(&[C]);
    let _ = load(&balance, 1, 3, |_| Request::Good).await;
    assert_eq!(balance.counters().panics, 1);
    let lifted = balance.counters();
    assert_eq!(lifted.restorations, 2, "{lifted:?}");
    let lines = logs.lines("panic: so many instances are out");
    assert_eq!(lines.len(), 1, "{lines:?}");
    for part in [
        "WARN",
        "out=3",
        "callable=5",
        "lifted=2",
        "service=\"orders\"",
    ] {
        assert!(lines[0].contains(part), "{part}: {}", lines[0]);
    }
    assert!(matches!(
        explain(&balance, C).verdict,
        Pickable::Ejected { .. }
    ));
    // Three that cannot be reached are panic for as long as they are: whoever answers is called.
    world.refuses(&[C, D, E]);
    good_calls(&balance, 2).await;
    let explained = explain(&balance, A);
    assert!(matches!(
        explained.panic,
        Some(Panic {
            out: 3,
            callable: 5,
            ..
        })
    ));
    let text = explained.to_string();
    assert!(
        text.contains("panic: 3 of 5 are out, so nobody is ejected for answers"),
        "{text}"
    );
    let before = (world.called(A), world.called(B), world.called(C));
    good_calls(&balance, 2).await;
    assert!(world.called(A) > before.0 + 50 && world.called(B) > before.1 + 50);
    assert!(world.called(C) < before.2 + 10, "only its probes");
    assert!(outliers(&balance, &FIVE).is_empty());
    world.refuses(&[]);
    good_calls(&balance, 60).await;
    assert_eq!(explain(&balance, A).panic, None);
    assert_eq!(
        outliers(&balance, &FIVE),
        [A, B],
        "and then they are ejected again"
    );
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_is_back_after_an_ejection_gets_its_calls_little_by_little() {
    let (_writer, orders) = list(&FIVE);
    let world = World::new();
    let slow = SlowStart::new();
    let at_once = world.build(&orders, Outliers::new(), Some(slow));
    let slowly = world.build(&orders, Outliers::new(), Some(slow.after_ejection()));
    for balance in [&at_once, &slowly] {
        world.fails(B, 1.0);
        good_calls(balance, 1).await;
        assert_eq!(outliers(balance, &FIVE), [B]);
        world.fails(B, 0.0);
        tokio::time::sleep(Duration::from_secs(31)).await;
        good_calls(balance, 1).await; // the probe
        assert!(outliers(balance, &FIVE).is_empty());
    }
    // The one that is not told to is back for 33 s, the other for 1.
    assert_eq!(explain(&at_once, B).warmth, None);
    let mut last = 0.0;
    for _ in 0..3 {
        let part = explain(&slowly, B).warmth.expect("it is new once more");
        assert!(part > last, "{part} after {last}");
        let before = world.called(B);
        good_calls(&slowly, 5).await;
        let share = (world.called(B) - before) as f64 / 500.0;
        let expected = part / (part + 4.0);
        assert!((share - expected).abs() < 0.04, "{share} for {expected}");
        last = part;
    }
    good_calls(&slowly, 20).await;
    assert_eq!(explain(&slowly, B).warmth, None, "30 s after");
}

#[tokio::test(start_paused = true)]
async fn what_a_picker_is_told_counts() {
    let (_writer, orders) = list(&FIVE);
    let world = World::new();
    world.fails(C, 0.5);
    let picker = Balance::builder(&orders)
        .policy(WeightedRoundRobin::seeded(1))
        .eject_outliers(
            Outliers::new()
                .consecutive(0)
                .success_rate(SuccessRate::new()),
        )
        .picker();
    for _ in 0..1_200 {
        let mut lease = picker.try_pick().unwrap();
        let address = lease.address().to_string();
        match world.answer(&address, Request::Good) {
            Ok(200) => lease.succeeded(),
            _ => lease.failed(Verdict::Reachable),
        }
        drop(lease);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let out = picker.explain(&C.parse().unwrap()).verdict;
    assert!(matches!(out, Pickable::Outlier { .. }), "{out:?}");
}

/// Over HTTP our transport judges: 500 counts against the instance, and 404 against nobody.
#[tokio::test]
async fn over_http_statuses_of_500_and_above_make_the_rate() {
    use axum::http::{StatusCode, Uri};
    use tokio::{net::TcpListener, time::timeout};
    use tower_nacos::{
        http::BuildHttp,
        transport::{Body, Transport},
    };

    let mut addresses = Vec::new();
    for bad in [false, true, false] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        addresses.push(listener.local_addr().unwrap());
        let count = Arc::new(Mutex::new(0_u32));
        // Two of three, and never five in a row.
        let answer = async move |uri: Uri| {
            let mut count = count.lock().unwrap();
            *count += 1;
            match (uri.path(), bad && !count.is_multiple_of(3)) {
                ("/missing", _) => StatusCode::NOT_FOUND,
                (_, true) => StatusCode::INTERNAL_SERVER_ERROR,
                (_, false) => StatusCode::OK,
            }
        };
        let app = axum::Router::new().fallback(answer);
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    }
    let instances: Vec<_> = addresses.iter().map(|a| Instance::from(*a)).collect();
    let orders = Subscription::fixed(instances);
    let rule = FailurePercentage::new()
        .threshold(0.5)
        .instances(3)
        .calls(10);
    let balance = Balance::builder(&orders)
        .policy(WeightedRoundRobin::seeded(1))
        .eject_outliers(
            Outliers::new()
                .interval(Duration::from_millis(100))
                .failure_percentage(rule),
        )
        .build_http(Transport::builder().build());
    let call = async |path: &'static str| {
        let request = http::Request::get(path).body(Body::empty()).unwrap();
        balance.clone().oneshot(request).await.unwrap().status()
    };
    // Over intervals that are judged, and not the first alone.
    let begun = tokio::time::Instant::now();
    while begun.elapsed() < Duration::from_millis(500) {
        assert_eq!(call("/missing").await, 404);
    }
    assert_eq!(balance.counters().ejections, 0);
    let found = timeout(Duration::from_secs(60), async {
        while balance.counters().outlier_ejections == 0 {
            call("/").await;
        }
    });
    found.await.expect("it is never found");
    for (at, address) in addresses.iter().enumerate() {
        let address = address.to_string().parse().unwrap();
        let verdict = balance.explain(&address).verdict;
        assert_eq!(
            matches!(verdict, Pickable::Outlier { .. }),
            at == 1,
            "{verdict:?}"
        );
    }
    for _ in 0..100 {
        assert_eq!(call("/").await, 200);
    }
}

//! The machine by itself, and checks that run, in virtual time.

use std::{
    collections::HashMap,
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{
    config::HealthCheck,
    machine::{CheckRules, Machine},
    question::Failure,
    running::{Held, Registry},
};
use crate::{
    endpoint::{clock, hub::Hub},
    model::{Instance, ServiceKey},
    sync::Bell,
};

fn machine(rules: CheckRules) -> (Machine, Instant) {
    let now = clock::now();
    (Machine::new(rules, now, 0.0), now)
}

/// What each answer made of it: `+` passed, `!` said no, `-` was silent; refused or not.
fn after(rules: CheckRules, answers: &str) -> Vec<bool> {
    let (mut machine, now) = machine(rules);
    let refused = answers.chars().map(|answer| {
        let ended = match answer {
            '+' => Ok(()),
            '!' => Err(Failure::said("no")),
            _ => Err(Failure::silent("late")),
        };
        let was = machine.refused().cloned();
        let news = machine.ended(ended, now, 0.5);
        assert_eq!(news, was.as_ref() != machine.refused(), "{answers}");
        machine.refused().is_some()
    });
    refused.collect()
}

#[tokio::test(start_paused = true)]
async fn thresholds_count_in_a_row_and_an_answer_that_says_no_is_enough() {
    let rules = |unhealthy, healthy| CheckRules {
        unhealthy,
        healthy,
        ..CheckRules::new()
    };
    let (f, t) = (false, true);
    for (unhealthy, healthy, answers, refused) in [
        (3, 1, "---", vec![f, f, t]),
        (3, 1, "--+---", vec![f, f, f, f, f, t]),
        (3, 1, "!", vec![t]),
        (3, 1, "!+", vec![t, f]),
        (3, 1, "---+--", vec![f, f, t, f, f, f]),
        (1, 3, "-++-+++", vec![t, t, t, t, t, t, f]),
        (1, 2, "!+!++", vec![t, t, t, t, f]),
        (3, 1, "++++", vec![f; 4]),
    ] {
        assert_eq!(
            after(rules(unhealthy, healthy), answers),
            refused,
            "{answers}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn another_reason_is_news_and_the_same_is_not() {
    let (mut machine, now) = machine(CheckRules::new());
    assert!(machine.ended(Err(Failure::said("503")), now, 0.0));
    assert!(!machine.ended(Err(Failure::said("503")), now, 0.0));
    assert!(machine.ended(Err(Failure::silent("late")), now, 0.0));
    assert_eq!(machine.refused().map(|r| &**r), Some("late"));
}

#[tokio::test(start_paused = true)]
async fn the_next_check_is_due_an_interval_after_the_end_and_at_most_the_jitter_later() {
    let rules = CheckRules {
        interval: Duration::from_secs(10),
        jitter: 0.2,
        ..CheckRules::new()
    };
    let now = clock::now();
    for (random, first, next) in [(0.0, 0, 10_000), (0.5, 1_000, 11_000), (1.0, 2_000, 12_000)] {
        let mut machine = Machine::new(rules, now, random);
        assert_eq!(machine.due() - now, Duration::from_millis(first));
        let ended = now + Duration::from_secs(100);
        machine.ended(Ok(()), ended, random);
        assert_eq!(machine.due() - ended, Duration::from_millis(next));
    }
}

#[test]
fn what_no_check_can_be_told_is_brought_into_what_it_can() {
    let check = || HealthCheck::custom(async |_: Instance| Ok::<_, String>(()));
    let day = Duration::from_secs(24 * 3_600);
    let wild = check()
        .interval(Duration::ZERO)
        .timeout(Duration::ZERO)
        .interval_jitter(f64::NAN)
        .healthy_threshold(0)
        .unhealthy_threshold(0);
    assert_eq!(wild.rules.interval, Duration::from_millis(100));
    assert_eq!(wild.rules.timeout, Duration::from_millis(1));
    assert_eq!((wild.rules.healthy, wild.rules.unhealthy), (1, 1));
    assert_eq!(wild.rules.jitter, 0.1);
    let wild = check()
        .interval(Duration::MAX)
        .timeout(day)
        .interval_jitter(f64::INFINITY);
    assert_eq!(wild.rules.interval, Duration::from_secs(3_600));
    assert_eq!(wild.rules.timeout, Duration::from_secs(3_600));
    assert_eq!(wild.rules.jitter, 1.0);
    // No instant is too late to be told.
    Machine::new(wild.rules, clock::now(), f64::MAX);
}

/// A process of its own, in which instances are asked.
struct World {
    registry: Arc<Registry>,
    key: ServiceKey,
    hub: Arc<Hub>,
    held: HashMap<String, Vec<Held>>,
}

/// What checks did.
#[derive(Default)]
struct Seen {
    at: Mutex<Vec<(String, Duration)>>,
    now: AtomicUsize,
    most: AtomicUsize,
}

struct Inside(Arc<Seen>);

impl Seen {
    fn enter(self: &Arc<Self>, instance: &Instance, begun: Instant) -> Inside {
        let at = (instance.address().to_string(), begun.elapsed());
        self.at.lock().unwrap().push(at);
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        Inside(Arc::clone(self))
    }

    fn count(&self) -> usize {
        self.at.lock().unwrap().len()
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

impl World {
    fn new(at_once: usize) -> Self {
        Self {
            registry: Registry::new(at_once),
            key: ServiceKey::new("", "orders".parse().unwrap()).unwrap(),
            hub: Arc::new(Hub::new(Arc::new(Bell::below([])))),
            held: HashMap::new(),
        }
    }

    fn hold(&mut self, check: &HealthCheck, address: &str) {
        let instance = Arc::new(Instance::parse(address).unwrap());
        let held = self.registry.hold(check, &self.key, &instance, &self.hub);
        self.held.entry(address.to_owned()).or_default().push(held);
    }

    fn refused(&self, address: &str) -> Option<String> {
        Some(self.held[address][0].refused()?.to_string())
    }
}

const A: &str = "10.0.0.1:80";

/// Asks each 10 s, without jitter, what `answer` makes of the count of checks so far.
fn each_10_s(
    seen: &Arc<Seen>,
    answer: impl Fn(usize) -> Result<(), &'static str> + Send + Sync + 'static,
) -> HealthCheck {
    let (seen, begun, answer) = (Arc::clone(seen), clock::now(), Arc::new(answer));
    HealthCheck::custom(move |instance: Instance| {
        let (inside, answer) = (seen.enter(&instance, begun), Arc::clone(&answer));
        let asked = seen.count();
        async move {
            let _inside = inside;
            answer(asked)
        }
    })
    .interval(Duration::from_secs(10))
    .interval_jitter(0.0)
}

#[tokio::test(start_paused = true)]
async fn an_instance_is_asked_at_once_and_then_after_each_interval() {
    let (mut world, seen) = (World::new(64), Arc::default());
    world.hold(&each_10_s(&seen, |_| Ok(())), A);
    sleep(Duration::from_secs(25)).await;
    let at: Vec<_> = seen
        .at
        .lock()
        .unwrap()
        .iter()
        .map(|(_, at)| at.as_secs())
        .collect();
    assert_eq!(at, [0, 10, 20]);
    assert_eq!(world.refused(A), None);
}

#[tokio::test(start_paused = true)]
async fn a_check_that_fails_three_times_refuses_and_one_that_passes_lets_in() {
    let (mut world, seen) = (World::new(64), Arc::default());
    let check = each_10_s(&seen, |asked| {
        if asked <= 3 {
            Err("no database")
        } else {
            Ok(())
        }
    });
    world.hold(&check, A);
    sleep(Duration::from_secs(15)).await;
    assert_eq!((seen.count(), world.refused(A)), (2, None));
    assert!(!world.hub.checked.load(Ordering::Relaxed), "nothing is new");
    sleep(Duration::from_secs(10)).await;
    assert_eq!(world.refused(A).as_deref(), Some("no database"));
    assert!(
        world.hub.checked.swap(false, Ordering::Relaxed),
        "who holds it is told"
    );
    sleep(Duration::from_secs(10)).await;
    assert_eq!(world.refused(A), None);
    assert!(world.hub.checked.load(Ordering::Relaxed));
}

#[tokio::test(start_paused = true)]
async fn all_who_want_the_same_share_one_check_and_the_last_to_go_ends_it() {
    let (mut world, seen) = (World::new(64), Arc::default());
    let check = each_10_s(&seen, |_| Ok(()));
    for _ in 0..3 {
        world.hold(&check.clone(), A);
    }
    assert_eq!(world.registry.len(), 1);
    sleep(Duration::from_secs(25)).await;
    assert_eq!(seen.count(), 3);
    world.hold(&check.clone().interval(Duration::from_secs(7)), A);
    assert_eq!(world.registry.len(), 2, "other options are another check");
    let _ = world.held.get_mut(A).unwrap().pop();
    assert_eq!(world.registry.len(), 1);
    let _ = world.held.get_mut(A).unwrap().pop();
    sleep(Duration::from_secs(10)).await;
    assert_eq!(seen.count(), 4, "one that goes ends nothing for the others");
    world.held.clear();
    sleep(Duration::from_secs(100)).await;
    assert_eq!((seen.count(), world.registry.len()), (4, 0));
}

#[tokio::test(start_paused = true)]
async fn one_check_of_two_services_is_two() {
    let (mut world, seen) = (World::new(64), Arc::default());
    let check = each_10_s(&seen, |_| Ok(()));
    world.hold(&check, A);
    world.key = ServiceKey::new("", "billing".parse().unwrap()).unwrap();
    world.hold(&check, A);
    assert_eq!(world.registry.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_begins_together_does_not_ask_together() {
    let (mut world, seen) = (World::new(64), Arc::new(Seen::default()));
    let check = each_10_s(&seen, |_| Ok(())).interval_jitter(1.0);
    for host in 1..=40 {
        world.hold(&check, &format!("10.0.0.{host}:80"));
    }
    sleep(Duration::from_secs(9)).await;
    let at = seen.at.lock().unwrap();
    let seconds: std::collections::HashSet<_> = at.iter().map(|(_, at)| at.as_secs()).collect();
    assert!(seconds.len() >= 4, "{at:?}");
}

#[tokio::test(start_paused = true)]
async fn a_check_that_is_dropped_leaves_nothing_under_way() {
    let (mut world, seen) = (World::new(64), Arc::new(Seen::default()));
    let (inner, begun) = (Arc::clone(&seen), clock::now());
    let hangs = HealthCheck::custom(move |instance: Instance| {
        let inside = inner.enter(&instance, begun);
        async move {
            let _inside = inside;
            pending::<Result<(), String>>().await
        }
    });
    world.hold(&hangs.interval_jitter(0.0), A);
    sleep(Duration::from_millis(500)).await;
    assert_eq!(seen.now.load(Ordering::SeqCst), 1);
    world.held.clear();
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        seen.now.load(Ordering::SeqCst),
        0,
        "it is dropped where it was"
    );
    assert_eq!(
        Arc::strong_count(&seen),
        1,
        "and so are the task and the check"
    );
}

#[tokio::test(start_paused = true)]
async fn one_that_hangs_is_out_of_time_and_one_that_panics_costs_itself() {
    let mut world = World::new(64);
    let wild = HealthCheck::custom(|instance: Instance| async move {
        match instance.address().port() {
            1 => pending::<Result<(), String>>().await,
            2 => panic!("of its own"),
            _ => Ok(()),
        }
    });
    let panics = HealthCheck::custom(|_: Instance| {
        if true {
            panic!("before it is asked");
        }
        async { Ok::<(), String>(()) }
    });
    let brief = wild.interval_jitter(0.0).unhealthy_threshold(1);
    for address in ["10.0.0.1:1", "10.0.0.1:2", "10.0.0.1:3"] {
        world.hold(&brief, address);
    }
    world.hold(&panics.unhealthy_threshold(1), "10.0.0.1:4");
    sleep(Duration::from_millis(1_500)).await;
    let late = world.refused("10.0.0.1:1");
    assert_eq!(
        late.as_deref(),
        Some("it had not answered after 1s (timeout)")
    );
    for panicked in ["10.0.0.1:2", "10.0.0.1:4"] {
        assert_eq!(
            world.refused(panicked).as_deref(),
            Some("the check panicked")
        );
    }
    assert_eq!(world.refused("10.0.0.1:3"), None);
    assert_eq!(world.registry.len(), 4, "they go on");
}

#[tokio::test(start_paused = true)]
async fn no_more_are_under_way_at_once_than_there_is_room_for() {
    let (mut world, seen) = (World::new(4), Arc::new(Seen::default()));
    let (inner, begun) = (Arc::clone(&seen), clock::now());
    let slow = HealthCheck::custom(move |instance: Instance| {
        let inside = inner.enter(&instance, begun);
        async move {
            let _inside = inside;
            sleep(Duration::from_millis(900)).await;
            Ok::<(), String>(())
        }
    });
    let slow = slow.interval(Duration::from_secs(3_600));
    for host in 1..=40 {
        world.hold(
            &slow.clone().interval_jitter(0.0),
            &format!("10.0.0.{host}:80"),
        );
    }
    sleep(Duration::from_millis(8_500)).await;
    assert_eq!(seen.count(), 40, "each has had its turn");
    assert_eq!(seen.most.load(Ordering::SeqCst), 4);
}

/// The runtime that a check runs on may end before who holds it.
#[test]
fn a_check_outlives_its_runtime() {
    let (mut world, seen) = (World::new(64), Arc::default());
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap()
    };
    let first = runtime();
    first.block_on(async {
        world.hold(&each_10_s(&seen, |_| Ok(())), A);
        sleep(Duration::from_secs(1)).await;
    });
    drop(first);
    let news = world.hub.checked.load(Ordering::Relaxed);
    assert!(news, "who holds it is told, to begin another task");
    let before = seen.count();
    runtime().block_on(async {
        world.held[A][0].attend();
        sleep(Duration::from_secs(60)).await;
    });
    assert!(seen.count() > before, "{before}");
}

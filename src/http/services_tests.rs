use std::{
    convert::Infallible,
    sync::{
        Barrier,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use super::*;

const IDLE: Duration = Duration::from_secs(300);

/// What a test holds of a service; its drop is counted.
struct Held {
    busy: AtomicBool,
    living: Arc<AtomicUsize>,
}

struct World {
    services: Services<Held>,
    living: Arc<AtomicUsize>,
    made: AtomicUsize,
    now: Instant,
}

impl Busy for Held {
    fn is_busy(&self) -> bool {
        self.busy.load(SeqCst)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.living.fetch_sub(1, SeqCst);
    }
}

impl From<Full> for Infallible {
    fn from(_: Full) -> Self {
        panic!("full")
    }
}

fn key(text: &str) -> ServiceKey {
    ServiceKey::new("public", text.parse().unwrap()).unwrap()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the test's clock begins somewhere"
)]
fn start() -> Instant {
    Instant::now()
}

impl World {
    fn new(most: usize) -> Self {
        let now = start();
        let limits = Limits {
            most,
            idle_release: IDLE,
        };
        Self {
            services: Services::new(limits, now),
            living: Arc::default(),
            made: AtomicUsize::new(0),
            now,
        }
    }

    fn use_of(&self, name: &str) -> Result<Arc<Held>, Full> {
        let key = key(name);
        let found = self
            .services
            .with(key.group(), key.name(), self.now, Arc::clone);
        if let Some(held) = found {
            return Ok(held);
        }
        self.services.get_or_make(&key, self.now, || {
            self.living.fetch_add(1, SeqCst);
            self.made.fetch_add(1, SeqCst);
            Ok(Held {
                busy: AtomicBool::new(false),
                living: Arc::clone(&self.living),
            })
        })
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    fn names(&self) -> Vec<String> {
        let keys = self.services.keys();
        keys.iter().map(|key| key.service().to_string()).collect()
    }
}

#[test]
fn a_service_is_made_once_and_found_by_group_and_name() {
    let world = World::new(9);
    for name in ["b", "G@@b", "a", "b", "G@@b", "a"] {
        assert!(world.use_of(name).is_ok());
    }
    assert_eq!(world.made.load(SeqCst), 3);
    assert_eq!(
        world.names(),
        ["DEFAULT_GROUP@@a", "DEFAULT_GROUP@@b", "G@@b"]
    );
    let found = |group, name| {
        world
            .services
            .with(group, name, world.now, |_| ())
            .is_some()
    };
    assert!(found("G", "b") && !found("G", "a") && !found("", "b"));
}

#[test]
fn of_many_first_callers_one_makes_it() {
    const NAMES: usize = 200;
    let world = World::new(NAMES);
    let together = Barrier::new(4);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for name in 0..NAMES {
                    together.wait();
                    assert!(world.use_of(&format!("s{name}")).is_ok());
                }
            });
        }
    });
    assert_eq!(world.made.load(SeqCst), NAMES);
    assert_eq!(world.names().len(), NAMES);
}

#[test]
fn what_is_unused_for_five_minutes_is_given_up_and_not_before() {
    let mut world = World::new(9);
    world.use_of("a").unwrap();
    world.use_of("b").unwrap();
    world.pass(IDLE / 2);
    world.use_of("b").unwrap();
    let begun = world.now;
    assert_eq!(world.services.sweep(world.now), Some(begun + IDLE / 2));
    world.pass(IDLE / 2 - Duration::from_millis(1));
    assert!(world.services.sweep(world.now).is_some());
    assert_eq!(world.living.load(SeqCst), 2);
    world.pass(Duration::from_millis(1));
    assert_eq!(world.services.sweep(world.now), Some(begun + IDLE));
    assert_eq!(world.names(), ["DEFAULT_GROUP@@b"]);
    assert_eq!(world.living.load(SeqCst), 1, "nothing else holds it");
    world.pass(IDLE / 2);
    assert_eq!(world.services.sweep(world.now), None, "nothing is left");
    assert_eq!(world.living.load(SeqCst), 0);
    world.use_of("a").unwrap();
    assert_eq!(world.made.load(SeqCst), 3);
}

#[test]
fn what_is_busy_or_held_by_a_handle_is_kept() {
    let mut world = World::new(9);
    let handle = world.use_of("a").unwrap();
    world.use_of("b").unwrap().busy.store(true, SeqCst);
    world.pass(IDLE * 3);
    assert!(world.services.sweep(world.now).is_some());
    assert_eq!(world.names().len(), 2);
    drop(handle);
    world.use_of("b").unwrap().busy.store(false, SeqCst);
    world.pass(IDLE - Duration::from_secs(2));
    world.services.sweep(world.now);
    assert_eq!(world.names().len(), 2, "it counts from its last use");
    world.pass(Duration::from_secs(2));
    world.services.sweep(world.now);
    assert!(world.names().is_empty());
}

#[test]
fn a_full_table_gives_up_what_was_unused_longest_and_nothing_that_is_in_use() {
    let mut world = World::new(3);
    for name in ["a", "b", "c"] {
        world.use_of(name).unwrap();
        world.pass(Duration::from_secs(2));
    }
    // All were called just now: names that somebody makes up do not push them out.
    assert_eq!(world.use_of("d").err(), Some(Full));
    world.pass(LEAST_REST);
    world.use_of("a").unwrap();
    world.use_of("b").unwrap().busy.store(true, SeqCst);
    assert!(world.use_of("d").is_ok(), "instead of c");
    let kept: Vec<_> = ["a", "b", "d"]
        .map(|n| format!("DEFAULT_GROUP@@{n}"))
        .into();
    assert_eq!(world.names(), kept);
    assert_eq!(world.living.load(SeqCst), 3);
    world.pass(LEAST_REST);
    world.use_of("d").unwrap();
    assert!(world.use_of("e").is_ok(), "instead of a");
    assert_eq!(
        world.use_of("f").err(),
        Some(Full),
        "b is busy, d and e are new"
    );
}

#[test]
fn what_is_to_be_kept_for_ever_is() {
    let now = start();
    let limits = Limits {
        most: 1,
        idle_release: Duration::MAX,
    };
    let services = Services::new(limits, now);
    let held = Held {
        busy: AtomicBool::new(false),
        living: Arc::new(AtomicUsize::new(1)),
    };
    let made = services.get_or_make(&key("a"), now, || Ok::<_, Full>(held));
    assert!(made.is_ok());
    assert!(
        services
            .sweep(now + Duration::from_secs(1_000_000))
            .is_some()
    );
    assert_eq!(services.keys().len(), 1);
}

#[test]
fn one_that_cannot_be_made_takes_no_place() {
    #[derive(Debug, PartialEq)]
    struct Refused;
    impl From<Full> for Refused {
        fn from(_: Full) -> Self {
            panic!("full")
        }
    }
    let world = World::new(1);
    let made = world
        .services
        .get_or_make(&key("a"), world.now, || Err(Refused));
    assert_eq!(made.err(), Some(Refused));
    assert!(world.use_of("b").is_ok());
}

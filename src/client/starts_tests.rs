//! Which of a file and a first list waits for the other, and for how long.

use std::time::{Duration, Instant};

use super::{Kept, List, PATIENCE, Starts, Step};
use crate::{
    model::{Instance, Listing, Origin, ServiceKey},
    session::LinkId,
};

const MS: Duration = Duration::from_millis(1);

fn key(name: &str) -> ServiceKey {
    ServiceKey::new("public", name.parse().unwrap()).unwrap()
}

fn listing(ports: u16) -> Listing {
    Listing::new((0..ports).map(|n| Instance::parse(&format!("10.0.0.1:{}", 80 + n)).unwrap()))
}

struct World {
    starts: Starts,
    now: Instant,
}

impl World {
    /// A service whose file is being read.
    fn new(connected: bool) -> Self {
        #[expect(clippy::disallowed_methods, reason = "the origin of virtual time")]
        let now = Instant::now();
        let mut starts = Starts::default();
        if connected {
            starts.connected();
        }
        starts.begin(key("orders"), now);
        Self { starts, now }
    }

    fn read(&mut self, ports: u16) {
        let kept = Kept::new(listing(ports), Duration::from_secs(60), self.now);
        self.starts
            .read(&key("orders"), (ports > 0).then_some(kept));
    }

    /// Whether the list is passed on at once.
    fn listed(&mut self, name: &str, ports: u16) -> bool {
        let list = List {
            link: LinkId::of(1),
            key: key(name),
            listing: listing(ports),
            origin: Origin::FirstAnswer,
            received: self.now,
        };
        self.starts.listed(list).is_some()
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.starts.handle_timeout(self.now);
    }

    fn told(&mut self) -> Vec<String> {
        let now = self.now;
        let steps = std::iter::from_fn(|| self.starts.take_step());
        steps
            .map(|step| match step {
                Step::Restore(_, kept) => {
                    let (listing, age) = kept.into_set(now);
                    format!("file {} {:?}", listing.instances().len(), age)
                }
                Step::List(list) => format!("list {}", list.listing.instances().len()),
            })
            .collect()
    }
}

#[test]
fn a_list_waits_for_the_file() {
    let mut world = World::new(true);
    assert!(!world.listed("orders", 2));
    assert!(world.listed("billing", 1), "another waits for nothing");
    assert!(world.told().is_empty());
    world.read(10);
    assert_eq!(world.told(), ["file 10 60s", "list 2"]);
    assert!(world.listed("orders", 3), "from here on nothing waits");
    assert_eq!(world.starts.poll_timeout(), None);
}

#[test]
fn a_file_waits_for_the_list_while_there_is_a_connection() {
    let mut world = World::new(true);
    world.read(10);
    assert!(world.told().is_empty());
    world.pass(100 * MS);
    assert!(!world.listed("orders", 2), "it comes after the file");
    assert_eq!(world.told(), ["file 10 60.1s", "list 2"]);
    let mut alone = World::new(false);
    alone.read(10);
    assert_eq!(alone.told(), ["file 10 60s"], "else it serves at once");
}

#[test]
fn a_registry_that_says_nothing_is_not_waited_for() {
    let mut silent = World::new(true);
    silent.read(10);
    silent.pass(PATIENCE - MS);
    assert!(silent.told().is_empty());
    silent.pass(MS);
    assert_eq!(silent.told(), ["file 10 60.5s"]);
    let mut refused = World::new(true);
    refused.starts.failed(&key("orders"));
    refused.read(10);
    assert!(refused.told().is_empty(), "it may do better at once");
    refused.starts.failed(&key("orders"));
    assert_eq!(refused.told(), ["file 10 60s"]);
    let mut lost = World::new(true);
    lost.read(10);
    lost.starts.disconnected();
    assert_eq!(lost.told(), ["file 10 60s"]);
}

#[test]
fn a_disk_that_stands_still_is_not_waited_for() {
    let mut world = World::new(true);
    for ports in 1..100 {
        assert!(!world.listed("orders", ports));
    }
    world.pass(PATIENCE);
    assert_eq!(
        world.told(),
        ["list 1", "list 99"],
        "the first and the last"
    );
    assert!(world.listed("orders", 3));
    // The copy knows that it has been told of something newer.
    world.read(10);
    assert_eq!(world.told(), ["file 10 60s"]);
}

#[test]
fn what_came_on_a_connection_that_is_no_more_is_passed_over() {
    for moved in [true, false] {
        let mut world = World::new(true);
        assert!(!world.listed("orders", 2));
        if moved {
            world.starts.connected();
        } else {
            world.starts.disconnected();
        }
        world.read(10);
        let told = world.told();
        assert_eq!(told, if moved { vec![] } else { vec!["file 10 60s"] });
    }
}

#[test]
fn a_service_without_a_file_is_what_the_registry_lists() {
    let mut world = World::new(true);
    assert!(!world.listed("orders", 2));
    world.read(0);
    assert_eq!(world.told(), ["list 2"]);
    let mut early = World::new(true);
    early.read(0);
    assert!(early.listed("orders", 2) && early.told().is_empty());
}

#[test]
fn who_is_given_up_is_told_nothing() {
    let mut world = World::new(true);
    assert!(!world.listed("orders", 2));
    world.starts.end(&key("orders"));
    world.pass(PATIENCE);
    assert!(world.told().is_empty());
    assert_eq!(world.starts.poll_timeout(), None);
}

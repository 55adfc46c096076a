//! What is believed of what a registry tells of its services, in virtual time.

use std::{
    collections::BTreeSet,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use futures_core::Stream;
use proptest::prelude::*;

use super::{ListWriter, ServiceChange, ServiceChanges, ServiceList, service_list};
use crate::{
    directory::Options,
    model::{ServiceFilter, ServiceName},
};

const SEC: Duration = Duration::from_secs(1);

/// A list whose registry is played by hand.
struct World {
    writer: Option<ListWriter>,
    list: ServiceList,
    now: Instant,
    connection: u64,
}

impl World {
    fn new() -> Self {
        #[expect(clippy::disallowed_methods, reason = "the origin of virtual time")]
        let now = Instant::now();
        let (writer, list) = service_list(ServiceFilter::group("G"), Options::default());
        let mut world = Self {
            writer: Some(writer),
            list,
            now,
            connection: 0,
        };
        world.reconnect();
        world
    }

    /// A list that was told to be this.
    fn of(names: &[&str]) -> Self {
        let mut world = Self::new();
        world.all(names);
        world
    }

    fn writer(&mut self) -> &mut ListWriter {
        self.writer.as_mut().unwrap()
    }

    fn publish(&mut self) -> bool {
        self.writer().publish()
    }

    fn reconnect(&mut self) {
        self.writer().handle_disconnected();
        self.connection += 1;
        let connection = self.connection;
        self.writer().handle_connection(connection);
        self.publish();
    }

    /// As a server tells that has fuzzy watch.
    fn all(&mut self, names: &[&str]) {
        self.told(names, true);
    }

    /// As pages tell.
    fn pages(&mut self, names: &[&str]) {
        self.told(names, false);
    }

    fn told(&mut self, names: &[&str], certain: bool) {
        let names = names.iter().map(|name| service(name)).collect();
        let (connection, now) = (self.connection, self.now);
        self.writer().all(connection, names, certain, now);
        self.publish();
    }

    fn comes(&mut self, name: &str) {
        let (connection, now) = (self.connection, self.now);
        self.writer().some(connection, vec![service(name)], now);
        self.publish();
    }

    fn goes(&mut self, name: &str) {
        let connection = self.connection;
        self.writer().gone(connection, &service(name));
        self.publish();
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.writer().poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            let now = self.now;
            self.writer().handle_timeout(now);
            self.publish();
            let next = self.writer().poll_timeout();
            assert!(next.is_none_or(|next| next > now), "it spins");
        }
        self.now = end;
    }

    fn names(&self) -> Vec<String> {
        let names = self.list.snapshot();
        names.iter().map(|name| name.name().to_string()).collect()
    }

    fn held(&self) -> usize {
        self.list.snapshot().held().len()
    }
}

fn service(name: &str) -> ServiceName {
    ServiceName::new("G", name).unwrap()
}

/// What a stream has to tell now.
fn told(changes: &mut ServiceChanges) -> Vec<String> {
    let mut cx = Context::from_waker(Waker::noop());
    let mut told = Vec::new();
    while let Poll::Ready(Some(change)) = pin!(&mut *changes).poll_next(&mut cx) {
        told.push(match change {
            ServiceChange::Added(service) => format!("+{}", service.name()),
            ServiceChange::Removed(service) => format!("-{}", service.name()),
        });
    }
    told
}

#[test]
fn what_is_told_on_an_intact_connection_is_obeyed_at_once() {
    let mut world = World::of(&["a", "b"]);
    let mut changes = world.list.changes();
    assert_eq!(told(&mut changes), ["+a", "+b"]);
    world.comes("c");
    world.goes("a");
    assert_eq!(told(&mut changes), ["-a", "+c"]);
    world.all(&[]);
    assert_eq!(told(&mut changes), ["-b", "-c"]);
    assert!(world.list.snapshot().is_known() && world.list.snapshot().is_empty());
}

#[test]
fn two_complete_passes_have_to_miss_a_service() {
    let mut world = World::of(&["a", "b", "c"]);
    world.pages(&["a", "b", "c"]);
    world.pages(&["a", "c"]);
    assert_eq!(world.names(), ["a", "b", "c"], "one may have missed it");
    world.pages(&["a", "b", "c"]);
    world.pages(&["a", "c"]);
    assert_eq!(world.names(), ["a", "b", "c"], "not two in a row");
    world.pages(&["a", "c"]);
    assert_eq!(world.names(), ["a", "c"]);
}

#[test]
fn a_pass_that_was_cut_takes_nothing_away() {
    let mut world = World::of(&["a", "b"]);
    for _ in 0..10 {
        world.comes("c");
        world.pass(10 * SEC);
    }
    assert_eq!(world.names(), ["a", "b", "c"]);
}

#[test]
fn a_registry_that_comes_back_empty_takes_nothing_away_for_the_hold() {
    for certain in [true, false] {
        let mut world = World::of(&["a", "b", "c"]);
        world.reconnect();
        world.told(&[], certain);
        world.pass(59 * SEC);
        for _ in 0..3 {
            world.told(&[], certain);
        }
        assert_eq!((world.names().len(), world.held()), (3, 3));
        world.pass(SEC);
        assert_eq!(world.names(), [""; 0], "it is believed in the end");
    }
}

#[test]
fn what_is_listed_again_ends_its_hold_and_lengthens_the_others() {
    let mut world = World::of(&["a", "b", "c"]);
    world.reconnect();
    world.all(&[]);
    world.pass(50 * SEC);
    world.comes("b");
    assert_eq!(world.held(), 2);
    world.pass(50 * SEC);
    assert_eq!(world.names(), ["a", "b", "c"]);
    world.pass(10 * SEC);
    assert_eq!((world.names(), world.held()), (vec!["b".to_owned()], 0));
}

#[test]
fn a_hold_has_an_end_though_the_list_goes_on_growing() {
    let mut world = World::of(&["a", "b", "c"]);
    world.reconnect();
    world.all(&[]);
    for n in 0..8 {
        world.pass(22 * SEC);
        world.comes(&format!("new-{n}"));
    }
    assert_eq!(world.held(), 3);
    world.pass(5 * SEC);
    assert_eq!(world.names().len(), 8);
}

#[test]
fn few_that_are_missing_are_held_briefly() {
    let names: Vec<String> = (0..10).map(|n| format!("s{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut world = World::of(&names);
    world.reconnect();
    world.all(&names[2..]);
    assert_eq!(world.names().len(), 10);
    world.pass(3 * SEC);
    assert_eq!(world.names(), &names[2..]);
}

#[test]
fn pages_miss_twice_after_a_brief_hold_too() {
    let mut world = World::of(&["a", "b", "c", "d", "e"]);
    world.reconnect();
    world.pages(&["b", "c", "d", "e"]);
    world.pass(9 * SEC);
    assert_eq!((world.names().len(), world.held()), (5, 0));
    world.pages(&["b", "c", "d", "e"]);
    assert_eq!(world.names(), ["b", "c", "d", "e"]);
}

/// Found by the simulation: a pass of a registry that had just restarted missed everything, and one of
/// the next connection, a moment later, missed a provider that was two seconds late.
#[test]
fn passes_of_two_connections_are_not_two_that_miss_it() {
    let mut world = World::of(&["a", "b", "c", "d", "e"]);
    world.reconnect();
    world.pages(&[]);
    world.reconnect();
    world.pages(&["b", "c", "d", "e"]);
    world.pass(9 * SEC);
    assert_eq!((world.names().len(), world.held()), (5, 0));
    world.pages(&["a", "b", "c", "d", "e"]);
    world.pass(100 * SEC);
    assert_eq!(world.names().len(), 5);
}

#[test]
fn what_was_seen_on_this_connection_and_goes_has_gone() {
    let mut world = World::of(&["a", "b"]);
    world.reconnect();
    world.goes("a");
    assert_eq!(world.names(), ["a", "b"], "it was not seen since");
    world.all(&["a"]);
    assert_eq!(world.held(), 1);
    world.goes("b");
    assert_eq!(world.names(), ["a", "b"], "nor was this");
    world.goes("a");
    assert_eq!(world.names(), ["b"]);
}

#[test]
fn nothing_ends_while_nobody_tells() {
    let mut world = World::of(&["a", "b"]);
    world.reconnect();
    world.all(&[]);
    world.pass(30 * SEC);
    world.reconnect();
    world.pass(1_000 * SEC);
    assert_eq!(world.names(), ["a", "b"]);
    assert!(!world.list.snapshot().is_fresh());
    world.all(&["a", "b"]);
    assert!(world.list.snapshot().is_fresh());
    assert_eq!(world.held(), 0);
}

#[test]
fn what_came_on_another_connection_is_passed_over() {
    let mut world = World::of(&["a", "b"]);
    world.reconnect();
    let (old, now) = (world.connection - 1, world.now);
    world.writer().all(old, BTreeSet::new(), true, now);
    world.writer().some(old, vec![service("x")], now);
    world.writer().gone(old, &service("a"));
    assert!(!world.publish());
    assert_eq!((world.names().len(), world.held()), (2, 0));
}

#[test]
fn a_slow_reader_is_told_the_difference_and_nothing_twice() {
    let mut world = World::of(&["a"]);
    let mut changes = world.list.changes();
    for _ in 0..100 {
        world.comes("b");
        world.goes("b");
        world.comes("c");
    }
    assert_eq!(told(&mut changes), ["+a", "+c"]);
    world.comes("c");
    world.all(&["a", "c"]);
    assert_eq!(told(&mut changes), [""; 0]);
}

#[test]
fn what_is_told_is_seen_when_it_is_published_and_not_if_it_is_undone() {
    let mut world = World::of(&["a"]);
    let mut changes = world.list.changes();
    let (connection, now) = (world.connection, world.now);
    assert_eq!(told(&mut changes), ["+a"]);
    world.writer().some(connection, vec![service("b")], now);
    assert_eq!(told(&mut changes), [""; 0]);
    world.writer().gone(connection, &service("b"));
    assert!(world.writer().has_news() && !world.publish());
    world.writer().gone(connection, &service("a"));
    world.writer().some(connection, vec![service("c")], now);
    world.writer = None;
    assert_eq!(told(&mut changes), ["-a", "+c"], "at the end at the latest");
}

#[test]
fn a_registry_without_end_does_not_take_all_memory() {
    let mut world = World::of(&["a", "b"]);
    world.writer().limit(1_000);
    for _ in 0..10 {
        for _ in 0..10 {
            let some = (0..100).map(|n| service(&format!("{}-{n}", world.connection)));
            let (some, connection, now) = (some.collect(), world.connection, world.now);
            world.writer().some(connection, some, now);
            world.connection += 1;
            let connection = world.connection;
            world.writer().handle_connection(connection);
        }
        world.publish();
        assert!(world.names().len() <= 1_000);
    }
    assert_eq!(world.names().len(), 1_000);
    world.comes("a");
    world.all(&["a", "z"]);
    world.pass(60 * SEC);
    world.all(&["a", "z"]);
    assert_eq!(
        world.names(),
        ["a", "z"],
        "what it can say it can take back"
    );
}

#[test]
fn readers_are_woken_by_changes_alone() {
    struct Count(std::sync::atomic::AtomicUsize);
    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }
    let mut world = World::of(&["a"]);
    let mut changes = world.list.changes();
    let count = Arc::new(Count(0.into()));
    let waker = Waker::from(Arc::clone(&count));
    let mut poll = || pin!(&mut changes).poll_next(&mut Context::from_waker(&waker));
    assert!(poll().is_ready() && poll().is_pending());
    for _ in 0..10 {
        world.all(&["a"]);
    }
    assert_eq!(count.0.load(std::sync::atomic::Ordering::Relaxed), 0);
    world.comes("b");
    assert_eq!(count.0.load(std::sync::atomic::Ordering::Relaxed), 1);
    assert!(poll().is_ready() && poll().is_pending());
    world.writer = None;
    assert_eq!(count.0.load(std::sync::atomic::Ordering::Relaxed), 2);
    assert_eq!(
        poll(),
        Poll::Ready(None),
        "an end says nothing of the services"
    );
}

#[derive(Clone, Debug)]
enum Step {
    All(BTreeSet<u8>, bool),
    Comes(u8),
    Goes(u8),
    Reconnect,
    Disconnect,
    Pass(u32),
    Read,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let names = prop::collection::btree_set(0..12_u8, 0..12);
    let step = prop_oneof![
        4 => (names, any::<bool>()).prop_map(|(names, certain)| Step::All(names, certain)),
        3 => (0..12_u8).prop_map(Step::Comes),
        2 => (0..12_u8).prop_map(Step::Goes),
        2 => Just(Step::Reconnect),
        1 => Just(Step::Disconnect),
        3 => (0..70_u32).prop_map(Step::Pass),
        3 => Just(Step::Read),
    ];
    prop::collection::vec(step, 0..80)
}

proptest! {
    /// Whatever is told: what a reader put together from the changes is what the snapshot says,
    /// what was listed last is there, and once a registry lists the same for long enough the list
    /// is that.
    #[test]
    fn whatever_is_told_the_list_ends_as_the_registry(steps in steps()) {
        let mut world = World::new();
        let mut changes = world.list.changes();
        let mut mine = BTreeSet::new();
        let name = |n: u8| format!("s{n:02}");
        let mut read = |mine: &mut BTreeSet<String>| {
            for change in told(&mut changes) {
                let (sign, name) = change.split_at(1);
                let changed = match sign {
                    "+" => mine.insert(name.to_owned()),
                    _ => mine.remove(name),
                };
                assert!(changed, "{change} is told twice");
            }
        };
        let mut connected = true;
        for step in steps {
            match step {
                Step::All(names, certain) => {
                    let names: Vec<String> = names.into_iter().map(name).collect();
                    let names: Vec<&str> = names.iter().map(String::as_str).collect();
                    world.told(&names, certain);
                    let there = world.names();
                    let all = names.iter().all(|name| there.iter().any(|other| other == name));
                    prop_assert!(all || !connected);
                }
                Step::Comes(n) => world.comes(&name(n)),
                Step::Goes(n) => world.goes(&name(n)),
                Step::Reconnect => {
                    let before = world.names();
                    world.reconnect();
                    connected = true;
                    prop_assert_eq!(before, world.names());
                }
                Step::Disconnect => {
                    world.writer().handle_disconnected();
                    world.publish();
                    connected = false;
                }
                Step::Pass(seconds) => {
                    let before = world.names();
                    world.pass(seconds * SEC);
                    prop_assert!(connected || before == world.names());
                }
                Step::Read => read(&mut mine),
            }
            let snapshot = world.list.snapshot();
            prop_assert!(snapshot.iter().is_sorted());
            prop_assert!(snapshot.held().iter().all(|name| snapshot.contains(name)));
        }
        world.reconnect();
        let last = ["s03", "s07", "z"];
        for _ in 0..20 {
            world.pages(&last);
            world.pass(10 * SEC);
        }
        prop_assert_eq!(world.names(), last);
        read(&mut mine);
        prop_assert!(mine.iter().eq(last.iter()));
    }
}

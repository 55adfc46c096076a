//! Files that break, disks that break, and when what is written.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use proptest::prelude::*;

use super::{
    disk::{Disk, Folder},
    keeper::{Keeper, Seen},
    name::file_name,
    record::{Unusable, decode, encode},
    store::Store,
};
use crate::{
    directory::{Options, Revision, Snapshot, channel},
    model::{Instance, Listing, Metadata, Origin, ServiceKey},
};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn key() -> ServiceKey {
    ServiceKey::new("dev", "G@@orders/訳".parse().unwrap()).unwrap()
}

fn owned(listing: Listing) -> Vec<Instance> {
    let all = listing.into_instances().into_iter();
    all.map(std::sync::Arc::unwrap_or_clone).collect()
}

fn instance(port: u16) -> Instance {
    let metadata: Metadata = [("version", "1.2"), ("naïve \"key\"", "a\nb")]
        .into_iter()
        .collect();
    Instance::parse(&format!("10.0.0.3:{port}"))
        .unwrap()
        .with_cluster("HZ")
        .with_also_in(vec!["SH".into()])
        .with_weight(0.1 + f64::from(port))
        .with_metadata(metadata)
}

fn set(ports: std::ops::Range<u16>) -> std::sync::Arc<Snapshot> {
    let (mut writer, subscription) = channel(key(), Options::default());
    let odd = ["[::1]:9", "orders-0.orders:7"].map(|text| Instance::parse(text).unwrap());
    let odd = odd.map(|i| i.with_healthy(false).with_ephemeral(false));
    writer.publish(ports.map(instance).chain(odd), start());
    subscription.snapshot()
}

#[expect(clippy::disallowed_methods, reason = "an instant can only be read")]
fn start() -> Instant {
    Instant::now()
}

fn wall(days: u32) -> SystemTime {
    SystemTime::UNIX_EPOCH + DAY * (20_000 + days)
}

fn instances(set: &Snapshot) -> Vec<Instance> {
    let all = set.entries().iter();
    all.map(|entry| Instance::clone(entry.instance())).collect()
}

#[test]
fn a_file_says_what_the_set_said() {
    let set = set(1..4);
    let record = decode(&key(), &encode(&key(), &set, wall(0))).unwrap();
    assert_eq!(owned(record.listing.clone()), instances(&set));
    assert_eq!(record.heard, wall(0));
    assert!(!record.listing.is_protected());
}

#[test]
fn health_that_meant_nothing_means_nothing_to_the_next() {
    let (mut writer, subscription) = channel(key(), Options::default());
    let flagged = Listing::new([instance(1)]).with_protected(true);
    writer.apply(flagged, Origin::FirstAnswer, start());
    let bytes = encode(&key(), &subscription.snapshot(), wall(0));
    assert!(decode(&key(), &bytes).unwrap().listing.is_protected());
}

/// Whoever says with his responses that he goes is gone when the next process reads this.
#[test]
fn who_said_goodbye_is_not_kept() {
    let (mut writer, subscription) = channel(key(), Options::default());
    let now = start();
    writer.publish([1, 2].map(instance), now);
    let (entry, marks) = (
        subscription.snapshot().entries()[0].clone(),
        subscription.marks(),
    );
    marks.going_offline(entry.instance().address(), entry.generation(), now);
    let bytes = encode(&key(), &subscription.snapshot(), wall(0));
    let record = decode(&key(), &bytes).unwrap();
    assert_eq!(owned(record.listing), [instance(2)]);
}

/// Cut at each byte, and each bit of each byte flipped: never read, never a panic.
#[test]
fn a_damaged_file_is_never_taken_for_a_whole_one() {
    let bytes = encode(&key(), &set(1..2), wall(0));
    for end in 0..bytes.len() {
        let error = decode(&key(), &bytes[..end]).unwrap_err();
        assert!(matches!(error, Unusable::Torn(_)), "{end}: {error}");
    }
    for at in 0..bytes.len() {
        for change in [1, 2, 4, 8, 16, 32, 64, 128, 255] {
            let mut bytes = bytes.clone();
            bytes[at] ^= change;
            let read = decode(&key(), &bytes);
            // In the first line a digit may be written in capitals; nothing else reads the same.
            let same =
                read.is_ok_and(|read| at < 60 && owned(read.listing) == instances(&set(1..2)));
            assert!(
                bytes[at].is_ascii_uppercase() || !same,
                "byte {at} ^ {change}"
            );
        }
    }
    let long = [&bytes[..], b" "].concat();
    assert!(matches!(decode(&key(), &long), Err(Unusable::Torn(_))));
}

proptest! {
    /// The beginning of one file with the end of another, as a disk leaves it that wrote part.
    #[test]
    fn two_halves_are_not_a_whole(at in 0_usize..4000, zeros in 0_usize..600) {
        let (old, new) = (encode(&key(), &set(1..4), wall(0)), encode(&key(), &set(2..5), wall(1)));
        prop_assume!(at < new.len().min(old.len()));
        let mixed = [&new[..at], &old[at..]].concat();
        if mixed != old && mixed != new {
            prop_assert!(decode(&key(), &mixed).is_err());
        }
        let mut holes = new.clone();
        let end = (at + zeros).min(holes.len());
        holes[at..end].fill(0);
        prop_assert!(decode(&key(), &holes).is_err() || holes == new);
    }

    #[test]
    fn anything_at_all_is_read_without_a_panic(bytes: Vec<u8>, version in 0_u32..4) {
        prop_assert!(decode(&key(), &bytes).is_err());
        let line = format!("tower-nacos-cache {version} ");
        prop_assert!(decode(&key(), &[line.as_bytes(), &bytes].concat()).is_err());
    }
}

#[test]
fn other_files_say_what_they_are() {
    let of = |bytes: &[u8]| decode(&key(), bytes).unwrap_err().to_string();
    assert!(of(b"{\"hosts\":[]}\n").contains("no file of this cache"));
    assert!(of(&[0; 4096]).contains("no file of this cache"));
    assert!(of(b"").contains("empty"));
    let newer = String::from_utf8(encode(&key(), &set(1..2), wall(0))).unwrap();
    let newer = newer.replacen("cache 1 ", "cache 2 ", 1);
    assert!(of(newer.as_bytes()).contains("newer version"));
    let other = ServiceKey::new("dev", "G@@orders".parse().unwrap()).unwrap();
    let other = encode(&other, &set(1..2), wall(0));
    assert_eq!(decode(&key(), &other).unwrap_err(), Unusable::OtherService);
}

/// A disk that a machine or a process stops using in the middle of something.
#[derive(Clone, Default)]
struct Breaking {
    /// What a process sees.
    seen: BTreeMap<String, File>,
    /// The names that outlast the machine, with what they named then.
    durable: BTreeMap<String, u64>,
    /// How far each file's content outlasts the machine.
    synced: BTreeMap<u64, usize>,
    files: u64,
    /// So many bytes and steps are still done.
    left: usize,
    full: bool,
    read_only: bool,
    /// The folder cannot be synced.
    unsynced: bool,
}

#[derive(Clone)]
struct File {
    id: u64,
    bytes: Vec<u8>,
}

impl Breaking {
    fn step(&mut self) -> io::Result<()> {
        self.left = self.left.checked_sub(1).ok_or_else(broken)?;
        Ok(())
    }

    fn file(&mut self, name: &str) -> io::Result<&mut File> {
        self.seen
            .get_mut(name)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// What a machine finds after a crash: any names of before or after, and of a file's content that
    /// was not synced so much as chance has it.
    fn after_power_loss(&self, names_written: bool, share: f64) -> Self {
        let by_id: BTreeMap<u64, &Vec<u8>> = self.seen.values().map(|f| (f.id, &f.bytes)).collect();
        let names: BTreeMap<String, u64> = if names_written {
            self.seen
                .iter()
                .map(|(name, f)| (name.clone(), f.id))
                .collect()
        } else {
            self.durable.clone()
        };
        let content = |id: u64| {
            let bytes = by_id
                .get(&id)
                .copied()
                .cloned()
                .unwrap_or_else(|| self.gone(id));
            let synced = self.synced.get(&id).copied().unwrap_or_default();
            let kept = synced.max((bytes.len() as f64 * share) as usize);
            bytes[..kept.min(bytes.len())].to_vec()
        };
        let seen = names.into_iter();
        let seen = seen.map(|(name, id)| {
            (
                name,
                File {
                    id,
                    bytes: content(id),
                },
            )
        });
        Self {
            seen: seen.collect(),
            left: usize::MAX,
            ..Self::default()
        }
    }

    /// The content of a file that has no name any more for the process; only whole ones are asked for.
    fn gone(&self, _: u64) -> Vec<u8> {
        OLD.with_borrow(Clone::clone)
    }
}

std::thread_local! {
    /// What the file held before.
    static OLD: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

fn broken() -> io::Error {
    io::Error::other("the process is no more")
}

impl Disk for Breaking {
    fn create(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.step()?;
        if self.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        if self.seen.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.files += 1;
        let id = self.files;
        let written = bytes.len().min(self.left);
        self.left -= written;
        let file = File {
            id,
            bytes: bytes[..written].to_vec(),
        };
        self.seen.insert(name.to_owned(), file);
        if self.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if written < bytes.len() {
            Err(broken())
        } else {
            Ok(())
        }
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.step()?;
        let (id, len) = self.file(name).map(|file| (file.id, file.bytes.len()))?;
        self.synced.insert(id, len);
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.step()?;
        let file = self.seen.remove(from).ok_or(io::ErrorKind::NotFound)?;
        self.seen.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.step()?;
        if self.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        let removed = self.seen.remove(name);
        removed
            .map(drop)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        self.step()?;
        if self.unsynced {
            return Err(io::Error::other("it cannot be synced"));
        }
        self.durable = self
            .seen
            .iter()
            .map(|(name, f)| (name.clone(), f.id))
            .collect();
        Ok(())
    }

    fn read(&mut self, name: &str) -> io::Result<Vec<u8>> {
        Ok(self.file(name)?.bytes.clone())
    }
}

fn on(disk: Breaking) -> Store<Breaking> {
    Store::on(disk, PathBuf::from("cache"), 7)
}

fn saved(disk: Breaking, set: &Snapshot, left: usize) -> (bool, Breaking) {
    let mut store = on(Breaking { left, ..disk });
    let well = store.save(&key(), set, Duration::ZERO, wall(0)).is_ok();
    (well, store.into_disk())
}

fn found(disk: Breaking) -> Vec<Instance> {
    let left = usize::MAX;
    let found = on(Breaking { left, ..disk }).load(&key(), DAY, wall(0));
    found
        .unwrap()
        .map_or_else(Vec::new, |found| owned(found.listing))
}

/// Killed after each byte and each step of a write, by the kernel or by the power: the file is the
/// old one or the new one, and the new one once the write was said to be done.
#[test]
fn whoever_is_killed_while_writing_leaves_the_old_or_the_new() {
    let nobody = channel(key(), Options::default()).1.snapshot();
    for (old, new) in [(set(1..4), set(3..9)), (set(1..4), nobody)] {
        let (well, before) = saved(Breaking::default(), &old, usize::MAX);
        assert!(well);
        let bytes = before.seen[&file_name(&key())].bytes.clone();
        OLD.with_borrow_mut(|content| *content = bytes);
        let choice = [instances(&old), instances(&new)];
        let mut seen = [0, 0];
        for left in 0.. {
            let (well, after) = saved(before.clone(), &new, left);
            let mut ends = vec![after.clone()];
            for names_written in [false, true] {
                ends.extend(
                    [0.0, 0.5, 1.0].map(|share| after.after_power_loss(names_written, share)),
                );
            }
            for end in ends {
                let found = found(end);
                let which = choice.iter().position(|set| *set == found);
                let which = which.unwrap_or_else(|| panic!("neither, {left} steps before the end"));
                assert!(!well || which == 1, "the old one after it was done");
                seen[which] += 1;
            }
            if well {
                break;
            }
        }
        assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
    }
}

#[test]
fn a_full_disk_keeps_the_old_file_and_no_other() {
    let (_, before) = saved(Breaking::default(), &set(1..4), usize::MAX);
    let full = Breaking {
        full: true,
        ..before
    };
    let (well, after) = saved(full, &set(3..9), usize::MAX);
    assert!(!well);
    assert_eq!(after.seen.len(), 1, "what was begun is taken away");
    assert_eq!(found(after), instances(&set(1..4)));
}

#[test]
fn a_disk_that_cannot_be_written_is_read() {
    let nobody = channel(key(), Options::default()).1.snapshot();
    for new in [set(3..9), nobody] {
        let (_, before) = saved(Breaking::default(), &set(1..4), usize::MAX);
        let disk = Breaking {
            read_only: true,
            left: usize::MAX,
            ..before
        };
        let mut store = on(disk);
        let problem = store.save(&key(), &new, Duration::ZERO, wall(0));
        let problem = problem.unwrap_err().to_string();
        assert!(problem.contains("cannot be written"), "{problem}");
        assert_eq!(found(store.into_disk()), instances(&set(1..4)));
    }
}

/// It is said, since a loss of power may bring the old file back, and the new one is read.
#[test]
fn a_folder_that_cannot_be_synced_has_the_new_file() {
    let (_, before) = saved(Breaking::default(), &set(1..4), usize::MAX);
    let disk = Breaking {
        unsynced: true,
        ..before
    };
    let (well, after) = saved(disk, &set(3..9), usize::MAX);
    assert!(!well);
    assert_eq!(after.seen.len(), 1);
    assert_eq!(found(after), instances(&set(3..9)));
}

/// Some file systems have no such thing, and are as good as they are. `/proc` is one.
#[cfg(target_os = "linux")]
#[test]
fn a_file_system_that_knows_no_sync_of_folders_is_no_fault() {
    let mut proc = Folder::new("/proc/self".into());
    assert!(
        std::fs::File::open("/proc/self")
            .unwrap()
            .sync_all()
            .is_err()
    );
    proc.sync_folder().unwrap();
    let mut nowhere = Folder::new("/proc/self/no such".into());
    assert!(nowhere.sync_folder().is_err());
}

#[test]
fn what_is_too_old_is_not_used_and_a_clock_that_jumps_is_told() {
    let mut store = on(Breaking {
        left: usize::MAX,
        ..Breaking::default()
    });
    store
        .save(&key(), &set(1..4), 3 * SECOND, wall(10))
        .unwrap();
    let found = store.load(&key(), 7 * DAY, wall(16)).unwrap().unwrap();
    assert_eq!(found.age, 6 * DAY + 3 * SECOND);
    assert!(!found.from_the_future);
    let old = store.load(&key(), 7 * DAY, wall(17)).unwrap_err();
    assert!(old.to_string().contains("168 h old"), "{old}");
    let found = store.load(&key(), 7 * DAY, wall(2)).unwrap().unwrap();
    assert!(found.age.is_zero() && found.from_the_future);
    // A clock that is off by as much as there is.
    store
        .save(&key(), &set(1..4), Duration::MAX, wall(0))
        .unwrap();
    assert!(
        store
            .load(&key(), Duration::MAX, wall(0))
            .unwrap()
            .is_some()
    );
    store
        .save(&key(), &set(1..4), SECOND, SystemTime::UNIX_EPOCH)
        .unwrap();
    assert!(store.load(&key(), DAY, wall(0)).is_err());
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Fresh,
    Stale,
    Held,
}

impl State {
    fn seen(self, revision: u64) -> Seen {
        Seen {
            revision: Revision(revision),
            known: true,
            fresh: self == Self::Fresh,
            holds: self == Self::Held,
        }
    }
}

struct Clocked {
    keeper: Keeper,
    start: Instant,
    now: Duration,
}

impl Clocked {
    fn new() -> Self {
        let keeper = Keeper::new(7 * DAY);
        Self {
            keeper,
            start: start(),
            now: Duration::ZERO,
        }
    }

    fn at(&self) -> Instant {
        self.start + self.now
    }

    fn changed(&mut self) {
        self.keeper.changed(&key(), self.at());
    }

    /// Lets time pass with the set at `revision`; when it was written, and the writes end well.
    fn run(&mut self, revision: u64, state: State, seconds: u64) -> Vec<u64> {
        let mut written = Vec::new();
        let until = self.now + SECOND * seconds as u32;
        loop {
            while let Some(key) = self.keeper.take_due(self.at()) {
                let seen = state.seen(revision);
                if self.keeper.seen(&key, seen, self.at()) {
                    written.push(self.now.as_secs());
                    self.keeper.done(&key, true, self.at());
                }
            }
            match self.keeper.poll_timeout().map(|at| at - self.start) {
                Some(next) if next <= until => self.now = next.max(self.now),
                _ => break,
            }
        }
        self.now = until;
        written
    }
}

#[test]
fn a_service_is_written_at_once_and_then_once_in_five_seconds() {
    let mut clock = Clocked::new();
    let mut written = Vec::new();
    for revision in 1..=100 {
        clock.changed(); // ten times a second
        written.extend(clock.run(revision, State::Fresh, 0));
        clock.now += SECOND / 10;
    }
    written.extend(clock.run(100, State::Fresh, 60));
    assert_eq!(written, [0, 5, 10], "and the last of it is written");
}

#[test]
fn what_does_not_change_is_written_once_an_hour_while_it_is_fresh() {
    let mut clock = Clocked::new();
    clock.changed();
    assert_eq!(clock.run(1, State::Fresh, 9000), [0, 3600, 7200]);
    assert!(clock.run(1, State::Stale, 90_000).is_empty());
    clock.changed(); // the connection is back, and says the same
    assert_eq!(clock.run(1, State::Fresh, 10).len(), 1);
}

/// A hold ends by itself; nobody says so.
#[test]
fn while_anybody_is_held_the_file_stays_as_it_is() {
    let mut clock = Clocked::new();
    clock.changed();
    assert!(clock.run(1, State::Held, 60).is_empty());
    let (at, held) = (clock.at(), State::Held.seen(2));
    assert!(!clock.keeper.last_seen(&key(), held, at), "at the end, too");
    assert_eq!(clock.run(2, State::Fresh, 60), [65]);
}

#[test]
fn a_disk_that_stands_still_has_one_write_of_a_service() {
    let mut clock = Clocked::new();
    let seen = |revision| State::Fresh.seen(revision);
    clock.changed();
    let due = clock.keeper.take_due(clock.at()).unwrap();
    assert!(clock.keeper.seen(&due, seen(1), clock.at()));
    for revision in 2..1000 {
        clock.now += SECOND;
        clock.changed();
        while let Some(due) = clock.keeper.take_due(clock.at()) {
            assert!(!clock.keeper.seen(&due, seen(revision), clock.at()));
        }
    }
    assert!(
        clock.keeper.last_seen(&due, seen(1000), clock.at()),
        "but the last one"
    );
    assert!(!clock.keeper.last_seen(&due, seen(1000), clock.at()));
    clock.keeper.done(&due, true, clock.at());
    assert_eq!(clock.run(1001, State::Fresh, 60).len(), 1);
}

#[test]
fn a_write_that_failed_is_tried_again_after_a_minute() {
    let mut clock = Clocked::new();
    clock.changed();
    let due = clock.keeper.take_due(clock.at()).unwrap();
    let seen = State::Fresh.seen(1);
    assert!(clock.keeper.seen(&due, seen, clock.at()));
    clock.keeper.done(&due, false, clock.at());
    assert_eq!(clock.run(1, State::Fresh, 300), [60]);
}

#[test]
fn nothing_is_kept_of_who_is_forgotten_or_not_known_yet() {
    let mut clock = Clocked::new();
    clock.changed();
    let due = clock.keeper.take_due(clock.at()).unwrap();
    let seen = Seen {
        known: false,
        ..State::Fresh.seen(1)
    };
    assert!(!clock.keeper.seen(&due, seen, clock.at()));
    assert!(!clock.keeper.last_seen(&due, seen, clock.at()));
    assert_eq!(clock.run(1, State::Fresh, 60), [5]);
    clock.changed();
    clock.keeper.forget(&key());
    assert_eq!(clock.keeper.poll_timeout(), None);
    assert!(clock.keeper.all().is_empty());
}

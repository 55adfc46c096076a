//! A client's files: what it wants written and read, and a disk that fails.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use crate::{
    cache::{Disk, Keeper, Seen, Store},
    client::cached::{Look, look},
    directory::{Snapshot, Subscription},
    model::{Instance, ServiceKey},
};

/// A set that is to be written.
#[derive(Clone, Debug)]
pub struct Write {
    key: ServiceKey,
    set: Arc<Snapshot>,
    age: Duration,
    asked: SystemTime,
}

/// What becomes of a write, and after which share of its steps, if it does not end well.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "not for users")]
pub enum Fate {
    /// It ends well.
    Well,
    /// The disk refuses one step.
    Fails(f64),
    /// Nothing is done any more from there on.
    Torn(f64),
}

/// A folder in memory.
#[derive(Debug)]
pub struct Files {
    store: Store<Memory>,
}

/// What of a client is to be written when, as its driver has it.
#[derive(Debug)]
pub(super) struct Filing {
    keeper: Keeper,
    handles: HashMap<ServiceKey, Subscription>,
    reads: u64,
    /// Which reading of each file counts.
    current: HashMap<ServiceKey, u64>,
    writes: Vec<Write>,
    /// The wall clock as the client began, and when that was.
    epoch: (SystemTime, Instant),
}

/// As long as a file may be used, by default.
const MAX_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

impl Filing {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            keeper: Keeper::new(MAX_AGE),
            handles: HashMap::new(),
            reads: 0,
            current: HashMap::new(),
            writes: Vec::new(),
            epoch: (wall(Duration::ZERO), now),
        }
    }

    /// The number of the read that is to be made.
    pub(super) fn subscribed(&mut self, key: &ServiceKey, subscription: Subscription) -> u64 {
        self.handles.insert(key.clone(), subscription);
        self.reads += 1;
        self.current.insert(key.clone(), self.reads);
        self.reads
    }

    pub(super) fn counts(&self, key: &ServiceKey, number: u64) -> bool {
        self.current.get(key) == Some(&number)
    }

    pub(super) fn changed(&mut self, key: &ServiceKey, now: Instant) {
        if self.handles.contains_key(key) {
            self.keeper.changed(key, now);
        }
    }

    pub(super) fn unsubscribed(&mut self, key: &ServiceKey, now: Instant) {
        self.keep(key, Keeper::last_seen, now);
        self.keeper.forget(key);
        self.handles.remove(key);
        self.current.remove(key);
    }

    pub(super) fn written(&mut self, key: &ServiceKey, well: bool, now: Instant) {
        self.keeper.done(key, well, now);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.keeper.poll_timeout()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while let Some(key) = self.keeper.take_due(now) {
            self.keep(&key, Keeper::seen, now);
        }
    }

    pub(super) fn take_writes(&mut self) -> Vec<Write> {
        std::mem::take(&mut self.writes)
    }

    fn keep(
        &mut self,
        key: &ServiceKey,
        see: fn(&mut Keeper, &ServiceKey, Seen, Instant) -> bool,
        now: Instant,
    ) {
        let Some(subscription) = self.handles.get(key) else {
            return;
        };
        let Look { seen, set, age } = look(subscription, now);
        if see(&mut self.keeper, key, seen, now) {
            let (epoch, began) = self.epoch;
            let key = key.clone();
            let asked = epoch + (now - began);
            self.writes.push(Write {
                key,
                set,
                age,
                asked,
            });
        }
    }
}

impl Write {
    /// Of which service.
    pub const fn key(&self) -> &ServiceKey {
        &self.key
    }
}

impl Default for Files {
    fn default() -> Self {
        Self::new()
    }
}

impl Files {
    /// An empty one.
    pub fn new() -> Self {
        let disk = Memory {
            left: usize::MAX,
            ..Memory::default()
        };
        Self {
            store: Store::on(disk, PathBuf::from("memory"), 7),
        }
    }

    /// Writes; true if it is there.
    pub fn write(&mut self, write: &Write, fate: Fate) -> bool {
        let Write {
            key,
            set,
            age,
            asked,
        } = write;
        let mut steps = |share: f64, torn| {
            // As a rehearsal on another disk counts them.
            let mut trial = Self::new();
            let _ = trial.store.save(key, set, *age, *asked);
            let all = usize::MAX - trial.store.disk_mut().left;
            let disk = self.store.disk_mut();
            disk.left = (all as f64 * share) as usize;
            disk.torn = torn;
        };
        match fate {
            Fate::Well => {}
            Fate::Fails(share) => steps(share, false),
            Fate::Torn(share) => steps(share, true),
        }
        let saved = self.store.save(key, set, *age, *asked);
        self.store.disk_mut().left = usize::MAX;
        saved.is_ok()
    }

    /// What the file of a service says `elapsed` after the start, and how old that is.
    ///
    /// # Errors
    ///
    /// In the words of the log.
    pub fn read(
        &mut self,
        key: &ServiceKey,
        elapsed: Duration,
    ) -> Result<Option<(Vec<Instance>, Duration)>, String> {
        let found = self.store.load(key, MAX_AGE, wall(elapsed));
        let found = found.map_err(|problem| problem.to_string())?;
        Ok(found.map(|found| {
            let instances = found.listing.into_instances().into_iter();
            (instances.map(Arc::unwrap_or_clone).collect(), found.age)
        }))
    }
}

fn wall(elapsed: Duration) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(20_000 * 24 * 3600) + elapsed
}

#[derive(Debug, Default)]
struct Memory {
    files: BTreeMap<String, Vec<u8>>,
    /// So many bytes and steps are still done.
    left: usize,
    /// Whether nothing is done after that.
    torn: bool,
}

impl Memory {
    fn step(&mut self) -> io::Result<()> {
        if self.left == 0 {
            if !self.torn {
                self.left = usize::MAX;
            }
            return Err(io::Error::other("as scripted"));
        }
        self.left -= 1;
        Ok(())
    }
}

impl Disk for Memory {
    fn create(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.step()?;
        let written = bytes.len().min(self.left);
        self.left -= written;
        self.files.insert(name.to_owned(), bytes[..written].into());
        if written < bytes.len() {
            self.step()?;
        }
        Ok(())
    }

    fn sync(&mut self, _: &str) -> io::Result<()> {
        self.step()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.step()?;
        let bytes = self.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        self.files.insert(to.to_owned(), bytes);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.step()?;
        let removed = self.files.remove(name);
        removed
            .map(drop)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        self.step()
    }

    fn read(&mut self, name: &str) -> io::Result<Vec<u8>> {
        let bytes = self.files.get(name).cloned();
        bytes.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

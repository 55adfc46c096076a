use std::{
    cmp::Ordering,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering as Memory},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{model::ServiceKey, sync::Published};

/// What a client holds of each service that it calls, and for how long.
///
/// Looked up without a lock by what a request names; made by the first who needs it while the
/// others wait for that short while; given up when unused, and when another needs the place. Time
/// is an argument.
pub(super) struct Services<T> {
    table: Published<Table<T>>,
    /// Held by the one who changes the table.
    changing: Mutex<()>,
    limits: Limits,
    epoch: Instant,
}

/// How much is held, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) most: usize,
    pub(super) idle_release: Duration,
}

/// All places are taken, and none is idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Default for Limits {
    /// What a client has unless it is told otherwise; `HttpBuilder` says why.
    fn default() -> Self {
        Self {
            most: 1_024,
            idle_release: Duration::from_secs(5 * 60),
        }
    }
}

/// Whether something is in use though nobody asked for it lately.
pub(super) trait Busy {
    fn is_busy(&self) -> bool;
}

/// Sorted by name and group.
struct Table<T>(Box<[Arc<Entry<T>>]>);

struct Entry<T> {
    key: ServiceKey,
    /// Handles hold clones of it.
    value: Arc<T>,
    /// Milliseconds since the epoch, as of the last use but for the grain.
    used: AtomicU64,
}

impl<T: Busy> Services<T> {
    pub(super) fn new(mut limits: Limits, epoch: Instant) -> Self {
        limits.idle_release = limits.idle_release.min(ENDLESS);
        Self {
            table: Published::new(Arc::new(Table(Box::default()))),
            changing: Mutex::default(),
            limits,
            epoch,
        }
    }

    /// Uses what is held of a service, if it is held. Takes no lock and allocates nothing.
    pub(super) fn with<R>(
        &self,
        group: &str,
        name: &str,
        now: Instant,
        used: impl FnOnce(&Arc<T>) -> R,
    ) -> Option<R> {
        let table = self.table.load();
        let entry = table.get()?.find(group, name)?;
        self.touch(entry, now);
        Some(used(&entry.value))
    }

    /// What is held of a service, which `make` makes if it is not. Of callers at the same time
    /// one makes it.
    pub(super) fn get_or_make<E: From<Full>>(
        &self,
        key: &ServiceKey,
        now: Instant,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        let mut given_up = None; // dropped after the lock: what it holds is not ours alone
        let changing = self.lock();
        if let Some(held) = self.with(key.group(), key.name(), now, Arc::clone) {
            return Ok(held);
        }
        let mut entries = self.entries();
        if entries.len() >= self.limits.most {
            let at = self.longest_idle(&entries, now).ok_or(Full)?;
            given_up = Some(entries.remove(at));
        }
        let value = Arc::new(make()?);
        let entry = Arc::new(Entry {
            key: key.clone(),
            value: Arc::clone(&value),
            used: AtomicU64::new(self.millis(now)),
        });
        let at = entries.partition_point(|e| e.order(key.group(), key.name()).is_lt());
        entries.insert(at, entry);
        let former = self.publish(entries);
        drop(changing);
        drop((former, given_up));
        Ok(value)
    }

    /// Gives up what was unused for too long. Returns when to look again, unless nothing is left.
    pub(super) fn sweep(&self, now: Instant) -> Option<Instant> {
        let changing = self.lock();
        let entries = self.entries();
        for entry in entries.iter().filter(|entry| entry.is_busy()) {
            self.touch(entry, now);
        }
        let due = |entry: &Arc<Entry<T>>| self.used(entry) + self.limits.idle_release;
        let (kept, given_up): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|entry| due(entry) > now);
        let next = kept.iter().map(due).min();
        let former = (!given_up.is_empty()).then(|| self.publish(kept));
        drop(changing);
        drop((former, given_up));
        next.map(|next| next.max(now + self.grain()))
    }

    /// Shows what is held now, and is no use of it.
    #[cfg(feature = "status")]
    pub(super) fn each(&self, mut visit: impl FnMut(&Arc<T>)) {
        for entry in self.entries() {
            visit(&entry.value);
        }
    }

    /// What is held now.
    pub(super) fn keys(&self) -> Vec<ServiceKey> {
        self.entries().iter().map(|e| e.key.clone()).collect()
    }

    /// The one that was unused longest, if it was for a while.
    fn longest_idle(&self, entries: &[Arc<Entry<T>>], now: Instant) -> Option<usize> {
        let rest = LEAST_REST.min(self.limits.idle_release);
        let idle = entries
            .iter()
            .enumerate()
            .filter(|(_, entry)| self.used(entry) + rest <= now && !entry.is_busy());
        idle.min_by_key(|(_, entry)| self.used(entry))
            .map(|(at, _)| at)
    }

    /// Notes a use. Writes once a grain, so that callers do not share a line that is written.
    fn touch(&self, entry: &Entry<T>, now: Instant) {
        let now = self.millis(now);
        let grain = self.grain().as_millis() as u64;
        if now >= entry.used.load(Memory::Relaxed).saturating_add(grain) {
            entry.used.store(now, Memory::Relaxed);
        }
    }

    fn used(&self, entry: &Entry<T>) -> Instant {
        self.epoch + Duration::from_millis(entry.used.load(Memory::Relaxed))
    }

    fn millis(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_millis() as u64
    }

    fn grain(&self) -> Duration {
        (self.limits.idle_release / 64).clamp(Duration::from_millis(1), Duration::from_secs(1))
    }

    fn entries(&self) -> Vec<Arc<Entry<T>>> {
        let table = self.table.load();
        table.get().map_or_else(Vec::new, |table| table.0.to_vec())
    }

    fn publish(&self, entries: Vec<Arc<Entry<T>>>) -> Option<Arc<Table<T>>> {
        self.table.swap(Some(Arc::new(Table(entries.into()))))
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Table<T> {
    fn find(&self, group: &str, name: &str) -> Option<&Arc<Entry<T>>> {
        let at = self.0.binary_search_by(|entry| entry.order(group, name));
        self.0.get(at.ok()?)
    }
}

impl<T> Entry<T> {
    fn order(&self, group: &str, name: &str) -> Ordering {
        (**self.key.name())
            .cmp(name)
            .then_with(|| (**self.key.group()).cmp(group))
    }
}

impl<T: Busy> Entry<T> {
    fn is_busy(&self) -> bool {
        Arc::strong_count(&self.value) > 1 || self.value.is_busy()
    }
}

impl<T> fmt::Debug for Services<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = self.table.load();
        let entries = table.get().map_or(&[][..], |table| &table.0);
        f.debug_set()
            .entries(entries.iter().map(|e| &e.key))
            .finish()
    }
}

/// As good as for ever, and still to be added to any instant.
const ENDLESS: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// A service that was called more lately than this does not make place for another: one who makes
/// names up cannot have those that are called subscribed anew all the time.
pub(super) const LEAST_REST: Duration = Duration::from_secs(10);

#[cfg(test)]
#[path = "services_tests.rs"]
mod tests;

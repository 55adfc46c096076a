use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    task::Waker,
    time::Instant,
};

use crate::{
    directory::{
        Entry, Generation, Options, Revision, Snapshot, hint::Hint, merge::parts::Parts,
        outbox::Outbox, selection::Selection, state::State, view::View,
    },
    model::{Address, ServiceKey, Source},
    sync::{Bell, guarded},
};

/// What the writer and all subscriptions of one service share.
pub(super) struct Shared {
    pub(super) key: ServiceKey,
    pub(super) options: Options,
    pub(super) root: Arc<View>,
    state: Mutex<State>,
    /// Notified when something was published, and by consumers that became quiet.
    pub(super) changed: Arc<Bell>,
    wakers: Mutex<Wakers>,
    /// Called when somebody else than the writer changed when it wants to be woken.
    pub(super) writer: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// Of a merged set: where it comes from, better ones first.
    pub(super) sources: Option<Box<[Upstream]>>,
    /// The merged sets that this is a source of.
    heirs: Mutex<Vec<Weak<Self>>>,
    /// Called when somebody has an instance explained.
    pub(super) explained: OnceLock<Box<dyn Fn() + Send + Sync>>,
    #[cfg(feature = "metrics")]
    pub(super) told: crate::metrics::Telling<crate::metrics::ServiceMetrics>,
}

/// A source of a merged set. Keeps no subscription alive.
pub(super) struct Upstream {
    pub(super) source: Arc<Source>,
    pub(super) shared: Arc<Shared>,
    /// The part of it that is merged.
    pub(super) view: Arc<View>,
}

/// Each service once, of which there may be several parts.
pub(super) fn services(all: &[Upstream]) -> impl Iterator<Item = &Arc<Shared>> {
    let is_first = |(at, upstream): &(usize, &Upstream)| {
        let mut before = all[..*at].iter();
        !before.any(|other| Arc::ptr_eq(&other.shared, &upstream.shared))
    };
    let first = all.iter().enumerate().filter(is_first);
    first.map(|(_, upstream)| &upstream.shared)
}

/// The tasks that poll a stream of changes, by stream.
#[derive(Default)]
struct Wakers {
    waiting: HashMap<u64, Waker>,
    streams: u64,
}

impl Shared {
    pub(super) fn new(key: ServiceKey, options: Options) -> Arc<Self> {
        let hint = Hint::of(options.owner.clone());
        Self::build(key, options, hint, None)
    }

    /// What the merged set of these shares.
    pub(super) fn merged(key: ServiceKey, options: Options, sources: Box<[Upstream]>) -> Arc<Self> {
        let hint = |upstream: &Upstream| upstream.shared.lock().hint.clone();
        let hints = sources.iter().map(|u| (Arc::clone(&u.source), hint(u)));
        let shared = Self::build(key, options, Hint::merged(hints), Some(sources));
        let parts = Parts::new(shared.upstreams().iter().map(|u| Arc::clone(&u.source)));
        shared.lock().parts = Some(Box::new(parts));
        for source in services(shared.upstreams()) {
            let mut heirs = source.heirs();
            heirs.retain(|heir| heir.strong_count() > 0);
            heirs.push(Arc::downgrade(&shared));
        }
        shared
    }

    fn build(
        key: ServiceKey,
        options: Options,
        hint: Hint,
        sources: Option<Box<[Upstream]>>,
    ) -> Arc<Self> {
        let above = services(sources.as_deref().unwrap_or_default());
        let changed = Arc::new(Bell::below(above.map(|s| Arc::clone(&s.changed))));
        let first = Snapshot {
            hint: hint.clone(),
            ..Snapshot::default()
        };
        let root = Arc::new(View::new(Selection::default(), first));
        Arc::new(Self {
            key,
            options,
            state: Mutex::new(State::new(Arc::clone(&root), hint)),
            root,
            changed,
            wakers: Mutex::default(),
            writer: OnceLock::new(),
            sources,
            heirs: Mutex::default(),
            explained: OnceLock::new(),
            #[cfg(feature = "metrics")]
            told: crate::metrics::Telling::default(),
        })
    }

    /// The sources of a merged set, of which there may be none; none of any other.
    pub(super) fn upstreams(&self) -> &[Upstream] {
        self.sources.as_deref().unwrap_or_default()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state under the lock, and tells the world after it.
    pub(super) fn update<T>(&self, change: impl FnOnce(&mut State, &mut Outbox) -> T) -> T {
        let (result, outbox) = self.change(change);
        self.deliver(outbox);
        result
    }

    /// Changes the state under the lock. The world is still to be told.
    pub(super) fn change<T>(
        &self,
        change: impl FnOnce(&mut State, &mut Outbox) -> T,
    ) -> (T, Outbox) {
        let mut outbox = Outbox::default();
        let mut state = self.lock();
        let before = state.status();
        let result = change(&mut state, &mut outbox);
        outbox.notify |= state.status() != before;
        (result, outbox)
    }

    /// Tells the world, under no lock of a writer's; last of all the metrics recorder, which may block.
    pub(super) fn deliver(&self, outbox: Outbox) {
        self.announce(outbox);
        #[cfg(feature = "metrics")]
        self.tell();
    }

    /// Tells the world but the metrics recorder.
    fn announce(&self, outbox: Outbox) {
        let notify = outbox.notify;
        outbox.deliver(&self.key, self.options.owner.as_deref());
        if notify {
            self.changed.ring_here();
            let waiting = std::mem::take(&mut self.wakers().waiting);
            for waker in waiting.into_values() {
                guarded(|| waker.wake());
            }
            let heirs: Vec<_> = self.heirs().iter().filter_map(Weak::upgrade).collect();
            for heir in heirs {
                heir.look();
            }
        }
    }

    fn heirs(&self) -> MutexGuard<'_, Vec<Weak<Self>>> {
        self.heirs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`update`](Self::update), on a call's thread, where no recorder shall run: if `change` says that it was
    /// one, the writer tells of it, and looks again when it wants to be woken. Of a writer without a driver
    /// it is told here.
    pub(super) fn update_by_report(&self, change: impl FnOnce(&mut State, &mut Outbox) -> bool) {
        let (changed, outbox) = self.change(change);
        self.announce(outbox);
        if !changed {
            return;
        }
        match self.writer.get() {
            Some(tell) => tell(),
            #[cfg(feature = "metrics")]
            None => self.tell(),
            #[cfg(not(feature = "metrics"))]
            None => {}
        }
    }

    /// Somebody has an instance explained.
    pub(super) fn tell_explained(&self) {
        if let Some(tell) = self.explained.get() {
            tell();
        }
        for upstream in self.sources.iter().flatten() {
            upstream.shared.tell_explained();
        }
    }

    pub(super) fn revision(&self) -> Revision {
        self.root.snapshot().revision
    }

    /// The newest revision for which every consumer of every view is quiet.
    pub(super) fn applied(&self) -> Revision {
        let (published, views) = {
            let mut state = self.lock();
            let views: Vec<_> = state
                .views()
                .into_iter()
                .map(|view| (view.snapshot().revision, view.consumers()))
                .collect();
            (state.revision(), views)
        };
        // A view is published only when it changed: its consumers are up to date when they are
        // quiet for the newest of it.
        let behind = views.iter().flat_map(|(newest, consumers)| {
            consumers
                .iter()
                .map(|consumer| consumer.quiet())
                .filter(|quiet| quiet < newest)
        });
        behind.min().unwrap_or(published)
    }

    pub(super) fn new_stream(&self) -> u64 {
        let mut wakers = self.wakers();
        wakers.streams += 1;
        wakers.streams
    }

    pub(super) fn register(&self, stream: u64, waker: &Waker) {
        let former = self.wakers().waiting.insert(stream, waker.clone());
        drop(former);
    }

    pub(super) fn forget(&self, stream: u64) {
        let former = self.wakers().waiting.remove(&stream);
        drop(former);
    }

    fn wakers(&self) -> MutexGuard<'_, Wakers> {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection to this instance failed: if it is held, it no longer is.
    pub(super) fn report_unreachable(
        &self,
        address: &Address,
        generation: Generation,
        now: Instant,
    ) {
        for (upstream, generation) in self.listed_by(address, generation) {
            let shared = &upstream.shared;
            shared.report_unreachable(address, generation, now);
        }
        let held = self.sources.is_none()
            && self
                .root
                .snapshot()
                .find(address)
                .is_some_and(|entry| entry.held && entry.generation == generation);
        if !held {
            return;
        }
        self.update_by_report(|state, out| {
            let is_it = |entry: &Entry| {
                entry.generation == generation && entry.instance.address() == address
            };
            let obeyed = !state.closed;
            if obeyed {
                state.release(is_it, &self.options, now, out);
            }
            obeyed
        });
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

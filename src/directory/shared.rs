use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    task::Waker,
    time::Instant,
};

use tokio::sync::Notify;

use crate::{
    directory::{
        Entry, Generation, Options, Revision, Snapshot, hint::Hint, outbox::Outbox,
        selection::Selection, state::State, view::View,
    },
    model::{Address, ServiceKey},
    sync::guarded,
};

/// What the writer and all subscriptions of one service share.
pub(super) struct Shared {
    pub(super) key: ServiceKey,
    pub(super) options: Options,
    pub(super) root: Arc<View>,
    state: Mutex<State>,
    /// Notified when something was published, and by consumers that became quiet.
    pub(super) changed: Arc<Notify>,
    wakers: Mutex<Wakers>,
    /// Called when somebody else than the writer changed when it wants to be woken.
    pub(super) writer: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// Called when somebody has an instance explained.
    pub(super) explained: OnceLock<Box<dyn Fn() + Send + Sync>>,
    #[cfg(feature = "metrics")]
    pub(super) told: Mutex<crate::metrics::ServiceMetrics>,
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
            changed: Arc::default(),
            wakers: Mutex::default(),
            writer: OnceLock::new(),
            explained: OnceLock::new(),
            #[cfg(feature = "metrics")]
            told: Mutex::default(),
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state under the lock, and tells the world after it.
    pub(super) fn update<T>(&self, change: impl FnOnce(&mut State, &mut Outbox) -> T) -> T {
        let mut outbox = Outbox::default();
        let result = {
            let mut state = self.lock();
            let before = state.status();
            let result = change(&mut state, &mut outbox);
            outbox.notify |= state.status() != before;
            result
        };
        let notify = outbox.notify;
        outbox.deliver(&self.key, self.options.owner.as_deref());
        #[cfg(feature = "metrics")]
        self.tell();
        if notify {
            guarded(|| self.changed.notify_waiters());
            let waiting = std::mem::take(&mut self.wakers().waiting);
            for waker in waiting.into_values() {
                guarded(|| waker.wake());
            }
        }
        result
    }

    /// The writer is to look again when it wants to be woken.
    pub(super) fn tell_writer(&self) {
        if let Some(tell) = self.writer.get() {
            tell();
        }
    }

    /// Somebody has an instance explained.
    pub(super) fn tell_explained(&self) {
        if let Some(tell) = self.explained.get() {
            tell();
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
        let held = self
            .root
            .snapshot()
            .find(address)
            .is_some_and(|entry| entry.held && entry.generation == generation);
        if !held {
            return;
        }
        self.update(|state, out| {
            let is_it = |entry: &Entry| {
                entry.generation == generation && entry.instance.address() == address
            };
            if !state.closed {
                state.release(is_it, &self.options, now, out);
            }
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

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{runtime, sync::watch, task::AbortHandle};

use super::{
    clock::Moment,
    collector::Collector,
    events::{News, Places, STREAMS, Taken},
    observe::Place,
    seen::Seen,
};

/// What all clones share.
pub(super) struct Shared {
    collector: Mutex<Collector>,
    news: watch::Sender<News>,
    places: Arc<Places>,
    mounted_at: Mutex<String>,
    /// Who looks while nobody asks.
    task: Mutex<Option<AbortHandle>>,
}

impl Shared {
    pub(super) fn new() -> Arc<Self> {
        let (news, _) = watch::channel(News::default());
        Arc::new(Self {
            collector: Mutex::default(),
            news,
            places: Places::new(STREAMS),
            mounted_at: Mutex::default(),
            task: Mutex::default(),
        })
    }

    pub(super) fn add(&self, place: Place, now: Moment) {
        self.collector().add(place, now);
    }

    pub(super) fn set_most_streams(&self, most: usize) {
        self.places.set_most(most);
    }

    pub(super) fn mount_at(&self, path: &str) {
        let path = path.trim_end_matches('/').to_owned();
        *lock(&self.mounted_at) = path;
    }

    pub(super) fn close(&self) {
        self.news.send_modify(|news| news.closed = true);
    }

    fn collector(&self) -> MutexGuard<'_, Collector> {
        lock(&self.collector)
    }

    /// What there is to be seen now.
    pub(super) fn look(&self) -> Arc<Seen> {
        let mut collector = self.collector();
        let (seen, changed) = collector.look(Moment::now());
        let over = collector.is_over();
        drop(collector);
        if changed {
            let version = seen.version;
            self.news.send_if_modified(|news| {
                let newer = version > news.version;
                news.version = news.version.max(version);
                newer
            });
        }
        if over {
            // Whoever closed its registry is about to go, and waits for its connections perhaps.
            self.news
                .send_if_modified(|news| !std::mem::replace(&mut news.closed, true));
        }
        seen
    }

    pub(super) fn is_mounted_at(&self, path: &str) -> bool {
        let mount = lock(&self.mounted_at);
        let rest = path.strip_prefix(&**mount);
        rest.is_some_and(|rest| rest.is_empty() || rest == "/")
    }

    pub(super) fn listen(&self) -> Result<(watch::Receiver<News>, Taken), Refused> {
        if self.news.borrow().closed {
            return Err(Refused::Closed);
        }
        let place = self.places.take().ok_or(Refused::Full)?;
        Ok((self.news.subscribe(), place))
    }

    #[cfg(test)]
    pub(super) fn streams(&self) -> usize {
        self.places.taken()
    }

    /// Sees to it that somebody looks, if there is a runtime to do that on.
    pub(super) fn keep_looking(self: &Arc<Self>) {
        let mut task = lock(&self.task);
        if task.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        if let Ok(runtime) = runtime::Handle::try_current() {
            let looking = look_on(Arc::downgrade(self));
            *task = Some(runtime.spawn(looking).abort_handle());
        }
    }
}

/// Why nobody may listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Full,
    Closed,
}

async fn look_on(shared: Weak<Shared>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        match shared.upgrade() {
            Some(shared) => drop(shared.look()),
            None => return,
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(task) = lock(&self.task).take() {
            task.abort();
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("streams", &self.places)
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How late a change is told that no page asks for.
const LOOK_EVERY: Duration = Duration::from_millis(500);

//! The thread that reads and writes, so that no disk holds up the driver or the runtime.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, SystemTime},
};

use tokio::sync::{mpsc as events, oneshot};

use super::{
    queue::{Job, Queue, Save},
    store::{Found, Problem, Store},
};
use crate::{directory::Snapshot, model::ServiceKey};

/// A folder of files and the thread that tends it. The thread ends by itself when this is dropped and
/// what was asked for is done; nobody waits for it, since a disk may stand still.
#[derive(Debug)]
pub(crate) struct Cache {
    shared: Arc<Shared>,
    events: events::UnboundedReceiver<Event>,
}

/// What became of what was asked for.
#[derive(Debug)]
pub(crate) enum Event {
    Loaded {
        key: ServiceKey,
        /// What it was called as it was asked for.
        number: u64,
        found: Result<Option<Found>, Problem>,
    },
    Saved {
        key: ServiceKey,
        result: Result<(), Problem>,
    },
}

/// Between the thread and who asks: locked for as long as it takes to put a job in or to take one out,
/// never while a disk is asked.
#[derive(Debug, Default)]
struct Shared {
    todo: Mutex<Todo>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Todo {
    queue: Queue,
    /// Nothing comes any more.
    over: bool,
}

/// At most 15 bytes, which is what Linux shows.
const THREAD: &str = "nacos-cache";

impl Cache {
    /// Starts the thread. `salt` differs from process to process.
    pub(crate) fn open(folder: PathBuf, max_age: Duration, salt: u64) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (done, events) = events::unbounded_channel();
        let store = Store::new(folder, salt);
        let todo = Arc::clone(&shared);
        let tend = move || tend(store, max_age, &todo, &done);
        thread::Builder::new().name(THREAD.to_owned()).spawn(tend)?;
        Ok(Self { shared, events })
    }

    /// Reads the file of a service. Of several that are asked for before one is read the last counts.
    pub(crate) fn load(&self, key: ServiceKey, number: u64) {
        self.shared.put(|queue| queue.load(key, number));
    }

    /// Writes the file of a service, whose set was last heard `age` ago. Of several that are not written
    /// yet the last counts.
    pub(crate) fn save(&self, key: ServiceKey, set: Arc<Snapshot>, age: Duration) {
        let now = wall_clock();
        self.shared
            .put(|queue| queue.save(key, Save { set, age, now }));
    }

    /// Ends when all that was to be written is.
    pub(crate) fn flush(&self) -> oneshot::Receiver<()> {
        let (done, flushed) = oneshot::channel();
        self.shared.put(|queue| queue.flush(done));
        flushed
    }

    /// The next event. May be dropped and asked for again.
    pub(crate) async fn next(&mut self) -> Event {
        match self.events.recv().await {
            Some(event) => event,
            None => std::future::pending().await, // the thread panicked: as if there were none
        }
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        self.shared.lock().over = true;
        self.shared.more.notify_one();
    }
}

impl Shared {
    fn put(&self, put: impl FnOnce(&mut Queue)) {
        put(&mut self.lock().queue);
        self.more.notify_one();
    }

    /// The next job, waited for; none when all is done and no more comes.
    fn take(&self) -> Option<Job> {
        let mut todo = self.lock();
        loop {
            if let Some(job) = todo.queue.next() {
                return Some(job);
            }
            if todo.over {
                return None;
            }
            todo = self.more.wait(todo).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Todo> {
        self.todo.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tend(mut store: Store, max_age: Duration, todo: &Shared, done: &events::UnboundedSender<Event>) {
    store.sweep(max_age, wall_clock());
    while let Some(job) = todo.take() {
        match job {
            Job::Load(key, number) => {
                let found = store.load(&key, max_age, wall_clock());
                let _ = done.send(Event::Loaded { key, number, found });
            }
            Job::Save(key, Save { set, age, now }) => {
                let result = store.save(&key, &set, age, now);
                let _ = done.send(Event::Saved { key, result });
            }
            Job::Flush(flushed) => {
                let _ = flushed.send(());
            }
        }
    }
}

/// What files are dated by.
pub(super) fn wall_clock() -> SystemTime {
    #[expect(
        clippy::disallowed_methods,
        reason = "an age that outlasts the process needs it; a clock that jumps makes a set older or younger and no more"
    )]
    SystemTime::now()
}

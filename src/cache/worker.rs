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
    sweep::Sweep,
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

/// What the thread does. Whoever starts waits for what is read, and only so long: of a volume where
/// to look at every file takes a second a first list that lacks instances would be believed meanwhile,
/// and be written over the file. So the folder is swept after the first job, and never while there
/// is another one.
struct Tending {
    store: Store,
    max_age: Duration,
    done: events::UnboundedSender<Event>,
    swept: Swept,
}

enum Swept {
    No,
    Now(Sweep),
    Done,
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
        let mut tending = Tending::new(store, max_age, done);
        let tend = move || {
            let end = End(todo);
            while tending.turn(&end.0) {}
        };
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

/// The thread's own: with it nothing is done any more, also where it panicked, and nobody waits for that.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        let mut todo = self.0.lock();
        todo.over = true;
        todo.queue = Queue::default();
    }
}

impl Shared {
    fn put(&self, put: impl FnOnce(&mut Queue)) {
        let mut todo = self.lock();
        if !todo.over {
            put(&mut todo.queue);
        }
        drop(todo);
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

    /// The next job, if there is one now.
    fn take_now(&self) -> Option<Job> {
        self.lock().queue.next()
    }

    fn lock(&self) -> MutexGuard<'_, Todo> {
        self.todo.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tending {
    fn new(store: Store, max_age: Duration, done: events::UnboundedSender<Event>) -> Self {
        Self {
            store,
            max_age,
            done,
            swept: Swept::No,
        }
    }

    /// Does one thing, which is waited for where nothing is to be done. False when nothing comes any
    /// more.
    fn turn(&mut self, shared: &Shared) -> bool {
        if let Swept::Now(sweep) = &mut self.swept {
            match shared.take_now() {
                Some(job) => self.run(job),
                None if sweep.step() => {}
                None => self.swept = Swept::Done,
            }
            return true;
        }
        let Some(job) = shared.take() else {
            return false;
        };
        self.run(job);
        if matches!(self.swept, Swept::No) {
            self.swept = Swept::Now(self.store.sweep(self.max_age, wall_clock()));
        }
        true
    }

    fn run(&mut self, job: Job) {
        match job {
            Job::Load(key, number) => {
                let found = self.store.load(&key, self.max_age, wall_clock());
                let _ = self.done.send(Event::Loaded { key, number, found });
            }
            Job::Save(key, Save { set, age, now }) => {
                let result = self.store.save(&key, &set, age, now);
                let _ = self.done.send(Event::Saved { key, result });
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

#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;

//! The thread that reads and writes, so that no disk holds up the driver or the runtime.

use std::{
    collections::VecDeque,
    io,
    path::PathBuf,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, SystemTime},
};

use tokio::sync::{mpsc as events, oneshot};

use super::store::{Found, Problem, Store};
use crate::{directory::Snapshot, model::ServiceKey};

/// A folder of files and the thread that tends it. The thread ends by itself when this is dropped and
/// what was asked for is done; nobody waits for it, since a disk may stand still.
#[derive(Debug)]
pub(crate) struct Cache {
    jobs: mpsc::Sender<Job>,
    events: events::UnboundedReceiver<Event>,
    max_age: Duration,
}

/// What became of what was asked for.
#[derive(Debug)]
pub(crate) enum Event {
    Loaded {
        key: ServiceKey,
        found: Result<Option<Found>, Problem>,
    },
    Saved {
        key: ServiceKey,
        result: Result<(), Problem>,
    },
}

#[derive(Debug)]
enum Job {
    Load {
        key: ServiceKey,
        max_age: Duration,
    },
    Save {
        key: ServiceKey,
        set: Arc<Snapshot>,
        age: Duration,
    },
    Flush(oneshot::Sender<()>),
}

/// At most 15 bytes, which is what Linux shows.
const THREAD: &str = "nacos-cache";

impl Cache {
    /// Starts the thread. `salt` differs from process to process.
    pub(crate) fn open(folder: PathBuf, max_age: Duration, salt: u64) -> io::Result<Self> {
        let (jobs, todo) = mpsc::channel();
        let (done, events) = events::unbounded_channel();
        let store = Store::new(folder, salt);
        let tend = move || tend(store, &todo, &done);
        thread::Builder::new().name(THREAD.to_owned()).spawn(tend)?;
        Ok(Self {
            jobs,
            events,
            max_age,
        })
    }

    /// Reads the file of a service.
    pub(crate) fn load(&self, key: ServiceKey) {
        let max_age = self.max_age;
        let _ = self.jobs.send(Job::Load { key, max_age }); // the thread outlives this
    }

    /// Writes the file of a service, whose set was last heard `age` ago.
    pub(crate) fn save(&self, key: ServiceKey, set: Arc<Snapshot>, age: Duration) {
        let _ = self.jobs.send(Job::Save { key, set, age });
    }

    /// Ends when all that was to be written is.
    pub(crate) fn flush(&self) -> oneshot::Receiver<()> {
        let (done, flushed) = oneshot::channel();
        let _ = self.jobs.send(Job::Flush(done));
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

fn tend(mut store: Store, todo: &mpsc::Receiver<Job>, done: &events::UnboundedSender<Event>) {
    store.sweep(wall_clock());
    let (mut loads, mut others) = (VecDeque::new(), VecDeque::new());
    // Whoever starts waits for what is read, and nobody for what is written: first that.
    while let Some(job) = next(todo, &mut loads, &mut others) {
        match job {
            Job::Load { key, max_age } => {
                let found = store.load(&key, max_age, wall_clock());
                let _ = done.send(Event::Loaded { key, found });
            }
            Job::Save { key, set, age } => {
                let result = store.save(&key, &set, age, wall_clock());
                let _ = done.send(Event::Saved { key, result });
            }
            Job::Flush(flushed) => {
                let _ = flushed.send(());
            }
        }
    }
}

fn next(
    todo: &mpsc::Receiver<Job>,
    loads: &mut VecDeque<Job>,
    others: &mut VecDeque<Job>,
) -> Option<Job> {
    let idle = loads.is_empty() && others.is_empty();
    let first = if idle { todo.recv().ok() } else { None };
    for job in first.into_iter().chain(todo.try_iter()) {
        match job {
            Job::Load { .. } => loads.push_back(job),
            Job::Save { .. } | Job::Flush(_) => others.push_back(job),
        }
    }
    loads.pop_front().or_else(|| others.pop_front())
}

/// What files are dated by.
pub(super) fn wall_clock() -> SystemTime {
    #[expect(
        clippy::disallowed_methods,
        reason = "an age that outlasts the process needs it; a clock that jumps makes a set older or younger and no more"
    )]
    SystemTime::now()
}

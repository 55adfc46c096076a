//! What the thread has yet to do. It grows with the services there are, not with what is asked for: a
//! newer set of a service takes the place of the one that waits, also while a disk stands still.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::sync::oneshot;

use crate::{directory::Snapshot, model::ServiceKey};

#[derive(Debug, Default)]
pub(super) struct Queue {
    loads: VecDeque<ServiceKey>,
    /// What each of them is called, as it was asked for last.
    asked: HashMap<ServiceKey, u64>,
    others: VecDeque<Other>,
    /// The newest set of each service that is to be written.
    sets: HashMap<ServiceKey, Save>,
}

#[derive(Debug)]
pub(super) struct Save {
    pub(super) set: Arc<Snapshot>,
    /// When it was last known to be what the registry says: `age` before `now`. What waits grows older.
    pub(super) age: Duration,
    pub(super) now: SystemTime,
}

#[derive(Debug)]
enum Other {
    Save(ServiceKey),
    Flush(oneshot::Sender<()>),
}

#[derive(Debug)]
pub(super) enum Job {
    Load(ServiceKey, u64),
    Save(ServiceKey, Save),
    Flush(oneshot::Sender<()>),
}

impl Queue {
    pub(super) fn load(&mut self, key: ServiceKey, number: u64) {
        if self.asked.insert(key.clone(), number).is_none() {
            self.loads.push_back(key);
        }
    }

    pub(super) fn save(&mut self, key: ServiceKey, save: Save) {
        if self.sets.insert(key.clone(), save).is_none() {
            self.others.push_back(Other::Save(key));
        }
    }

    /// Told when all that is to be written now is.
    pub(super) fn flush(&mut self, flushed: oneshot::Sender<()>) {
        self.others.push_back(Other::Flush(flushed));
    }

    /// What to do next. Whoever starts waits for what is read, and nobody for what is written: first
    /// that, but for what is to be read of a service that is yet to be written.
    pub(super) fn next(&mut self) -> Option<Job> {
        if let Some(key) = self.loads.front() {
            if let Some((key, save)) = self.sets.remove_entry(key) {
                let is_it = |other: &Other| matches!(other, Other::Save(other) if *other == key);
                self.others.retain(|other| !is_it(other));
                return Some(Job::Save(key, save));
            }
            let asked = self.asked.remove_entry(key);
            self.loads.pop_front();
            if let Some((key, number)) = asked {
                return Some(Job::Load(key, number));
            }
        }
        while let Some(other) = self.others.pop_front() {
            match other {
                Other::Flush(flushed) => return Some(Job::Flush(flushed)),
                Other::Save(key) => {
                    if let Some((key, save)) = self.sets.remove_entry(&key) {
                        return Some(Job::Save(key, save));
                    }
                }
            }
        }
        None
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let waiting = self.loads.len() + self.others.len();
        waiting + self.asked.len() + self.sets.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::{Options, channel};

    fn key(name: &str) -> ServiceKey {
        ServiceKey::new("dev", name.parse().unwrap()).unwrap()
    }

    fn save(number: u64) -> Save {
        Save {
            set: channel(key("any"), Options::default()).1.snapshot(),
            age: Duration::from_secs(number),
            now: SystemTime::UNIX_EPOCH,
        }
    }

    fn drain(queue: &mut Queue) -> Vec<String> {
        let jobs = std::iter::from_fn(|| queue.next());
        jobs.map(|job| match job {
            Job::Load(key, number) => format!("load {} {number}", key.name()),
            Job::Save(key, save) => format!("save {} {}", key.name(), save.age.as_secs()),
            Job::Flush(flushed) => {
                flushed.send(()).unwrap();
                "flush".to_owned()
            }
        })
        .collect()
    }

    #[test]
    fn what_is_read_comes_first_but_not_before_it_is_written() {
        let mut queue = Queue::default();
        queue.save(key("a"), save(1));
        queue.save(key("b"), save(2));
        let (flushed, _at_the_end) = oneshot::channel();
        queue.flush(flushed);
        queue.load(key("c"), 3);
        queue.load(key("b"), 4);
        let all = ["load c 3", "save b 2", "load b 4", "save a 1", "flush"];
        assert_eq!(drain(&mut queue), all);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn a_flush_is_over_when_what_was_there_before_is_written() {
        let mut queue = Queue::default();
        let (flushed, _later) = oneshot::channel();
        queue.save(key("a"), save(1));
        queue.flush(flushed);
        queue.save(key("b"), save(2));
        queue.save(key("a"), save(3));
        assert_eq!(drain(&mut queue), ["save a 3", "flush", "save b 2"]);
    }

    /// A service that comes and goes, on a disk that stands still.
    #[test]
    fn what_waits_does_not_grow_with_what_is_asked_for() {
        let mut queue = Queue::default();
        for number in 0..1000 {
            queue.load(key("a"), number);
            queue.save(key("a"), save(number));
        }
        assert!(queue.len() <= 4, "{}", queue.len());
        assert_eq!(drain(&mut queue), ["save a 999", "load a 999"]);
        for number in 0..1000 {
            queue.save(key("a"), save(number));
            queue.load(key("a"), number);
            assert!(matches!(queue.next(), Some(Job::Save(..))));
        }
        assert!(queue.len() <= 2, "{}", queue.len());
    }
}

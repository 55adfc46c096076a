//! What a subscriber sees, and whether it was ever wrong.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{sync::watch, time::timeout};
use tower_nacos::Subscription;

use crate::{HANG, callable};

/// Keeps the newest set that a subscriber was told, and counts the times that an instance was
/// missing in it which was alive throughout.
#[derive(Clone)]
pub(crate) struct Observer {
    set: watch::Sender<BTreeSet<u16>>,
    judges: Arc<Mutex<BTreeMap<Whose, Judge>>>,
}

/// Whose instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Whose {
    Ours,
    Java,
}

/// What is known to be alive, and what a subscriber made of it.
#[derive(Debug, Default)]
struct Judge {
    alive: BTreeSet<u16>,
    missing_since: Option<Instant>,
    wrong: usize,
    longest: Duration,
    /// The same, since somebody took it.
    lately: Duration,
}

impl Observer {
    pub(crate) fn new() -> Self {
        Self {
            set: watch::Sender::new(BTreeSet::new()),
            judges: Arc::default(),
        }
    }

    /// Observes one of our subscriptions for as long as it lives.
    pub(crate) fn follow(&self, subscription: Subscription) {
        let observer = self.clone();
        tokio::spawn(async move {
            let mut changes = subscription.changes();
            while changes.next().await.is_some() {
                if !subscription
                    .status()
                    .eq(&tower_nacos::directory::Status::Closed)
                {
                    observer.see(callable(&subscription));
                }
            }
        });
    }

    /// A set, as the subscriber was told.
    pub(crate) fn see(&self, set: BTreeSet<u16>) {
        for judge in self.judges.lock().unwrap().values_mut() {
            judge.see(&set);
        }
        self.set.send_replace(set);
    }

    /// From now on these are alive; none may be missing.
    pub(crate) fn demand(&self, whose: Whose, alive: BTreeSet<u16>) {
        let mut judges = self.judges.lock().unwrap();
        judges.entry(whose).or_default().alive = alive;
    }

    /// Waits until the set `is` so; the time it then was.
    pub(crate) async fn until(&self, is: impl FnMut(&BTreeSet<u16>) -> bool) -> Option<Instant> {
        let mut set = self.set.subscribe();
        let waited = timeout(HANG, set.wait_for(is)).await;
        waited.ok()?.ok()?;
        Some(Instant::now())
    }

    /// How often an instance of these that was alive was missing, and for how long at most.
    pub(crate) fn verdict(&self, whose: Whose) -> (usize, Duration) {
        let judges = self.judges.lock().unwrap();
        let Some(judge) = judges.get(&whose) else {
            return (0, Duration::ZERO);
        };
        let now = judge.missing_since.map(|since| since.elapsed());
        (judge.wrong, judge.longest.max(now.unwrap_or_default()))
    }

    /// For how long one was missing since this was asked last.
    pub(crate) fn take_longest(&self, whose: Whose) -> Duration {
        let mut judges = self.judges.lock().unwrap();
        let Some(judge) = judges.get_mut(&whose) else {
            return Duration::ZERO;
        };
        let now = judge.missing_since.map(|since| since.elapsed());
        std::mem::take(&mut judge.lately).max(now.unwrap_or_default())
    }
}

impl Judge {
    fn see(&mut self, set: &BTreeSet<u16>) {
        if self.alive.is_subset(set) {
            if let Some(since) = self.missing_since.take() {
                self.longest = self.longest.max(since.elapsed());
                self.lately = self.lately.max(since.elapsed());
            }
        } else if self.missing_since.is_none() {
            self.missing_since = Some(Instant::now());
            self.wrong += 1;
        }
    }
}

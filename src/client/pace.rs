//! How quickly the registry answers and tells, for whoever looks. A few stores after each event, and nobody waits.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::session::{self, Lately};

/// Written by the driver and read by anybody; in µs.
#[derive(Debug)]
pub(super) struct Pace {
    answer: AtomicU64,
    answers: AtomicU64,
    push: AtomicU64,
    pushes: AtomicU64,
    push_error: AtomicU64,
}

/// What was read of it: `None` is unknown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paced {
    /// From a request to its answer: the last one.
    pub(crate) answer: Option<Duration>,
    /// And lately.
    pub(crate) answers: Option<Duration>,
    /// From a push's stamp to its arrival: the last one.
    pub(crate) push: Option<Duration>,
    /// And lately.
    pub(crate) pushes: Option<Duration>,
    /// By how much the last one may be wrong.
    pub(crate) push_error: Option<Duration>,
}

impl Default for Pace {
    fn default() -> Self {
        let unknown = || AtomicU64::new(UNKNOWN);
        Self {
            answer: unknown(),
            answers: unknown(),
            push: unknown(),
            pushes: unknown(),
            push_error: unknown(),
        }
    }
}

impl Pace {
    /// Of the connection in use, if there is one.
    pub(super) fn store(&self, pace: Option<&session::Pace>) {
        let answers = pace.and_then(session::Pace::answers);
        let pushes = pace.and_then(session::Pace::pushes);
        store([&self.answer, &self.answers], answers);
        store([&self.push, &self.pushes], pushes.map(|(lately, _)| lately));
        let error = pushes.map(|(_, error)| error);
        self.push_error.store(micros(error), Relaxed);
    }

    /// As it is now.
    pub(super) fn read(&self) -> Paced {
        let read = |of: &AtomicU64| {
            let micros = of.load(Relaxed);
            (micros != UNKNOWN).then(|| Duration::from_micros(micros))
        };
        Paced {
            answer: read(&self.answer),
            answers: read(&self.answers),
            push: read(&self.push),
            pushes: read(&self.pushes),
            push_error: read(&self.push_error),
        }
    }
}

fn store([last, smoothed]: [&AtomicU64; 2], lately: Option<Lately>) {
    last.store(micros(lately.map(|l| l.last)), Relaxed);
    smoothed.store(micros(lately.map(|l| l.smoothed)), Relaxed);
}

fn micros(took: Option<Duration>) -> u64 {
    took.map_or(UNKNOWN, |took| {
        u64::try_from(took.as_micros()).unwrap_or(UNKNOWN - 1)
    })
}

const UNKNOWN: u64 = u64::MAX;

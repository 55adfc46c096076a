//! What callers saw, what providers wrote into their journals, and what happened when.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use tower_nacos::Address;

/// How a caller calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    Http1,
    Http2,
    Grpc,
}

pub(crate) struct Books {
    start: Instant,
    ids: AtomicU64,
    pages: Mutex<Pages>,
}

#[derive(Default)]
pub(crate) struct Pages {
    pub(crate) calls: Vec<Call>,
    pub(crate) lives: Vec<Life>,
    pub(crate) marks: Vec<Mark>,
    /// From the push of a removal until it was applied.
    pub(crate) evictions: Vec<Duration>,
    /// Evictions that a mark on a response brought, before the push did.
    pub(crate) marked: usize,
    /// Answers of each provider in each [`BUCKET`] by each way.
    pub(crate) answers: Vec<Vec<[u32; 3]>>,
    pub(crate) failures: Vec<u32>,
    pub(crate) failed: usize,
    pub(crate) last_failure: Option<String>,
}

/// A call as its caller saw it.
pub(crate) struct Call {
    pub(crate) id: u64,
    pub(crate) way: Way,
    pub(crate) began: Duration,
    pub(crate) ended: Duration,
    pub(crate) outcome: Outcome,
}

pub(crate) enum Outcome {
    /// By the life of this name.
    Answered(String),
    Failed(Failure),
}

/// What the error of a call said.
pub(crate) struct Failure {
    /// The name of the life that had begun to answer, or else the instance that the error names.
    pub(crate) at: Option<String>,
    /// A connection had taken the request, and was lost before it had the whole answer.
    pub(crate) taken_and_lost: bool,
    pub(crate) text: String,
}

/// One process, from its start to its end.
pub(crate) struct Life {
    pub(crate) provider: usize,
    pub(crate) name: String,
    pub(crate) begun: HashMap<u64, u32>,
    pub(crate) finished: HashMap<u64, u32>,
    /// The last request that was given out when the eviction was reported as applied.
    pub(crate) evicted_at: Option<u64>,
    pub(crate) killed: Option<Killed>,
}

pub(crate) struct Killed {
    pub(crate) address: Address,
    /// Just before the signal, and once there was no process any more.
    pub(crate) from: Duration,
    pub(crate) to: Duration,
}

#[derive(Clone, Copy)]
pub(crate) struct Mark {
    pub(crate) at: Duration,
    pub(crate) provider: usize,
    pub(crate) what: Happening,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Happening {
    Offline,
    Killed,
    Evicted,
    /// Evicted by its own word.
    Marked,
    LastCall,
    Exited,
    Returned,
}

pub(crate) const BUCKET: Duration = Duration::from_millis(100);

impl Books {
    pub(crate) fn open(providers: usize) -> Self {
        Self {
            start: Instant::now(),
            ids: AtomicU64::new(0),
            pages: Mutex::new(Pages {
                answers: vec![Vec::new(); providers],
                ..Pages::default()
            }),
        }
    }

    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    pub(crate) fn read(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, SeqCst) + 1
    }

    pub(crate) fn ended(&self, call: Call) {
        let mut pages = self.read();
        let pages = &mut *pages;
        let bucket = (call.ended.as_millis() / BUCKET.as_millis()) as usize;
        match &call.outcome {
            Outcome::Answered(by) => {
                let provider = (by.as_bytes().first().copied().unwrap_or(b'a') - b'a') as usize;
                if let Some(answers) = pages.answers.get_mut(provider) {
                    grown(answers, bucket)[call.way as usize] += 1;
                }
            }
            Outcome::Failed(failure) => {
                pages.failed += 1;
                pages.last_failure = Some(failure.text.clone());
                *grown(&mut pages.failures, bucket) += 1;
            }
        }
        pages.calls.push(call);
    }

    /// Its number, and its name.
    pub(crate) fn new_life(&self, provider: usize) -> (usize, String) {
        let mut pages = self.read();
        let before = pages
            .lives
            .iter()
            .filter(|life| life.provider == provider)
            .count();
        let name = format!("{}.{}", name_of(provider), before + 1);
        pages.lives.push(Life {
            provider,
            name: name.clone(),
            begun: HashMap::new(),
            finished: HashMap::new(),
            evicted_at: None,
            killed: None,
        });
        (pages.lives.len() - 1, name)
    }

    pub(crate) fn begun(&self, life: usize, id: u64) {
        *self.read().lives[life].begun.entry(id).or_default() += 1;
    }

    pub(crate) fn finished(&self, life: usize, id: u64) {
        *self.read().lives[life].finished.entry(id).or_default() += 1;
    }

    /// Its eviction is applied now, so long after its push, or by a mark: no request that is given out from here on may reach it.
    pub(crate) fn evicted(&self, life: usize, took: Option<Duration>) {
        let last = self.ids.load(SeqCst);
        let mut pages = self.read();
        pages.lives[life].evicted_at = Some(last);
        match took {
            Some(took) => pages.evictions.push(took),
            None => pages.marked += 1,
        }
    }

    /// When the last call began that each life which left by itself has answered.
    pub(crate) fn mark_last_calls(&self) {
        let mut pages = self.read();
        let pages = &mut *pages;
        for life in pages
            .lives
            .iter()
            .filter(|life| life.evicted_at.is_some() && life.killed.is_none())
        {
            let its =
                |call: &&Call| matches!(&call.outcome, Outcome::Answered(by) if *by == life.name);
            let last = pages.calls.iter().filter(its).map(|call| call.began).max();
            pages.marks.extend(last.map(|at| Mark {
                at,
                provider: life.provider,
                what: Happening::LastCall,
            }));
        }
    }

    pub(crate) fn mark(&self, provider: usize, what: Happening) {
        let at = self.now();
        self.read().marks.push(Mark { at, provider, what });
    }
}

impl Life {
    pub(crate) fn calls(&self) -> usize {
        self.begun.len()
    }
}

impl Happening {
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Offline => "deregistered",
            Self::Killed => "killed",
            Self::Evicted => "evicted",
            Self::Marked => "marked",
            Self::LastCall => "last call",
            Self::Exited => "exit",
            Self::Returned => "listed again",
        }
    }
}

pub(crate) fn name_of(provider: usize) -> char {
    (b'a' + provider as u8) as char
}

fn grown<T: Default + Clone>(values: &mut Vec<T>, at: usize) -> &mut T {
    if values.len() <= at {
        values.resize(at + 1, T::default());
    }
    &mut values[at]
}

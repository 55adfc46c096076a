//! loom's atomics, one of whose orderings a test may weaken.
//!
//! A model that still passes with a weakened ordering shows nothing about it, so each ordering of
//! the gate has a test that weakens it and must fail. The choice is the test thread's own: loom
//! runs all threads of a model on the thread that started it.

use std::cell::Cell;

pub use loom::sync::atomic::Ordering;

/// The operations of the gate that have an ordering to lose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    /// `fetch_add`: admission.
    Admit,
    /// `fetch_sub` of more than one with release: the end of `Service::call`.
    Leave,
    /// `fetch_sub` of one: the end of a call.
    Finish,
    /// `fetch_or`: eviction and closing.
    Close,
    /// `fetch_and`: reopening.
    Reopen,
    /// `load`.
    State,
}

thread_local! {
    static WEAK: Cell<Option<Site>> = const { Cell::new(None) };
}

/// Makes the orderings of `site` relaxed on this thread from here on.
pub fn weaken(site: Site) {
    WEAK.with(|weak| weak.set(Some(site)));
}

#[derive(Debug)]
pub struct AtomicU64(loom::sync::atomic::AtomicU64);

impl AtomicU64 {
    pub fn new(value: u64) -> Self {
        Self(loom::sync::atomic::AtomicU64::new(value))
    }

    pub fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
        self.0.fetch_add(value, at(Site::Admit, order))
    }

    pub fn fetch_sub(&self, value: u64, order: Ordering) -> u64 {
        let site = if value == 1 {
            Site::Finish
        } else {
            Site::Leave
        };
        self.0.fetch_sub(value, at(site, order))
    }

    pub fn fetch_or(&self, value: u64, order: Ordering) -> u64 {
        self.0.fetch_or(value, at(Site::Close, order))
    }

    pub fn fetch_and(&self, value: u64, order: Ordering) -> u64 {
        self.0.fetch_and(value, at(Site::Reopen, order))
    }

    pub fn load(&self, order: Ordering) -> u64 {
        self.0.load(at(Site::State, order))
    }
}

fn at(site: Site, order: Ordering) -> Ordering {
    if WEAK.with(Cell::get) == Some(site) {
        Ordering::Relaxed
    } else {
        order
    }
}

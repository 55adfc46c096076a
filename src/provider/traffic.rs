//! What the layer counts, and what it is told. Atomics alone: calls share no lock.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::sync::{Notify, futures::OwnedNotified};

use super::{clock, sequence::Calls};

/// The calls of one provider.
#[derive(Debug)]
pub(super) struct Traffic {
    start: Instant,
    in_flight: AtomicUsize,
    /// When the last call came; ns since `start`, 0 for never.
    last: AtomicU64,
    /// The last times between two calls, in µs; 0 for none.
    intervals: [AtomicU32; INTERVALS],
    next: AtomicUsize,
    /// Responses carry the mark from then on: ns since `start`, 0 for not yet.
    marked: AtomicU64,
    stopped: AtomicBool,
    is_cut: AtomicBool,
    after_offline: AtomicU64,
    after_stop: AtomicU64,
    rejected: AtomicU64,
    misdirected: AtomicU64,
    cut: AtomicU64,
    idle: Notify,
    /// Wakes calls when they are cut. Each call waits at one of them, so that they share no lock.
    cuts: [Arc<Notify>; STRIPES],
    stripe: AtomicUsize,
    /// In flight when listening stopped.
    at_stop: Mutex<Option<usize>>,
}

/// Enough for a median that a burst does not turn.
const INTERVALS: usize = 64;
const STRIPES: usize = 16;

/// What was counted since the provider went offline.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counted {
    pub(super) last: Option<Instant>,
    pub(super) after_offline: u64,
    pub(super) after_stop: u64,
    pub(super) in_flight: usize,
    pub(super) at_stop: Option<usize>,
    pub(super) rejected: u64,
    pub(super) misdirected: u64,
    pub(super) cut: u64,
}

/// One call in flight, until it is dropped.
#[derive(Debug)]
pub(super) struct InFlight(Arc<Traffic>);

impl Traffic {
    pub(super) fn new() -> Self {
        Self {
            start: clock::now(),
            in_flight: AtomicUsize::new(0),
            last: AtomicU64::new(0),
            intervals: [const { AtomicU32::new(0) }; INTERVALS],
            next: AtomicUsize::new(0),
            marked: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            is_cut: AtomicBool::new(false),
            after_offline: AtomicU64::new(0),
            after_stop: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            misdirected: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            idle: Notify::new(),
            cuts: std::array::from_fn(|_| Arc::default()),
            stripe: AtomicUsize::new(0),
            at_stop: Mutex::new(None),
        }
    }

    /// A call comes. `counts`: it is a caller's, and not somebody's who looks after us.
    pub(super) fn enter(self: &Arc<Self>, counts: bool) -> InFlight {
        self.in_flight.fetch_add(1, SeqCst);
        if counts {
            self.arrived(self.since_start());
        }
        InFlight(self.clone())
    }

    fn arrived(&self, at: u64) {
        let before = self.last.fetch_max(at, SeqCst);
        if before != 0 {
            let interval = at.saturating_sub(before) / 1_000;
            let interval = u32::try_from(interval).unwrap_or(u32::MAX).max(1);
            let slot = self.next.fetch_add(1, SeqCst) % INTERVALS;
            self.intervals[slot].store(interval, SeqCst);
        }
        if self.is_marked() {
            self.after_offline.fetch_add(1, SeqCst);
        }
        if self.stopped.load(SeqCst) {
            self.after_stop.fetch_add(1, SeqCst);
        }
    }

    /// Never 0, which stands for never.
    fn since_start(&self) -> u64 {
        let since = clock::now().saturating_duration_since(self.start);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX).max(1)
    }

    pub(super) fn mark(&self) {
        let _ = self
            .marked
            .compare_exchange(0, self.since_start(), SeqCst, SeqCst);
    }

    pub(super) fn is_marked(&self) -> bool {
        self.marked.load(SeqCst) != 0
    }

    /// How long responses have carried the mark.
    fn marked_for(&self) -> Option<Duration> {
        match self.marked.load(SeqCst) {
            0 => None,
            at => Some(Duration::from_nanos(self.since_start().saturating_sub(at))),
        }
    }

    pub(super) fn stop(&self) {
        let mut at_stop = self.at_stop.lock().unwrap_or_else(PoisonError::into_inner);
        at_stop.get_or_insert(self.in_flight.load(SeqCst));
        self.stopped.store(true, SeqCst);
    }

    /// Whether a call that comes now gets no answer but 503.
    pub(super) fn rejects(&self, after: Option<Duration>) -> bool {
        let late = || {
            self.marked_for()
                .zip(after)
                .is_some_and(|(time, after)| time >= after)
        };
        self.is_cut() || (after.is_some() && late())
    }

    pub(super) fn count_rejected(&self) {
        self.rejected.fetch_add(1, SeqCst);
    }

    pub(super) fn count_misdirected(&self) {
        self.misdirected.fetch_add(1, SeqCst);
    }

    /// Ends what is in flight, which counts as cut from now on, whenever it sees that.
    pub(super) fn cut(&self) {
        if self.is_cut.swap(true, SeqCst) {
            return;
        }
        let left = u64::try_from(self.in_flight.load(SeqCst)).unwrap_or(u64::MAX);
        self.cut.store(left, SeqCst);
        for stripe in &self.cuts {
            stripe.notify_waiters();
        }
    }

    pub(super) fn is_cut(&self) -> bool {
        self.is_cut.load(SeqCst)
    }

    /// Ready when calls are cut. Look at [`is_cut`](Self::is_cut) once it was made.
    pub(super) fn when_cut(&self) -> OwnedNotified {
        let stripe = self.stripe.fetch_add(1, SeqCst) % STRIPES;
        self.cuts[stripe].clone().notified_owned()
    }

    /// Returns when the last call in flight has ended after the end of listening; or sooner.
    pub(super) async fn idle(&self) {
        self.idle.notified().await;
    }

    pub(super) fn calls(&self) -> Calls {
        Calls {
            last: self.last(),
            interval: self.interval(),
            in_flight: self.in_flight.load(SeqCst),
        }
    }

    fn last(&self) -> Option<Instant> {
        match self.last.load(SeqCst) {
            0 => None,
            at => Some(self.start + Duration::from_nanos(at)),
        }
    }

    /// The median.
    fn interval(&self) -> Option<Duration> {
        let loaded = self.intervals.iter().map(|interval| interval.load(SeqCst));
        let mut known: Vec<u32> = loaded.filter(|interval| *interval != 0).collect();
        known.sort_unstable();
        let median = known.get(known.len() / 2)?;
        Some(Duration::from_micros(u64::from(*median)))
    }

    pub(super) fn counted(&self) -> Counted {
        let at_stop = self.at_stop.lock().unwrap_or_else(PoisonError::into_inner);
        Counted {
            last: self.last(),
            after_offline: self.after_offline.load(SeqCst),
            after_stop: self.after_stop.load(SeqCst),
            in_flight: self.in_flight.load(SeqCst),
            at_stop: *at_stop,
            rejected: self.rejected.load(SeqCst),
            misdirected: self.misdirected.load(SeqCst),
            cut: self.cut.load(SeqCst),
        }
    }
}

impl InFlight {
    pub(super) fn traffic(&self) -> &Traffic {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let before = self.0.in_flight.fetch_sub(1, SeqCst);
        if before == 1 && self.0.stopped.load(SeqCst) {
            self.0.idle.notify_one();
        }
    }
}

/// Ready when calls are cut. Costs nothing until something has to wait.
pub(super) fn poll_cut(
    mut cut: Pin<&mut Option<OwnedNotified>>,
    traffic: &Traffic,
    cx: &mut Context<'_>,
) -> Poll<()> {
    if cut.is_none() {
        cut.set(Some(traffic.when_cut()));
    }
    if traffic.is_cut() {
        return Poll::Ready(());
    }
    match cut.as_pin_mut() {
        Some(cut) => cut.poll(cx),
        None => Poll::Pending,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_that_of_the_last_intervals() {
        let traffic = Traffic::new();
        assert_eq!(traffic.interval(), None);
        traffic.arrived(1_000_000);
        assert_eq!(traffic.interval(), None);
        for call in 1..=100 {
            traffic.arrived(1_000_000 + call * 2_000_000);
        }
        traffic.arrived(10_000_000_000); // a pause is one interval
        assert_eq!(traffic.interval(), Some(Duration::from_millis(2)));
        // A clock that two threads read in the other order makes no interval of centuries.
        traffic.arrived(9_999_999_999);
        assert_eq!(traffic.calls().last, traffic.last());
    }

    #[test]
    fn a_call_is_in_flight_until_it_is_dropped() {
        let traffic = Arc::new(Traffic::new());
        let (first, second) = (traffic.enter(true), traffic.enter(false));
        assert_eq!(traffic.calls().in_flight, 2);
        traffic.stop();
        drop((first, second));
        let counted = traffic.counted();
        assert_eq!((counted.in_flight, counted.at_stop), (0, Some(2)));
        assert_eq!(counted.after_stop, 0);
        drop(traffic.enter(true));
        assert_eq!(traffic.counted().after_stop, 1);
    }
}

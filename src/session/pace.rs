//! How quickly a server answers, and how long its pushes are on the way.
//!
//! A push carries one time: `lastRefTime`, the server's wall clock as it wrote the list. Two clocks cannot be
//! compared, but answers with a list carry that stamp, too, and it was written between request and answer.
//! So each answer says what the server's clock showed at a moment of ours, give or take its round trip, and a
//! push's delay follows by the monotonic clock alone: neither a wrong zone nor a wrong hour of either machine
//! counts.
//!
//! Seen of genuine 3.1.0 and 2.2.4 and of rnacos 0.8.8 (`tests/conformance/pace.rs`): the stamps of a first answer and
//! of the push after it agree within that error, so both say when a list was written, not when something changed.
//! A delay thus has the server's queue, the network and this process's own in it. It does not have the half second in
//! which Nacos gathers changes: no message tells of that; the command's `doctor` measures it.

use std::time::{Duration, Instant};

/// One connection's.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    answers: Option<Lately>,
    pushes: Option<(Lately, Duration)>,
    clock: Option<Clock>,
}

/// How long something took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lately {
    pub(crate) last: Duration,
    /// Each new one counts for an eighth, as TCP does it (RFC 6298).
    pub(crate) smoothed: Duration,
}

/// What the server's clock showed between two moments of ours.
#[derive(Clone, Copy, Debug)]
struct Clock {
    /// In ms.
    stamp: i64,
    asked: Instant,
    answered: Instant,
}

/// In µs, how long ago something was stamped: the least and the most.
#[derive(Clone, Copy)]
struct Span {
    least: i64,
    most: i64,
}

impl Pace {
    /// From a request to its answer; `None` before the first.
    #[cfg_attr(
        not(feature = "status"),
        expect(dead_code, reason = "the status page shows it")
    )]
    pub(crate) const fn answers(&self) -> Option<Lately> {
        self.answers
    }

    /// From a push's stamp to its arrival, and by how much that may be wrong; `None` before the first push,
    /// and when the server's clock stepped since the last answer.
    #[cfg_attr(
        not(feature = "status"),
        expect(dead_code, reason = "the status page shows it")
    )]
    pub(crate) const fn pushes(&self) -> Option<(Lately, Duration)> {
        self.pushes
    }

    /// Any answer, good or bad.
    pub(super) fn answered(&mut self, sent: Instant, now: Instant) {
        let took = now.saturating_duration_since(sent);
        self.answers = Some(Lately::after(self.answers, took));
    }

    /// The answer to what was `sent` then has a list with this stamp; 0 is none.
    pub(super) fn told(&mut self, stamp: i64, sent: Instant, now: Instant) {
        if stamp == 0 {
            return;
        }
        let told = Clock {
            stamp,
            asked: sent,
            answered: now,
        };
        let keeps = self.clock.is_some_and(|clock| clock.is_better(&told));
        if !keeps {
            self.clock = Some(told);
        }
    }

    /// A push with this stamp has come.
    pub(super) fn pushed(&mut self, stamp: i64, now: Instant) {
        let span = self.clock.and_then(|clock| clock.since(stamp, now));
        let Some((took, error)) = span.filter(|_| stamp != 0).and_then(Span::delay) else {
            self.clock = None; // it stepped, or says nothing: the next answer tells anew
            self.pushes = None;
            return;
        };
        let before = self.pushes.map(|(lately, _)| lately);
        self.pushes = Some((Lately::after(before, took), error));
    }
}

impl Lately {
    fn after(before: Option<Self>, took: Duration) -> Self {
        let smoothed = before.map_or(took, |Self { smoothed, .. }| smoothed / 8 * 7 + took / 8);
        Self {
            last: took,
            smoothed,
        }
    }
}

impl Clock {
    /// How long before `now` the server's clock showed `stamp`, if numbers are large enough for that.
    fn since(&self, stamp: i64, now: Instant) -> Option<Span> {
        let further = stamp.checked_sub(self.stamp)?.checked_mul(1_000)?;
        let (since_asked, since_answered) = (micros(self.asked, now), micros(self.answered, now));
        let loose = RESOLUTION + since_answered / DRIFT;
        Some(Span {
            least: since_answered.checked_sub(further)?.checked_sub(loose)?,
            most: since_asked.checked_sub(further)?.checked_add(loose)?,
        })
    }

    /// Whether it says more than a later one, which does not contradict it.
    fn is_better(&self, later: &Self) -> bool {
        let (asked, answered) = (later.asked, later.answered);
        let round_trip = micros(asked, answered);
        let Some(span) = self.since(later.stamp, answered) else {
            return false;
        };
        let agrees = span.most >= 0 && span.least <= round_trip;
        agrees && span.most - span.least < round_trip + 2 * RESOLUTION
    }
}

impl Span {
    /// Its middle and how far it reaches; `None` for what cannot be, or says nothing.
    fn delay(self) -> Option<(Duration, Duration)> {
        let least = self.least.max(0);
        let possible = self.most >= least && least < MOST;
        let half = (self.most - least) / 2;
        let micros = |n: i64| Duration::from_micros(n.unsigned_abs());
        (possible && half < VAGUE).then(|| (micros(least + half), micros(half)))
    }
}

fn micros(from: Instant, to: Instant) -> i64 {
    let micros = to.saturating_duration_since(from).as_micros();
    i64::try_from(micros).unwrap_or(i64::MAX)
}

/// Stamps are whole milliseconds.
const RESOLUTION: i64 = 1_000;
/// Two clocks part by 100 ppm at most, twice what crystals are sold with.
const DRIFT: i64 = 10_000;
/// A push is not a minute on the way: a connection that stands still so long was given up before. So it is
/// the server's clock that was set back.
const MOST: i64 = 60_000_000;
/// What may be wrong by more than this is not told.
const VAGUE: i64 = 1_000_000;

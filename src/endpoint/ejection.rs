use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::endpoint::Outliers;

/// For how long an instance that could not be reached, or answered badly, gets no call.
///
/// Costs two words until the instance fails.
#[derive(Default)]
pub(crate) struct Ejection {
    record: Mutex<Option<Box<Record>>>,
}

#[derive(Default)]
struct Record {
    cause: Cause,
    /// Failures to reach it in a row.
    failures: u32,
    /// When it may be probed; `None` while somebody may, or does, and when it is not ejected.
    due: Option<Instant>,
    /// How often it was ejected for its answers.
    times: u32,
    /// Since when it is back.
    back: Option<Instant>,
    /// When it last lost a connection with a call on it.
    lost: Option<Instant>,
    /// Whether a probe that is due at once, or on its way, is about to tell what is wrong.
    suspect: bool,
}

/// Why an instance is ejected.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Cause {
    /// It is not.
    #[default]
    None,
    /// It could not be reached.
    Connection,
    /// It answered badly.
    Outlier,
}

impl Ejection {
    /// One failure more: 1 s of rest after the first, twice as long after each further one, 30 s
    /// at most. None if all that happened is that a connection was lost, which is forgiven once in
    /// 10 s. True if there is none.
    pub(crate) fn failed(&self, now: Instant, lost: bool) -> bool {
        let mut record = self.lock();
        let record = record.get_or_insert_default();
        record.cause = Cause::Connection;
        let recent = |at: Instant| now.saturating_duration_since(at) < FORGIVEN_EACH;
        let at_once = lost && !record.lost.is_some_and(recent);
        if lost {
            record.lost = Some(now);
        }
        record.suspect = at_once;
        if at_once {
            record.due = Some(now);
            return true;
        }
        record.failures = record.failures.saturating_add(1);
        let rest = FIRST_REST
            .saturating_mul(1 << (record.failures - 1).min(10))
            .min(LONGEST_REST);
        record.due = Some(now + rest);
        false
    }

    /// It answered badly once too often: the rest is longer each time. For each `longest` that it
    /// was back since, one time is forgotten.
    pub(crate) fn misbehaved(&self, now: Instant, rules: &Outliers) {
        let mut record = self.lock();
        let record = record.get_or_insert_default();
        if let Some(back) = record.back.take() {
            let well = now.saturating_duration_since(back).as_secs_f64();
            let forgotten = well / rules.longest.as_secs_f64().max(f64::MIN_POSITIVE);
            record.times = record.times.saturating_sub(forgotten as u32);
        }
        record.cause = Cause::Outlier;
        record.times = record.times.saturating_add(1);
        let rest = rules.base.saturating_mul(record.times).min(rules.longest);
        record.due = now.checked_add(rest.min(ENDLESS));
    }

    /// It was reached, or let back in: what was counted is void, but for how often it was ejected
    /// for its answers, and when it last lost a connection.
    pub(crate) fn succeeded(&self, now: Instant) {
        let mut record = self.lock();
        let Some(former) = record.take() else {
            return;
        };
        if former.times > 0 || former.lost.is_some() {
            *record = Some(Box::new(Record {
                times: former.times,
                back: (former.times > 0).then(|| former.back.unwrap_or(now)),
                lost: former.lost,
                ..Record::default()
            }));
        }
    }

    /// Whether it is ejected for its answers.
    pub(crate) fn is_outlier(&self) -> bool {
        let record = self.lock();
        record.as_ref().is_some_and(|r| r.cause == Cause::Outlier)
    }

    /// Another instance was reached after none could be: the rest ends now.
    pub(crate) fn hurry(&self, now: Instant) {
        if let Some(record) = &mut *self.lock()
            && record.cause == Cause::Connection
        {
            record.failures = 0;
            record.due = record.due.map(|due| due.min(now));
        }
    }

    /// Whether what is wrong with an instance whose gate is shut for this is about to be known.
    pub(crate) fn is_suspect(&self) -> bool {
        // The gate is shut before it is said why.
        let record = self.lock();
        let record = record.as_ref();
        record.is_none_or(|record| record.suspect || record.cause == Cause::None)
    }

    /// Its probe is a call's, so that nobody waits for what that finds.
    pub(crate) fn leave_to_a_call(&self) {
        if let Some(record) = &mut *self.lock() {
            record.suspect = false;
        }
    }

    /// The probe is offered.
    pub(crate) fn offered(&self) {
        if let Some(record) = &mut *self.lock() {
            record.due = None;
        }
    }

    /// The probe was given up without a verdict, by a caller who went away say: another may come
    /// soon, but a caller with a short deadline is not to be the next at once.
    pub(crate) fn postpone(&self, now: Instant) {
        if let Some(record) = &mut *self.lock() {
            record.due = Some(now + PROBE_INTERVAL);
        }
    }

    /// When it may be probed, unless it is not ejected or the probe is out.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.lock().as_ref().and_then(|r| r.due)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Box<Record>>> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The clock that rests are measured with.
pub(crate) fn now() -> Instant {
    #[expect(
        clippy::disallowed_methods,
        reason = "a failed call has nobody to hand it the time; tokio's clock can be paused"
    )]
    Instant::now()
}

const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(30);
/// What longer rests are cut to, so that there is an instant at which they end.
const ENDLESS: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
/// A server whose keep-alive is shorter than ours loses no more than one connection in such a time
/// to a race; one that breaks them as it answers does.
const FORGIVEN_EACH: Duration = Duration::from_secs(10);
/// While none can be reached, one is probed this often.
pub(crate) const PROBE_INTERVAL: Duration = Duration::from_secs(1);

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// For how long an instance that could not be reached gets no call.
///
/// Costs two words until the instance fails.
#[derive(Default)]
pub(crate) struct Ejection {
    record: Mutex<Option<Box<Record>>>,
}

struct Record {
    /// Failures in a row.
    failures: u32,
    /// When it may be probed; `None` while somebody may, or does.
    due: Option<Instant>,
}

impl Ejection {
    /// One failure more: 1 s of rest after the first, twice as long after each further one, 30 s
    /// at most.
    pub(crate) fn failed(&self, now: Instant) {
        let mut record = self.lock();
        let failures = record.as_ref().map_or(0, |r| r.failures).saturating_add(1);
        let rest = FIRST_REST
            .saturating_mul(1 << (failures - 1).min(10))
            .min(LONGEST_REST);
        *record = Some(Box::new(Record {
            failures,
            due: Some(now + rest),
        }));
    }

    /// It was reached: what was counted is void.
    pub(crate) fn succeeded(&self) {
        *self.lock() = None;
    }

    /// Another instance was reached after none could be: the rest ends now.
    pub(crate) fn hurry(&self, now: Instant) {
        if let Some(record) = &mut *self.lock() {
            record.failures = 0;
            record.due = record.due.map(|due| due.min(now));
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
/// While none can be reached, one is probed this often.
pub(crate) const PROBE_INTERVAL: Duration = Duration::from_secs(1);

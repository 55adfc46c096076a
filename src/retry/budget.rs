use std::sync::atomic::{AtomicI64, Ordering};

/// How many calls may be sent again, of all that share it: a service that fails under load is not helped
/// by twice the load.
///
/// Each call pays a share of a retry in, each retry takes one out. Some may be taken out before anything
/// was paid in, so that the first calls of a process are retried; what that came to is paid back first. So
/// from the beginning there are never more retries than that share of the calls, or those few.
#[derive(Debug)]
pub(super) struct Budget {
    /// In hundredths of a retry.
    saved: AtomicI64,
    /// What is to be paid back, in the same.
    owed: AtomicI64,
    percent: i64,
}

impl Budget {
    pub(super) fn new(percent: u32) -> Self {
        Self {
            saved: AtomicI64::new(AHEAD * ONE),
            owed: AtomicI64::new(AHEAD * ONE),
            percent: percent.into(),
        }
    }

    /// Another that is as large.
    pub(super) const fn anew(&self) -> Self {
        Self {
            saved: AtomicI64::new(AHEAD * ONE),
            owed: AtomicI64::new(AHEAD * ONE),
            percent: self.percent,
        }
    }

    /// A call begins.
    pub(super) fn deposit(&self) {
        if self.owed.load(Ordering::Relaxed) > 0 {
            // Two that find the last of it pay a share too much: to the good side.
            self.owed.fetch_sub(self.percent, Ordering::Relaxed);
            return;
        }
        let more = |saved: i64| (saved < MOST * ONE).then_some(saved + self.percent);
        let _ = self
            .saved
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// It was not sent again after all.
    pub(super) fn refund(&self) {
        self.saved.fetch_add(ONE, Ordering::Relaxed);
    }

    /// A call is to be sent again. False if it may not.
    pub(super) fn withdraw(&self) -> bool {
        let less = |saved: i64| (saved >= ONE).then_some(saved - ONE);
        self.saved
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok()
    }
}

const ONE: i64 = 100;
/// How many may be taken out before anything was paid in.
const AHEAD: i64 = 10;
/// How many are saved up at most.
const MOST: i64 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    /// All calls fail, each is sent again as often as the budget lets it.
    fn storm(budget: &Budget, calls: u32) -> u32 {
        let mut retries = 0;
        for _ in 0..calls {
            budget.deposit();
            while budget.withdraw() {
                retries += 1;
            }
        }
        retries
    }

    #[test]
    fn there_are_never_more_retries_than_a_share_of_the_calls_or_ten() {
        for (percent, calls, most) in [
            (20, 1, 10),
            (20, 49, 10),
            (20, 50, 10),
            (20, 100, 20),
            (20, 10_000, 2_000),
            (100, 1_000, 1_000),
            (0, 1_000, 10),
        ] {
            let retries = storm(&Budget::new(percent), calls);
            assert_eq!(retries, most, "{percent} % of {calls}");
        }
    }

    #[test]
    fn a_long_quiet_time_saves_up_a_hundred() {
        let budget = Budget::new(20);
        for _ in 0..100_000 {
            budget.deposit();
        }
        let mut retries = 0;
        while budget.withdraw() {
            retries += 1;
        }
        assert_eq!(retries, 100);
    }
}

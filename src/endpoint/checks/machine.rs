use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::endpoint::checks::question::Failure;

/// What one instance's answers to its health check come to. Time and randomness are arguments.
///
/// ```text
///        it says that it is not well, or
///        does not answer so many times in a row
///   in ────────────────────────────────────────► refused
///      ◄────────────────────────────────────────
///              is well so many times in a row
/// ```
#[derive(Debug)]
pub(crate) struct Machine {
    rules: CheckRules,
    /// Why it is refused, if it is.
    refused: Option<Arc<str>>,
    /// Answers in a row that are against that: good ones if it is refused, else none.
    against: u32,
    /// When it is asked next.
    due: Instant,
}

/// How often it is asked, and how many answers it takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct CheckRules {
    pub(crate) interval: Duration,
    /// What part of the interval is added, at random, at most.
    pub(crate) jitter: f64,
    pub(crate) timeout: Duration,
    pub(crate) healthy: u32,
    pub(crate) unhealthy: u32,
}

impl CheckRules {
    /// With the defaults that [`HealthCheck`](super::config::HealthCheck) names.
    pub(crate) const fn new() -> Self {
        Self {
            interval: Duration::from_secs(3),
            jitter: 0.1,
            timeout: Duration::from_secs(1),
            healthy: 1,
            unhealthy: 3,
        }
    }

    /// By how much later than it would be a check is; `random` is from 0 to 1.
    fn spread(&self, random: f64) -> Duration {
        self.interval.mul_f64(self.jitter * random.clamp(0.0, 1.0))
    }
}

impl Machine {
    /// Of an instance that was never asked: it is in, and is asked within the jitter.
    pub(crate) fn new(rules: CheckRules, now: Instant, random: f64) -> Self {
        Self {
            rules,
            refused: None,
            against: 0,
            due: now + rules.spread(random),
        }
    }

    /// When it is asked next.
    pub(crate) const fn due(&self) -> Instant {
        self.due
    }

    /// Why it is refused, if it is.
    pub(crate) const fn refused(&self) -> Option<&Arc<str>> {
        self.refused.as_ref()
    }

    /// It was asked, and that has ended now. True if that made a difference.
    pub(crate) fn ended(&mut self, ended: Result<(), Failure>, now: Instant, random: f64) -> bool {
        self.due = now + self.rules.interval + self.rules.spread(random);
        match (ended, &self.refused) {
            (Ok(()), None) => {
                self.against = 0;
                false
            }
            (Ok(()), Some(_)) => {
                self.against += 1;
                let enough = self.against >= self.rules.healthy;
                if enough {
                    self.refused = None;
                    self.against = 0;
                }
                enough
            }
            (Err(failure), None) => {
                self.against += 1;
                let enough = match &failure {
                    Failure::Said(_) => true,
                    Failure::Silent(_) => self.against >= self.rules.unhealthy,
                };
                if enough {
                    self.refused = Some(failure.into_reason());
                    self.against = 0;
                }
                enough
            }
            (Err(failure), Some(known)) => {
                self.against = 0;
                let reason = failure.into_reason();
                let news = reason != *known;
                self.refused = Some(reason);
                news
            }
        }
    }
}

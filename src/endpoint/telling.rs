use std::time::Duration;

use tokio::time::Instant;

use crate::metrics::{CallMetrics, RequestMetrics};

/// What a set has told the `metrics` facade.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) calls: CallMetrics,
    pub(super) requests: RequestMetrics,
}

/// When to tell next although nothing changed.
pub(super) fn next(now: Instant) -> Instant {
    now + INTERVAL
}

const INTERVAL: Duration = Duration::from_secs(10);

use std::time::Duration;

/// How long each step of a provider's life takes at most, or at least.
#[derive(Clone, Debug)]
pub(super) struct Timing {
    /// Between two questions whether the provider is ready.
    pub(super) ready_interval: Duration,
    /// From ready to the registration.
    pub(super) delay: Duration,
    /// From a change at the registry to its last consumer.
    pub(super) push_delay: Duration,
    pub(super) deregister_timeout: Duration,
    pub(super) max_linger: Duration,
    pub(super) drain_timeout: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            ready_interval: Duration::from_millis(200),
            delay: Duration::ZERO,
            // 0.51 to 0.61 s on one node (Nacos 2.5.1 and 3.0.3), 1.6 s through another.
            push_delay: Duration::from_millis(600),
            deregister_timeout: Duration::from_secs(3),
            max_linger: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(15),
        }
    }
}

/// How long a registry may list who left without its confirmation: 23 to 26 s measured on Nacos
/// 2.5.1 and 3.0.3 for a client that froze.
pub(super) const UNCONFIRMED: Duration = Duration::from_secs(30);
/// Between two looks whether the announced address answers.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_millis(200);
/// Between two tries to register; doubles up to the last.
pub(super) const FIRST_RETRY: Duration = Duration::from_secs(1);
pub(super) const LAST_RETRY: Duration = Duration::from_secs(30);

/// Any moment in the future can be computed with this.
pub(super) const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

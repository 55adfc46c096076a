use crate::model::Instance;

/// What is believed of an instance's health. Ordered from the best rung to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Health {
    Healthy,
    /// First listed while the server's protection rule called everything healthy.
    Unknown,
    Unhealthy,
}

impl Health {
    pub(super) const fn reported(instance: &Instance) -> Self {
        if instance.is_healthy() {
            Self::Healthy
        } else {
            Self::Unhealthy
        }
    }
}

//! Which services the target is told of again, and when.

use std::collections::{HashSet, VecDeque};

use tokio::time::Instant;
use tower_nacos::model::ServiceName;

/// Each service once: it fails again as a whole, and more would be more every time.
#[derive(Default)]
pub(crate) struct Retries {
    /// The first first.
    queue: VecDeque<(Instant, ServiceName)>,
    queued: HashSet<ServiceName>,
}

impl Retries {
    /// At `at`, which is no earlier than of those before, unless it is told again anyway.
    pub(crate) fn push(&mut self, at: Instant, service: ServiceName) {
        if self.queued.insert(service.clone()) {
            self.queue.push_back((at, service));
        }
    }

    /// When the first is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.queue.front().map(|(at, _)| *at)
    }

    pub(crate) fn pop(&mut self) -> Option<ServiceName> {
        let (_, service) = self.queue.pop_front()?;
        self.queued.remove(&service);
        Some(service)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_service_is_told_again_once_however_often_it_failed() {
        let mut retries = Retries::default();
        let (orders, users): (ServiceName, ServiceName) =
            ("orders".parse().unwrap(), "users".parse().unwrap());
        let start = Instant::now();
        for second in 0..3 {
            let at = start + Duration::from_secs(second);
            retries.push(at, orders.clone());
            retries.push(at, users.clone());
        }
        assert_eq!(retries.due(), Some(start));
        assert_eq!(retries.pop(), Some(orders.clone()));
        retries.push(start + Duration::from_secs(9), orders.clone());
        assert_eq!(retries.pop(), Some(users));
        assert_eq!(retries.pop(), Some(orders));
        assert_eq!((retries.due(), retries.pop()), (None, None));
    }
}

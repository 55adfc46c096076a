//! A client's files: the thread that tends them, and what of them is to be written when.

use std::{
    future::pending,
    sync::Arc,
    time::{Duration, Instant},
};

use super::start_from::StartFrom;
use crate::{
    cache::{Cache, Event, Keeper, Seen},
    directory::{Entry, Snapshot, Status, Subscription},
};

pub(super) struct Cached {
    pub(super) cache: Cache,
    pub(super) keeper: Keeper,
    pub(super) start_from: StartFrom,
    /// Whether a set that was found serves.
    pub(super) serves: bool,
    /// How many files were to be read so far.
    pub(super) reads: u64,
}

impl Cached {
    pub(super) fn new(cache: Cache, start_from: StartFrom, max_age: Duration) -> Self {
        Self {
            cache,
            keeper: Keeper::new(max_age),
            start_from,
            serves: false,
            reads: 0,
        }
    }

    /// The next thing that became of a file; never, without files. May be dropped.
    pub(super) async fn next(cached: &mut Option<Self>) -> Event {
        match cached {
            Some(cached) => cached.cache.next().await,
            None => pending().await,
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.keeper.poll_timeout()
    }
}

/// What there is to be written of a service.
pub(crate) struct Look {
    pub(crate) seen: Seen,
    pub(crate) set: Arc<Snapshot>,
    /// How long ago it was last known to be what the registry says.
    pub(crate) age: Duration,
}

/// Looks at what a service is now.
pub(crate) fn look(subscription: &Subscription, now: Instant) -> Look {
    let set = subscription.snapshot();
    let seen = Seen {
        revision: set.revision(),
        known: set.is_known(),
        fresh: subscription.status() == Status::Fresh,
        holds: set.entries().iter().any(Entry::is_held),
    };
    let age = age(subscription, now);
    Look { seen, set, age }
}

fn age(subscription: &Subscription, now: Instant) -> Duration {
    match subscription.status() {
        // While the connection stands, what came last is what the registry says.
        Status::Fresh => Duration::ZERO,
        Status::Stale { since } => now.saturating_duration_since(since),
        _ => subscription.age(now).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        directory::{Options, channel},
        model::{Instance, Listing, Origin, ServiceKey},
    };

    const SECOND: Duration = Duration::from_secs(1);

    /// A set that has not changed for a day is as old as the loss of the connection, not a day.
    #[test]
    fn a_set_is_as_old_as_the_loss_of_its_connection() {
        #[expect(clippy::disallowed_methods, reason = "the origin of virtual time")]
        let start = Instant::now();
        let key = ServiceKey::new("public", "orders".parse().unwrap()).unwrap();
        let (mut writer, orders) = channel(key, Options::default());
        let one = || Listing::new([Instance::parse("10.0.0.1:80").unwrap()]);
        writer.handle_connected(start);
        writer.apply(one(), Origin::FirstAnswer, start);
        let day = start + SECOND * 86_400;
        assert_eq!(age(&orders, day), Duration::ZERO);
        writer.handle_disconnected(day);
        assert_eq!(age(&orders, day + SECOND * 30), SECOND * 30);
    }

    #[test]
    fn what_a_file_had_stays_as_old_as_it_was() {
        #[expect(clippy::disallowed_methods, reason = "the origin of virtual time")]
        let start = Instant::now();
        let key = ServiceKey::new("public", "orders".parse().unwrap()).unwrap();
        let (mut writer, orders) = channel(key, Options::default());
        let one = Listing::new([Instance::parse("10.0.0.1:80").unwrap()]);
        writer.restore(one, SECOND * 5, start + SECOND * 10);
        assert_eq!(age(&orders, start + SECOND * 20), SECOND * 15);
    }
}

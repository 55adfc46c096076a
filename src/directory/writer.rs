use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    directory::{
        Generation, Options, Revision, Subscription, SubscriptionCounters, outbox::Note,
        shared::Shared,
    },
    model::{Address, Instance, Listing, Origin, ServiceKey},
};

/// The one writer of a service's local copy: whoever hears from the registry.
///
/// Readers hold [`Subscription`]s. Time is told with each call and must not go back. While the
/// writer publishes, consumers' gates close and open and tasks are woken; nothing here waits for
/// any of them. When the writer is dropped the subscription closes and the last set serves.
///
/// In tests of your own it replaces a registry:
///
/// ```
/// use std::time::Instant;
/// use tower_nacos::{directory, model::{Instance, ServiceKey}};
///
/// let key = ServiceKey::new("", "orders".parse()?)?;
/// let (mut writer, orders) = directory::channel(key, directory::Options::default());
/// writer.publish([Instance::parse("10.0.0.3:8080")?], Instant::now());
/// assert_eq!(orders.snapshot().callable_len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
}

/// A new local copy of `key`, empty and unknown: its one writer, and a subscription to clone.
pub fn channel(key: ServiceKey, options: Options) -> (Writer, Subscription) {
    let shared = Shared::new(key, options);
    let subscription = Subscription::new(Arc::clone(&shared));
    (Writer { shared }, subscription)
}

impl Writer {
    /// A writer whose subscriptions come from [`subscribe`](Self::subscribe).
    pub fn new(key: ServiceKey, options: Options) -> Self {
        channel(key, options).0
    }

    /// A subscription to what this writes.
    pub fn subscribe(&self) -> Subscription {
        Subscription::new(Arc::clone(&self.shared))
    }

    /// The service.
    pub fn key(&self) -> &ServiceKey {
        &self.shared.key
    }

    /// Applies a list and returns the newest revision, which is the former one if the list said
    /// nothing new.
    pub fn apply(&mut self, listing: Listing, origin: Origin, now: Instant) -> Revision {
        self.apply_on(None, listing, origin, now)
    }

    /// The same of a list that says which connection it came on (their numbers rise): the first
    /// of its connection is told from later ones by that alone.
    pub(crate) fn apply_from(
        &mut self,
        connection: u64,
        listing: Listing,
        origin: Origin,
        now: Instant,
    ) -> Revision {
        self.apply_on(Some(connection), listing, origin, now)
    }

    fn apply_on(
        &mut self,
        connection: Option<u64>,
        listing: Listing,
        origin: Origin,
        now: Instant,
    ) -> Revision {
        if origin == Origin::Disk {
            return self.restore(listing, Duration::ZERO, now);
        }
        self.shared.update(|state, out| {
            if !state.closed && state.is_of_this_connection(connection, now) {
                state.apply(listing, origin, &self.shared.options, now, out);
            }
            state.revision()
        })
    }

    /// Applies `instances` as a registry's push would.
    pub fn publish(
        &mut self,
        instances: impl IntoIterator<Item = Instance>,
        now: Instant,
    ) -> Revision {
        self.apply(Listing::new(instances), Origin::Push, now)
    }

    /// Takes what a process before this one kept, and was last known to be so `age` ago, if the registry
    /// has not answered yet. It serves as a [`Stale`](crate::directory::Status::Stale) set does, and the
    /// registry's first list is judged as after a reconnect. A list without instances says nothing.
    pub fn restore(&mut self, listing: Listing, age: Duration, now: Instant) -> Revision {
        self.shared.update(|state, out| {
            if !state.closed {
                state.restore(listing, age, &self.shared.options, now, out);
            }
            state.revision()
        })
    }

    /// A new connection took the place of the former one, if there was one: what comes from here
    /// on comes from it. Call it at each connection, before its first list.
    pub fn handle_connected(&mut self, now: Instant) {
        self.shared.update(|state, _| state.connected(None, now));
    }

    /// The same, of the connection with this number.
    pub(crate) fn handle_connection(&mut self, connection: u64, now: Instant) {
        self.shared
            .update(|state, _| state.connected(Some(connection), now));
    }

    /// The connection is lost. The last set serves, without limit.
    pub fn handle_disconnected(&mut self, now: Instant) {
        self.shared
            .update(|state, out| state.disconnected(now, out));
    }

    /// A list came that could not be read at all.
    pub fn handle_undecodable(&mut self, reason: &str, now: Instant) {
        self.shared
            .update(|state, out| state.unreadable(reason, now, out));
    }

    /// Tells the metrics that there is a subscription, which may go without a list for long.
    #[cfg(feature = "metrics")]
    pub(crate) fn tell(&self) {
        self.shared.tell();
    }

    /// Has `tell` called when [`poll_timeout`](Self::poll_timeout) may have changed by what consumers
    /// report; once. On the thread of whoever reports: it must not block.
    pub(crate) fn on_report(&self, tell: impl Fn() + Send + Sync + 'static) {
        let _ = self.shared.writer.set(Box::new(tell));
    }

    /// Has `tell` called whenever somebody has an instance explained; once. On that one's thread: it
    /// must not block.
    pub(crate) fn on_explain(&self, tell: impl Fn() + Send + Sync + 'static) {
        let _ = self.shared.explained.set(Box::new(tell));
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), as things stand.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let state = self.shared.lock();
        (!state.closed)
            .then(|| state.next_deadline(&self.shared.options))
            .flatten()
    }

    /// Does what is due at `now`, and returns the newest revision. Due may be: the end of the time for which an
    /// instance that is missing is kept ([`Options::hold`](crate::directory::Options::hold)), of that for which an empty
    /// list counts as unknown, and of a provider's mark that it goes offline. Call it when
    /// [`poll_timeout`](Self::poll_timeout) says; a call too early does nothing.
    pub fn handle_timeout(&mut self, now: Instant) -> Revision {
        self.shared.update(|state, out| {
            if !state.closed {
                state.expire(&self.shared.options, now, out);
            }
            state.revision()
        })
    }

    /// Whether the registry is to be asked for the list once more, because a hold is about to end;
    /// true once each time.
    pub(crate) fn take_read_wanted(&mut self) -> bool {
        std::mem::take(&mut self.shared.lock().read_wanted)
    }

    /// A connection to this instance failed: if it is held, it no longer is.
    pub fn report_unreachable(&mut self, address: &Address, generation: Generation, now: Instant) {
        self.shared.report_unreachable(address, generation, now);
    }

    /// What happened so far.
    pub fn counters(&self) -> SubscriptionCounters {
        self.shared.lock().counters
    }

    /// Ends the subscription: change streams end with `Shutdown`, balancers keep the last set.
    pub fn close(self) {
        drop(self);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.update(|state, out| {
            state.closed = true;
            if !state.known {
                state.end_unknown(&self.shared.options, out);
            }
            out.notes.push(Note::Closed);
            out.notify = true;
        });
    }
}

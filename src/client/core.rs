//! A client without I/O: the session's machine and the local copies, and what passes between them.
//! The driver, the simulation and the push bench run this, so the last two show what the first does.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;

use super::{
    copies::Copies,
    list_copies::ListCopies,
    starts::{Kept, List, Starts, Step},
};
use crate::{
    directory::{ListWriter, Writer},
    model::{Listing, Origin, ServiceFilter, ServiceKey},
    session::{Command, Config, Names, Operation, Output, Session, SessionState},
};

/// Feed [`session`](Self::session) with what happens, and call [`poll`](Self::poll) until it is
/// empty after each.
#[derive(Debug)]
pub(crate) struct Core {
    session: Session,
    copies: Copies,
    lists: ListCopies,
    starts: Starts,
}

/// What the session said, after the copies heard of it.
#[derive(Debug)]
pub(crate) enum News {
    /// A list was passed to its service's copy.
    Listed {
        key: ServiceKey,
        origin: Origin,
        /// The connection that it came on, which simulations look at.
        #[cfg(feature = "testing")]
        link: crate::session::LinkId,
        /// Whether nobody stands in it.
        nothing: bool,
        /// Whether none of what stands in it can be used.
        unusable: bool,
    },
    /// What a process before this one kept was passed to its service's copy, which takes it unless a
    /// list came before.
    Restored { key: ServiceKey },
    /// Names were passed to the list of this filter: all that there are, or some.
    Services { filter: ServiceFilter, all: bool },
    /// Anything else, to be done or told.
    Output(Output),
}

impl Core {
    /// A client that begins to connect at `now`.
    pub(crate) fn new(config: Config, rng: StdRng, now: Instant) -> Self {
        Self {
            session: Session::new(config, rng, now),
            copies: Copies::default(),
            lists: ListCopies::default(),
            starts: Starts::default(),
        }
    }

    pub(crate) const fn session(&self) -> &Session {
        &self.session
    }

    /// For what happens to connections and calls.
    pub(crate) const fn session_mut(&mut self) -> &mut Session {
        &mut self.session
    }

    /// The first handle on a service, whose copy `writer` writes.
    pub(crate) fn subscribe(&mut self, key: ServiceKey, writer: Writer, now: Instant) {
        self.copies.open(key.clone(), writer, now);
        self.command(Command::Subscribe(key), now);
    }

    /// The last handle on it is gone: its copy closes.
    pub(crate) fn unsubscribe(&mut self, key: ServiceKey, now: Instant) {
        self.copies.close(&key);
        self.starts.end(&key);
        self.command(Command::Unsubscribe(key), now);
    }

    /// The first handle on a list of services, which `writer` writes.
    pub(crate) fn watch(&mut self, filter: ServiceFilter, writer: ListWriter, now: Instant) {
        self.lists.open(filter.clone(), writer);
        self.command(Command::Watch(filter), now);
    }

    /// The last handle on it is gone: it closes.
    pub(crate) fn unwatch(&mut self, filter: ServiceFilter, now: Instant) {
        self.lists.close(&filter);
        self.command(Command::Unwatch(filter), now);
    }

    /// How many services are subscribed.
    #[cfg(feature = "testing")]
    pub(crate) fn subscribed(&self) -> usize {
        self.copies.len()
    }

    /// What a process before this one kept of a service is being read: the registry's first list waits
    /// for it for a moment. Call it right after [`subscribe`](Self::subscribe).
    pub(crate) fn await_file(&mut self, key: ServiceKey, now: Instant) {
        self.starts.begin(key, now);
    }

    /// It was read: there is this, `age` old, or nothing.
    pub(crate) fn file_read(
        &mut self,
        key: &ServiceKey,
        found: Option<(Listing, Duration)>,
        now: Instant,
    ) {
        let kept = found.map(|(listing, age)| Kept::new(listing, age, now));
        self.starts.read(key, kept);
    }

    /// Callers reported something of this service's instances to its copy.
    pub(crate) fn handle_reported(&mut self, key: &ServiceKey) {
        self.copies.look_after(key);
    }

    pub(crate) fn command(&mut self, command: Command, now: Instant) {
        self.session.handle_command(command, now);
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let timeouts = [
            self.session.poll_timeout(),
            self.copies.poll_timeout(),
            self.lists.poll_timeout(),
            self.starts.poll_timeout(),
        ];
        timeouts.into_iter().flatten().min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.session.handle_timeout(now);
        self.copies.handle_timeout(now);
        self.lists.handle_timeout(now);
        self.starts.handle_timeout(now);
        self.read(now);
    }

    /// The next thing that the session said, oldest first. A list counts as `received` then.
    pub(crate) fn poll(&mut self, received: Instant, now: Instant) -> Option<News> {
        loop {
            if let Some(step) = self.starts.take_step() {
                return Some(self.step(step, now));
            }
            let output = self.session.poll_output()?;
            match &output {
                Output::State(SessionState::Connected { link, .. }) => {
                    self.copies.handle_connected(*link, now);
                    self.lists.handle_connected(*link, now);
                    self.starts.connected();
                }
                Output::State(SessionState::Connecting { .. }) => {
                    self.copies.handle_disconnected(now);
                    self.lists.handle_disconnected(now);
                    self.starts.disconnected();
                }
                Output::Undecodable {
                    key: Some(key),
                    reason,
                } => {
                    self.copies.undecodable(key, reason, now);
                    self.starts.failed(key);
                }
                Output::Failed {
                    key,
                    operation: Operation::Subscribe,
                    ..
                } => self.starts.failed(key),
                Output::Listing { .. } | Output::Services { .. } => {}
                _ => return Some(News::Output(output)),
            }
            match output {
                Output::Listing {
                    link,
                    key,
                    listing,
                    origin,
                } => {
                    let list = List {
                        link,
                        key,
                        listing,
                        origin,
                        received,
                    };
                    if let Some(list) = self.starts.listed(list) {
                        return Some(self.listed(list, now));
                    }
                }
                Output::Services {
                    link,
                    filter,
                    names,
                } => {
                    let all = matches!(names, Names::All { .. });
                    self.lists.apply(link, &filter, names, now);
                    return Some(News::Services { filter, all });
                }
                output => {
                    self.read(now);
                    return Some(News::Output(output));
                }
            }
        }
    }

    fn step(&mut self, step: Step, now: Instant) -> News {
        match step {
            Step::Restore(key, kept) => {
                let (listing, age) = kept.into_set(now);
                self.copies.restore(&key, listing, age, now);
                News::Restored { key }
            }
            Step::List(list) => self.listed(list, now),
        }
    }

    fn listed(&mut self, list: List, now: Instant) -> News {
        let List {
            link,
            key,
            listing,
            origin,
            received,
        } = list;
        let nothing = listing.instances().is_empty() && listing.rejected().is_empty();
        let unusable = listing.is_undecodable();
        self.copies.apply(link, &key, listing, origin, received);
        self.read(now);
        News::Listed {
            key,
            origin,
            #[cfg(feature = "testing")]
            link,
            nothing,
            unusable,
        }
    }

    /// The end: every copy closes.
    pub(crate) fn close_all(&mut self) {
        self.copies.close_all();
        self.lists.close_all();
    }

    /// What a copy holds is about to go: the registry is asked once more.
    fn read(&mut self, now: Instant) {
        while let Some(key) = self.copies.take_read() {
            self.session.handle_command(Command::Refresh(key), now);
        }
    }
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "core_lists_tests.rs"]
mod lists_tests;

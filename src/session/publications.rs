//! What this client publishes, and what the server has confirmed of that.

use std::time::Instant;

use super::{
    calls::Purpose,
    effort::Effort,
    error::OperationError,
    event::{Operation, Outcome, Output, Ticket},
    late::Kind,
    machine::{Job, Session},
    timers::Timer,
};
use crate::{
    model::{Instance, ServiceKey},
    wire::{Answer, Request},
};

/// The one instance of this client in one service: a server keeps no more per connection.
#[derive(Debug)]
pub(super) struct Publication {
    wanted: bool,
    instance: Instance,
    /// Counts the registrations, so that what is confirmed can be told from what came after.
    version: u64,
    held: Held,
    /// Who waits for a registration to be confirmed.
    joining: Option<Ticket>,
    /// Who waits for it to be gone.
    leaving: Vec<Ticket>,
    effort: Effort,
}

/// What the server holds for us on the current connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    Nothing,
    Version(u64),
    /// A request went unanswered.
    Unknown,
}

impl Publication {
    /// What is to be asked next: to hold a version, or nothing.
    fn next(&self) -> Option<Option<u64>> {
        match (self.wanted, self.held) {
            (true, Held::Version(version)) if version == self.version => None,
            (true, _) => Some(Some(self.version)),
            (false, Held::Nothing) => None,
            (false, _) => Some(None),
        }
    }

    /// Whether there is nothing left to do, or nothing that the server would do.
    pub(super) fn is_settled(&self) -> bool {
        self.next().is_none() || self.effort.blocked
    }
}

impl Session {
    pub(super) fn register(&mut self, ticket: Ticket, key: ServiceKey, instance: Instance) {
        match self.publications.get_mut(&key) {
            Some(publication) if publication.wanted => {
                let address = publication.instance.address().clone();
                return self.done(ticket, Err(OperationError::AlreadyRegistered(address)));
            }
            Some(publication) => {
                publication.wanted = true;
                publication.instance = instance;
                publication.version += 1;
                publication.joining = Some(ticket);
            }
            None => {
                let publication = Publication {
                    wanted: true,
                    instance,
                    version: 1,
                    held: Held::Nothing,
                    joining: Some(ticket),
                    leaving: Vec::new(),
                    effort: Effort::default(),
                };
                self.publications.insert(key.clone(), publication);
            }
        }
        self.publish_anew(&key);
    }

    pub(super) fn deregister(&mut self, ticket: Ticket, key: &ServiceKey) {
        if self.publications.contains_key(key) {
            self.withdraw(key, Some(ticket));
        } else {
            self.done(ticket, Err(OperationError::NotRegistered));
        }
    }

    pub(super) fn withdraw(&mut self, key: &ServiceKey, ticket: Option<Ticket>) {
        let Some(publication) = self.publications.get_mut(key) else {
            return;
        };
        publication.wanted = false;
        publication.leaving.extend(ticket);
        if let Some(ticket) = publication.joining.take() {
            self.done(ticket, Err(OperationError::Superseded));
        }
        self.publish_anew(key);
    }

    /// What is wanted changed: past failures no longer count.
    fn publish_anew(&mut self, key: &ServiceKey) {
        if let Some(publication) = self.publications.get_mut(key) {
            self.timers.stop(&Timer::Publication(key.clone()));
            publication.effort.waiting = false;
            publication.effort.blocked = false;
            publication.effort.failures = 0;
            self.touch_publication(key);
        }
    }

    /// Queues the publication if there is something to send, drops it if it is over.
    pub(super) fn touch_publication(&mut self, key: &ServiceKey) {
        let connected = self.current.is_some();
        let Some(publication) = self.publications.get_mut(key) else {
            return;
        };
        match publication.next() {
            Some(_) if connected && publication.effort.is_idle() => {
                publication.effort.queued = true;
                self.queue.push_back(Job::Publication(key.clone()));
            }
            Some(_) => {}
            None if publication.wanted || publication.effort.call.is_some() => {}
            None => self.drop_publication(key, Ok(Outcome::Done)),
        }
    }

    fn drop_publication(&mut self, key: &ServiceKey, outcome: Result<Outcome, OperationError>) {
        self.timers.stop(&Timer::Publication(key.clone()));
        if let Some(publication) = self.publications.remove(key) {
            for ticket in publication.joining.into_iter().chain(publication.leaving) {
                self.done(ticket, outcome.clone());
            }
        }
    }

    pub(super) fn send_publication(&mut self, key: &ServiceKey, now: Instant) {
        let Some(link) = self.current.as_ref().map(|link| link.id) else {
            return;
        };
        let Some(publication) = self.publications.get_mut(key) else {
            return;
        };
        if !std::mem::take(&mut publication.effort.queued) {
            return; // of an item that ended and began again meanwhile
        }
        let Some(version) = publication.next() else {
            return self.touch_publication(key);
        };
        let (instance, key) = (publication.instance.clone(), key.clone());
        let purpose = Purpose::Publish {
            key: key.clone(),
            version,
        };
        let request = match version {
            Some(_) => Request::Register {
                key: key.clone(),
                instance,
            },
            None => Request::Deregister {
                key: key.clone(),
                instance,
            },
        };
        let call = self.call(link, &request, purpose, now);
        if let Some(publication) = self.publications.get_mut(&key) {
            publication.effort.call = Some(call);
        }
    }

    pub(super) fn publication_answered(
        &mut self,
        key: &ServiceKey,
        version: Option<u64>,
        verdict: Result<Answer, OperationError>,
        now: Instant,
    ) {
        let on = version.is_some();
        let confirm = self.confirm_again(Kind::Publication, key, on, now);
        let Some(publication) = self.publications.get_mut(key) else {
            return;
        };
        publication.effort.call = None;
        match verdict {
            Ok(_) => {
                publication.effort.failures = 0;
                publication.held = version.map_or(Held::Nothing, Held::Version);
                let confirmed = publication.next().is_none();
                let replaced = publication.wanted || version.is_none();
                let joined = publication.joining.take_if(|_| confirmed);
                let left = if replaced {
                    std::mem::take(&mut publication.leaving)
                } else {
                    Vec::new()
                };
                if let Some(at) = confirm.filter(|_| confirmed) {
                    publication.held = Held::Unknown;
                    publication.effort.waiting = true;
                    self.timers.set(Timer::Publication(key.clone()), at);
                }
                for ticket in joined.into_iter().chain(left) {
                    self.done(ticket, Ok(Outcome::Done));
                }
            }
            Err(error) => {
                if !matches!(
                    error,
                    OperationError::Refused(_) | OperationError::Denied(_)
                ) {
                    publication.held = Held::Unknown;
                    self.late.note(Kind::Publication, key, on, now);
                }
                self.publication_failed(key, version, error, now);
            }
        }
        self.touch_publication(key);
    }

    fn publication_failed(
        &mut self,
        key: &ServiceKey,
        version: Option<u64>,
        error: OperationError,
        now: Instant,
    ) {
        let operation = if version.is_some() {
            Operation::Register
        } else {
            Operation::Deregister
        };
        // A registration that was under way as the close began and went unanswered may be listed.
        let refused = matches!(
            error,
            OperationError::Refused(_) | OperationError::Denied(_)
        );
        let left = if refused {
            operation
        } else {
            Operation::Deregister
        };
        if self.gives_up(left, key) {
            return self.drop_publication(key, Err(error));
        }
        let Some(publication) = self.publications.get_mut(key) else {
            return;
        };
        if publication.next() != Some(version) {
            return; // something else is wanted by now
        }
        let may_be_answered = self.config.credentials && publication.effort.failures == 0;
        let is_final = error.is_permanent() || (error.is_denied() && !may_be_answered);
        let somebody_waits = match version {
            Some(_) => publication.joining.is_some(),
            None => !publication.leaving.is_empty(),
        };
        if is_final && somebody_waits {
            return self.drop_publication(key, Err(error)); // theirs to try again
        }
        let wait = publication.effort.fail(&error, &mut self.rng);
        if let Some(wait) = wait {
            self.timers.set(Timer::Publication(key.clone()), now + wait);
        }
        self.outputs.push_back(Output::Failed {
            key: key.clone(),
            operation,
            error,
            retries: wait.is_some(),
        });
    }

    /// The retry timer of a publication.
    pub(super) fn publication_due(&mut self, key: &ServiceKey) {
        if let Some(publication) = self.publications.get_mut(key) {
            publication.effort.waiting = false;
            self.touch_publication(key);
        }
    }

    /// The connection is another: what was published on the last one goes with it.
    pub(super) fn forget_publications(&mut self) {
        for key in self.publications.keys().cloned().collect::<Vec<_>>() {
            self.timers.stop(&Timer::Publication(key.clone()));
            if let Some(publication) = self.publications.get_mut(&key) {
                publication.held = Held::Nothing;
                publication.effort = Effort::default();
                if !publication.wanted {
                    self.drop_publication(&key, Ok(Outcome::Done));
                }
            }
        }
    }

    /// Nobody waits for the registration any longer. It stays wanted.
    pub(super) fn forget_ticket(&mut self, ticket: Ticket) {
        for publication in self.publications.values_mut() {
            publication.joining.take_if(|waiting| *waiting == ticket);
            publication.leaving.retain(|waiting| *waiting != ticket);
        }
    }
}

//! What this client publishes, and what the server has confirmed of that.

use std::time::{Duration, Instant};

use super::{
    calls::Purpose,
    effort::Effort,
    error::OperationError,
    event::{Operation, Outcome, Output, Ticket},
    late::Kind,
    machine::{Job, Life, Session},
    timers::Timer,
};
use crate::{
    model::{Address, Instance, ServiceKey},
    wire::{Answer, Request},
};

/// The one instance of this client in one service: a server keeps no more per connection.
///
/// What is wanted carries a version. A server holds one, or nothing, or nobody knows; what is
/// confirmed or refused is told from what was wanted since by its version alone.
#[derive(Debug)]
pub(super) struct Publication {
    /// What is to be listed; `None` for nothing.
    wanted: Option<Version>,
    /// The newest that a server confirmed while it was wanted: it is wanted again if what was asked
    /// for instead is refused.
    confirmed: Option<Version>,
    held: Held,
    /// What a server lists as far as is known: what a deregistration names.
    listed: Instance,
    /// What the registration under way names.
    sent: Option<Instance>,
    /// The last version.
    last: u64,
    /// The last version that a deregistration took back.
    withdrawn: u64,
    /// Who waits for a version, or a later one, to be confirmed.
    joining: Vec<(u64, Ticket)>,
    /// Who waits for the former registration to be gone.
    leaving: Vec<Ticket>,
    /// When a connection was lost that may have carried it, unless a later one confirmed how things
    /// stand.
    lost: Option<Instant>,
    effort: Effort,
}

#[derive(Clone, Debug)]
struct Version {
    number: u64,
    instance: Instance,
}

/// What the server holds for us on the current connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    Nothing,
    Version(u64),
    /// A request went unanswered.
    Unknown,
}

/// After so long no server lists what a lost connection carried, not even one that was lost with
/// its node (measured: 180 s; 26 s for a client that froze).
const FORGOTTEN: Duration = Duration::from_secs(180);

impl Publication {
    fn new(instance: Instance) -> Self {
        Self {
            wanted: None,
            confirmed: None,
            held: Held::Nothing,
            listed: instance,
            sent: None,
            last: 0,
            withdrawn: 0,
            joining: Vec::new(),
            leaving: Vec::new(),
            lost: None,
            effort: Effort::default(),
        }
    }

    /// What is to be asked next: to hold a version, or nothing.
    fn next(&self) -> Option<Option<u64>> {
        match (&self.wanted, self.held) {
            (Some(wanted), Held::Version(held)) if held == wanted.number => None,
            (Some(wanted), _) => Some(Some(wanted.number)),
            (None, Held::Nothing) => None,
            (None, _) => Some(None),
        }
    }

    /// Whether there is nothing left to do, or nothing that the server would do.
    pub(super) fn is_settled(&self) -> bool {
        self.next().is_none() || self.effort.blocked
    }

    /// Whether a server may list it, although the current one holds nothing.
    fn may_be_listed(&self, now: Instant) -> bool {
        self.lost.is_some_and(|lost| now < lost + FORGOTTEN)
    }

    /// `instance` is wanted from now on.
    fn want(&mut self, instance: Instance) {
        self.last += 1;
        self.wanted = Some(Version {
            number: self.last,
            instance,
        });
    }

    /// A server confirmed `version`, which is what it lists now, or that it holds nothing: who
    /// hears of it.
    fn confirm(&mut self, version: Option<u64>) -> Vec<Ticket> {
        self.held = version.map_or(Held::Nothing, Held::Version);
        self.lost = None;
        let wanted = self.wanted.as_ref().map(|wanted| wanted.number);
        let mut done = Vec::new();
        if let Some(version) = version {
            if version > self.withdrawn {
                self.confirmed = Some(Version {
                    number: version,
                    instance: self.listed.clone(),
                });
            }
            let joined = self.joining.extract_if(.., |(of, _)| *of <= version);
            done.extend(joined.map(|(_, ticket)| ticket));
        }
        // Gone, or replaced by what was wanted since.
        if version.is_none() || version == wanted {
            done.append(&mut self.leaving);
        }
        done
    }

    /// What is wanted is refused for good: what a server confirmed before is wanted again, or
    /// nothing. Whether that is something else.
    fn fall_back(&mut self) -> bool {
        let number = |version: &Option<Version>| version.as_ref().map(|version| version.number);
        let other = number(&self.confirmed) != number(&self.wanted);
        self.wanted.clone_from(&self.confirmed);
        other
    }
}

impl Session {
    /// Publishes `instance`, in place of what is registered at the same address.
    pub(super) fn register(
        &mut self,
        ticket: Ticket,
        key: ServiceKey,
        instance: Instance,
        now: Instant,
    ) {
        let publication = self
            .publications
            .entry(key.clone())
            .or_insert_with(|| Publication::new(instance.clone()));
        match &publication.wanted {
            Some(wanted) if wanted.instance.address() != instance.address() => {
                let address = wanted.instance.address().clone();
                return self.done(ticket, Err(OperationError::AlreadyRegistered(address)));
            }
            Some(wanted) if wanted.instance == instance => {
                if publication.held == Held::Version(wanted.number) {
                    return self.done(ticket, Ok(Outcome::Done)); // it is so
                }
            }
            _ => publication.want(instance),
        }
        publication.joining.push((publication.last, ticket));
        self.publish_anew(&key, now);
    }

    pub(super) fn deregister(&mut self, ticket: Ticket, key: &ServiceKey, now: Instant) {
        if self.publications.contains_key(key) {
            self.withdraw(key, Some(ticket), now);
        } else {
            self.done(ticket, Err(OperationError::NotRegistered));
        }
    }

    pub(super) fn withdraw(&mut self, key: &ServiceKey, ticket: Option<Ticket>, now: Instant) {
        let Some(publication) = self.publications.get_mut(key) else {
            return;
        };
        publication.wanted = None;
        publication.confirmed = None;
        publication.withdrawn = publication.last;
        publication.leaving.extend(ticket);
        for (_, ticket) in std::mem::take(&mut publication.joining) {
            self.done(ticket, Err(OperationError::Superseded));
        }
        self.publish_anew(key, now);
    }

    /// What is wanted changed: past failures no longer count.
    fn publish_anew(&mut self, key: &ServiceKey, now: Instant) {
        if let Some(publication) = self.publications.get_mut(key) {
            self.timers.stop(&Timer::Publication(key.clone()));
            publication.effort.begin_anew();
            self.touch_publication(key, now);
        }
    }

    /// Queues the publication if there is something to send, drops it if it is over.
    pub(super) fn touch_publication(&mut self, key: &ServiceKey, now: Instant) {
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
            None if publication.wanted.is_some() || publication.effort.call.is_some() => {}
            None => self.end_publication(key, now),
        }
    }

    /// Nothing is wanted, and the current server holds nothing. What an earlier one lists nobody
    /// can take back.
    fn end_publication(&mut self, key: &ServiceKey, now: Instant) {
        self.timers.stop(&Timer::Publication(key.clone()));
        let Some(publication) = self.publications.remove(key) else {
            return;
        };
        let outcome = if publication.may_be_listed(now) {
            if self.life == Life::Closing {
                self.unfinished.push((Operation::Deregister, key.clone()));
            }
            Err(OperationError::unconfirmed(publication.listed.address()))
        } else {
            Ok(Outcome::Done)
        };
        for ticket in publication.leaving {
            self.done(ticket, outcome.clone());
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
            return self.touch_publication(key, now);
        };
        publication.sent = publication
            .wanted
            .as_ref()
            .map(|wanted| wanted.instance.clone());
        let instance = publication.sent.as_ref().unwrap_or(&publication.listed);
        let (instance, key) = (instance.clone(), key.clone());
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
        let confirm = self.confirm_again(Kind::Publication, key, version, now);
        let Some(publication) = self.publications.get_mut(key) else {
            return;
        };
        publication.effort.call = None;
        if let Some(sent) = publication.sent.take()
            && !verdict.as_ref().is_err_and(OperationError::is_refusal)
        {
            publication.listed = sent;
        }
        match verdict {
            Ok(_) => {
                publication.effort.failures = 0;
                let done = publication.confirm(version);
                if let Some(at) = confirm.filter(|_| publication.next().is_none()) {
                    publication.held = Held::Unknown;
                    publication.effort.waiting = true;
                    self.timers.set(Timer::Publication(key.clone()), at);
                }
                for ticket in done {
                    self.done(ticket, Ok(Outcome::Done));
                }
            }
            Err(error) => {
                if !error.is_refusal() {
                    publication.held = Held::Unknown;
                    self.late.note(Kind::Publication, key, version, now);
                }
                self.publication_failed(key, version, error, now);
            }
        }
        self.touch_publication(key, now);
    }

    fn publication_failed(
        &mut self,
        key: &ServiceKey,
        version: Option<u64>,
        error: OperationError,
        now: Instant,
    ) {
        if self.life == Life::Closing {
            return self.publication_failed_at_last(key, version, error);
        }
        let credentials = self.config.credentials;
        let Some(publication) = self.publications.get_mut(key) else {
            return;
        };
        if publication.next() != Some(version) {
            return; // something else is wanted by now
        }
        let may_be_answered = credentials && publication.effort.failures == 0;
        let is_final = error.is_permanent() || (error.is_denied() && !may_be_answered);
        let (operation, waiting) = match version {
            Some(_) => {
                let joining = publication.joining.iter().map(|(_, ticket)| *ticket);
                (Operation::Register, joining.collect())
            }
            None => (Operation::Deregister, publication.leaving.clone()),
        };
        if is_final && !waiting.is_empty() {
            // Theirs to try again. What the server may hold is still ours to take back.
            let other = version.is_some() && publication.fall_back();
            match version {
                Some(_) => publication.joining.clear(),
                None => publication.leaving.clear(),
            }
            if other {
                publication.effort.begin_anew();
            }
            for ticket in waiting {
                self.done(ticket, Err(error.clone()));
            }
            if other {
                return;
            }
        }
        let Some(publication) = self.publications.get_mut(key) else {
            return;
        };
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

    /// While closing nothing is tried twice. A registration that was under way as the close began
    /// and is refused changed nothing: what was held before is still to be deregistered.
    fn publication_failed_at_last(
        &mut self,
        key: &ServiceKey,
        version: Option<u64>,
        error: OperationError,
    ) {
        if version.is_some() && error.is_refusal() {
            return;
        }
        self.unfinished.push((Operation::Deregister, key.clone()));
        self.timers.stop(&Timer::Publication(key.clone()));
        if let Some(publication) = self.publications.remove(key) {
            for ticket in publication.leaving {
                self.done(ticket, Err(error.clone()));
            }
        }
    }

    /// The retry timer of a publication.
    pub(super) fn publication_due(&mut self, key: &ServiceKey, now: Instant) {
        if let Some(publication) = self.publications.get_mut(key) {
            publication.effort.waiting = false;
            self.touch_publication(key, now);
        }
    }

    /// The connection is another. What was published on the last one goes with it, once its server
    /// notices; who waits for that to be confirmed waits in vain.
    pub(super) fn forget_publications(&mut self, now: Instant) {
        for key in self.publications.keys().cloned().collect::<Vec<_>>() {
            self.timers.stop(&Timer::Publication(key.clone()));
            if let Some(publication) = self.publications.get_mut(&key) {
                if publication.held != Held::Nothing || publication.effort.call.is_some() {
                    publication.lost = Some(now);
                    if let Some(sent) = publication.sent.take() {
                        publication.listed = sent;
                    }
                }
                publication.held = Held::Nothing;
                publication.effort = Effort::default();
                if publication.wanted.is_none() {
                    self.end_publication(&key, now);
                }
            }
        }
    }

    /// Nobody waits for the registration any longer. It stays wanted.
    pub(super) fn forget_ticket(&mut self, ticket: Ticket) {
        for publication in self.publications.values_mut() {
            publication
                .joining
                .retain(|(_, waiting)| *waiting != ticket);
            publication.leaving.retain(|waiting| *waiting != ticket);
        }
    }
}

impl OperationError {
    fn unconfirmed(address: &Address) -> Self {
        Self::Unconfirmed(address.clone())
    }
}

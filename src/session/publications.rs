//! What this client publishes, and what the server has confirmed of that.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{
    asked::Asked,
    error::{Addresses, OperationError},
    event::{Operation, Outcome, Output, Ticket},
    kind::{Context, Next, Then},
    own::{Found, Own},
    remains::Remains,
};
use crate::{
    model::{Instance, ServiceKey},
    wire::{Answer, Request},
};

/// What this client publishes in one service: one instance, or one batch, since a server keeps one
/// publication per connection and service.
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
    listed: Vec<Instance>,
    /// Where this machine is, for instances that leave their addresses to be found.
    found: Found,
    /// What the registration under way names.
    sent: Option<Vec<Instance>>,
    /// What is over and may be listed yet, if the server is one that adds up.
    remains: Remains,
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
}

#[derive(Clone, Debug)]
struct Version {
    number: u64,
    /// Never empty.
    instances: Vec<Instance>,
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
    pub(super) fn new(instances: Vec<Instance>) -> Self {
        Self {
            wanted: None,
            confirmed: None,
            held: Held::Nothing,
            listed: instances,
            found: Found::default(),
            sent: None,
            remains: Remains::default(),
            last: 0,
            withdrawn: 0,
            joining: Vec::new(),
            leaving: Vec::new(),
            lost: None,
        }
    }

    /// What is to be asked next: to hold a version, or nothing.
    pub(super) fn next(&self) -> Next {
        match (&self.wanted, self.held) {
            (Some(wanted), Held::Version(held)) if held == wanted.number => {
                if self.remains.are_none() {
                    Next::Rest
                } else {
                    Next::Ask(Asked::TakeBack(Some(held)))
                }
            }
            (Some(wanted), _) => Next::Ask(Asked::Publish(Some(wanted.number))),
            (None, Held::Nothing) => Next::Over,
            (None, _) if self.remains.are_several() => Next::Ask(Asked::TakeBack(None)),
            (None, _) => Next::Ask(Asked::Publish(None)),
        }
    }

    /// Whether a server may list it, although the current one holds nothing.
    fn may_be_listed(&self, now: Instant) -> bool {
        self.lost.is_some_and(|lost| now < lost + FORGOTTEN)
    }

    /// What is registered elsewhere than at the address of `instance`: what a server knows it by.
    pub(super) fn elsewhere(&self, instance: &Instance, own: Option<Own<'_>>) -> Option<Addresses> {
        let wanted = self.wanted.as_ref()?;
        if self.is_at(instance, own) {
            return None;
        }
        let wanted = wanted.instances.iter().map(Instance::address);
        let known = wanted.map(|address| self.found.of(address).clone());
        Some(Addresses::from_iter(known))
    }

    /// Exactly these are wanted, and `ticket` waits for that to be confirmed. False if it is so
    /// already, and nobody waits.
    pub(super) fn join(
        &mut self,
        instances: Vec<Instance>,
        ticket: Ticket,
        own: Option<Own<'_>>,
    ) -> bool {
        let moved = own.is_some_and(|own| self.found.is_elsewhere(&instances, own));
        match &self.wanted {
            Some(wanted) if wanted.instances == instances && !moved => {
                if self.held == Held::Version(wanted.number) {
                    return false;
                }
            }
            _ => self.want(instances),
        }
        // Not the last version: that may have been refused, and an earlier one is wanted again.
        let wanted = self.wanted.as_ref();
        let number = wanted.map_or(self.last, |wanted| wanted.number);
        self.joining.push((number, ticket));
        true
    }

    /// Nothing is wanted any longer, and `ticket` waits for that. Who waits for what was wanted does
    /// so in vain.
    pub(super) fn withdraw(&mut self, ticket: Option<Ticket>) -> Vec<Ticket> {
        self.wanted = None;
        self.confirmed = None;
        self.withdrawn = self.last;
        self.leaving.extend(ticket);
        let joining = std::mem::take(&mut self.joining);
        joining.into_iter().map(|(_, ticket)| ticket).collect()
    }

    /// Nobody waits with `ticket` any longer. What is wanted stays so.
    pub(super) fn forget(&mut self, ticket: Ticket) {
        self.joining.retain(|(_, waiting)| *waiting != ticket);
        self.leaving.retain(|waiting| *waiting != ticket);
    }

    /// These are wanted from now on.
    fn want(&mut self, instances: Vec<Instance>) {
        self.last += 1;
        self.wanted = Some(Version {
            number: self.last,
            instances,
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
                    instances: self.listed.clone(),
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

    pub(super) fn request(
        &mut self,
        key: &ServiceKey,
        asked: Asked,
        own: Own<'_>,
        adds_up: bool,
        outputs: &mut VecDeque<Output>,
    ) -> Result<Request, OperationError> {
        let key = key.clone();
        Ok(match (asked, &self.wanted) {
            (Asked::TakeBack(version), _) => Request::DeregisterBatch {
                key,
                instances: self.remains.beside(version.is_some()),
            },
            (Asked::Publish(Some(_)), Some(wanted)) => {
                let instances = self.found.place(&wanted.instances, own, |placed| {
                    let key = key.clone();
                    outputs.push_back(Output::Placed { key, placed });
                })?;
                self.sent = Some(instances.clone());
                if adds_up {
                    self.remains.replaced_by(&instances);
                }
                match <[Instance; 1]>::try_from(instances) {
                    Ok([instance]) => Request::Register { key, instance },
                    Err(instances) => Request::RegisterBatch { key, instances },
                }
            }
            _ => {
                self.sent = None;
                let instance = self.listed[0].clone(); // any of them stands for all
                Request::Deregister { key, instance }
            }
        })
    }

    /// Whether `instance` would change what is wanted in place.
    fn is_at(&self, instance: &Instance, own: Option<Own<'_>>) -> bool {
        let Some(Version { instances, .. }) = &self.wanted else {
            return false;
        };
        let [only] = &instances[..] else {
            return false;
        };
        let address = instance.address();
        only.address() == address
            || own
                .and_then(|own| own.place(address).ok())
                .is_some_and(|placed| *self.found.of(only.address()) == placed)
    }

    /// Nobody knows what the server holds.
    pub(super) const fn unanswered(&mut self) {
        self.held = Held::Unknown;
    }

    /// What was confirmed may be undone, and is asked for again.
    pub(super) fn doubt(&mut self) -> bool {
        let agreed = matches!(self.next(), Next::Rest | Next::Over);
        if agreed {
            self.held = Held::Unknown;
        }
        agreed
    }

    pub(super) fn answered(
        &mut self,
        key: &ServiceKey,
        asked: Asked,
        verdict: Result<Answer, OperationError>,
        cx: &mut Context<'_>,
    ) -> Then {
        let version = match asked {
            Asked::Publish(version) => version,
            Asked::TakeBack(version) => return self.taken_back(version, verdict, cx),
            _ => return Then::Moot,
        };
        if let Some(sent) = self.sent.take() {
            if verdict.as_ref().is_err_and(OperationError::is_refusal) {
                self.remains.stayed(&self.listed);
            } else {
                self.listed = sent;
            }
        }
        match verdict {
            Ok(_) => {
                for ticket in self.confirm(version) {
                    cx.done(ticket, Ok(Outcome::Done));
                }
                Then::Settled
            }
            Err(error) if cx.closing => self.failed_at_last(key, version, &error, cx),
            Err(_) if self.next() != Next::Ask(asked) => Then::Moot,
            Err(error) => self.failed(version, error, cx),
        }
    }

    /// A server that replaces a batch by the next says that it does not know the request.
    fn taken_back(
        &mut self,
        version: Option<u64>,
        verdict: Result<Answer, OperationError>,
        cx: &Context<'_>,
    ) -> Then {
        match verdict {
            Err(error) if !cx.closing && !Self::is_final(&error, cx) => {
                if self.next() == Next::Ask(Asked::TakeBack(version)) {
                    Then::Failed(error)
                } else {
                    Then::Moot
                }
            }
            _ => {
                self.remains.are_gone(version.is_some());
                Then::Settled
            }
        }
    }

    /// Whether it would be the same the next time: a first denial may be answered by a login.
    fn is_final(error: &OperationError, cx: &Context<'_>) -> bool {
        let may_be_answered = cx.config.credentials && cx.failures == 0;
        error.is_permanent() || (error.is_denied() && !may_be_answered)
    }

    fn failed(
        &mut self,
        version: Option<u64>,
        error: OperationError,
        cx: &mut Context<'_>,
    ) -> Then {
        let is_final = Self::is_final(&error, cx);
        let waiting = match version {
            _ if !is_final => Vec::new(),
            Some(_) => self.joining.drain(..).map(|(_, ticket)| ticket).collect(),
            None => std::mem::take(&mut self.leaving),
        };
        // Theirs to try again. What the server may hold is still ours to take back.
        let other = !waiting.is_empty() && version.is_some() && self.fall_back();
        for ticket in waiting {
            cx.done(ticket, Err(error.clone()));
        }
        if other {
            Then::Anew
        } else {
            Then::Failed(error)
        }
    }

    /// While closing nothing is tried twice. A registration that was under way as the close began
    /// and is refused changed nothing: what was held before is still to be deregistered.
    fn failed_at_last(
        &mut self,
        key: &ServiceKey,
        version: Option<u64>,
        error: &OperationError,
        cx: &mut Context<'_>,
    ) -> Then {
        if version.is_some() && error.is_refusal() {
            return Then::Moot;
        }
        cx.unfinished.push((Operation::Deregister, key.clone()));
        for ticket in self.leaving.drain(..) {
            cx.done(ticket, Err(error.clone()));
        }
        Then::Gone
    }

    /// The connection is another. What was published on the last one goes with it, once its server
    /// notices; who waits for that to be confirmed waits in vain.
    pub(super) fn lost(&mut self, under_way: bool, now: Instant) {
        if self.held != Held::Nothing || under_way {
            self.lost = Some(now);
            if let Some(sent) = self.sent.take() {
                self.listed = sent;
            }
        }
        self.held = Held::Nothing;
        self.remains = Remains::default();
    }

    /// Nothing is wanted, and the current server holds nothing. What an earlier one lists nobody
    /// can take back.
    pub(super) fn end(self, key: &ServiceKey, cx: &mut Context<'_>) {
        let outcome = if self.may_be_listed(cx.now) {
            if cx.closing {
                cx.unfinished.push((Operation::Deregister, key.clone()));
            }
            Err(OperationError::Unconfirmed(Addresses::of(&self.listed)))
        } else {
            Ok(Outcome::Done)
        };
        for ticket in self.leaving {
            cx.done(ticket, outcome.clone());
        }
    }
}

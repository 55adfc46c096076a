use std::sync::{Arc, atomic::Ordering};

use crate::endpoint::{
    admission::Place,
    clock,
    error::CallError,
    health::machine::{Event, Prospect},
    member::Endpoint,
    roster::{Found, Roster},
    set::EndpointSet,
    tried::{MOST_TRIES, Tried},
    view::View,
};

/// What a look for an instance found.
pub(crate) enum Picked<S> {
    /// Call this one.
    Place(Place<S>),
    /// There is none now, and there may be one after the set's next change.
    Wait,
    /// There is none. Boxed, so that what is handed on at each call stays in registers.
    Nobody(Box<CallError>),
}

impl<S> EndpointSet<S> {
    /// An open endpoint that is not among `tried` and that `allow` says yes to.
    pub(crate) fn pick(&self, tried: &Tried, allow: impl Fn(&Endpoint<S>) -> bool) -> Picked<S> {
        if let Found::One(endpoint, probe) = self.find(&self.roster(false), tried, &allow) {
            return Picked::Place(Place::new(endpoint, probe));
        }
        if tried.waits_for_room() {
            return Picked::Wait; // none is out for that
        }
        let left = |e: &Endpoint<S>| !tried.contains(e.generation()) && allow(e);
        for _ in 0..MOST_LOOKS {
            // No call fails for what others were answered, nor because those who were let back in
            // were ejected before this could look.
            let some_in = self.lift_outliers(left);
            let roster = self.roster(true);
            // Asked before who is open, lest somebody is let back in between.
            let awaited = self.ask(&roster, tried, left);
            let found = self.find(&roster, tried, &allow);
            if let Found::Nobody = found
                && let Some(endpoint) = roster.find_refused(tried, &allow)
            {
                return Picked::Place(Place::despite_refusal(endpoint));
            }
            match found {
                Found::One(endpoint, probe) => {
                    return Picked::Place(Place::new(endpoint, probe));
                }
                Found::Changing => return Picked::Wait,
                Found::Nobody if !roster.known || awaited => return Picked::Wait,
                Found::Nobody if some_in => {}
                Found::Nobody => break,
            }
        }
        Picked::Nobody(Box::new(self.nobody()))
    }

    /// The probe that is due, if one is and `allow` says yes to it: it goes before any choice.
    #[inline]
    pub(crate) fn probe(
        &self,
        tried: &Tried,
        allow: impl Fn(&Endpoint<S>) -> bool,
    ) -> Option<Place<S>> {
        if !self.seek_probes() {
            return None;
        }
        self.find_probe(tried, allow)
    }

    #[cold]
    fn find_probe(&self, tried: &Tried, allow: impl Fn(&Endpoint<S>) -> bool) -> Option<Place<S>> {
        let roster = self.roster(true);
        let found = roster.find_probe(tried, allow);
        if roster.offers_probe() {
            self.hub.probes.store(true, Ordering::Release);
        }
        found.map(|endpoint| Place::new(endpoint, true))
    }

    /// Whether to look for probes. Cleared before the look, so that a probe granted during it is
    /// not missed for good.
    #[inline]
    fn seek_probes(&self) -> bool {
        self.hub.probes.load(Ordering::Relaxed) && self.hub.probes.swap(false, Ordering::AcqRel)
    }

    fn find(
        &self,
        roster: &Roster<S>,
        tried: &Tried,
        allow: impl Fn(&Endpoint<S>) -> bool,
    ) -> Found<S> {
        let probes = self.seek_probes();
        let found = roster.find(tried, probes, self.is_gated(), allow);
        if probes && roster.offers_probe() {
            self.hub.probes.store(true, Ordering::Release); // there is another, or this call tried it
        }
        found
    }

    /// The roster, rebuilt if it is stale. Unless the newest is a must, a stale one will do while
    /// somebody else is at it: the gates are what is trusted.
    pub(crate) fn roster(&self, newest: bool) -> Arc<Roster<S>> {
        let known = self.published.load_full();
        if let (Some(roster), false) = (&known, newest)
            && roster.version == self.version()
        {
            return Arc::clone(roster);
        }
        let state = match (known, newest) {
            (Some(stale), false) => match self.state.try_lock() {
                Ok(state) => state,
                Err(_) => return stale,
            },
            _ => self.lock(),
        };
        let mut view = View {
            state,
            hub: &self.hub,
        };
        let version = self.version();
        let former = self.published.load_full();
        let revision = view.snapshot().revision();
        if let Some(roster) = &former
            && roster.version == version
            && roster.revision == revision
        {
            return Arc::clone(roster);
        }
        let prefer = self.prefer().map(|c| &**c);
        let roster = Arc::new(view.roster(version, prefer, former.as_deref()));
        self.published.store(Arc::clone(&roster));
        roster
    }

    /// Whether it is about to be known if one of those that cannot be called now can be reached.
    /// What was not dialled lately is, for whoever asks.
    fn ask(&self, roster: &Roster<S>, tried: &Tried, left: impl Fn(&Endpoint<S>) -> bool) -> bool {
        let shut = roster.endpoints().iter().filter(|endpoint| {
            let gate = endpoint.gate.state();
            (gate.is_ejected() || gate.is_suspect()) && gate.admits_probe() && left(endpoint)
        });
        let (now, since) = (clock::now(), tried.since());
        let rules = self.hub.settings.health();
        let (mut awaited, mut refused, mut asked) = (0, 0, false);
        for endpoint in shut {
            let look = |endpoint: &Endpoint<S>| {
                endpoint
                    .health
                    .read(|health| (health.prospect(now, since, rules), health.is_awaited()))
            };
            match look(endpoint) {
                (Prospect::Awaited, false) if awaited < MOST_ASKED => {
                    let _ = endpoint.note(Event::Asked { since }, now);
                    asked = true;
                    awaited += 1;
                }
                (Prospect::Awaited, false) | (Prospect::None, _) => {}
                (Prospect::Awaited, true) => awaited += 1,
                (Prospect::Refused, _) => refused += 1,
            }
        }
        if asked {
            self.hub.notify_janitor();
            if !self.hub.has_janitor() {
                let next = self.sweep(now, None);
                self.hub.put_off(next);
            }
        }
        awaited > 0 && (since.is_none() || refused < MOST_TRIES)
    }

    /// Why nobody is called, if it is known which instances there are.
    pub(crate) fn nobody_known(&self) -> Option<CallError> {
        self.roster(true).known.then(|| self.nobody())
    }
}

/// Looks for an instance while others are ejected and let back in.
const MOST_LOOKS: usize = 16;
/// For how many dials a call waits at most.
const MOST_ASKED: usize = 16;

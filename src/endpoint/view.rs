use std::sync::{Arc, MutexGuard};

use crate::{
    directory::{Entry, Snapshot},
    endpoint::{
        clock, error::CallError, hub::Hub, member::Endpoint, roster::Roster, set::EndpointSet,
        state::State,
    },
    model::ServiceKey,
};

/// The newest snapshot of a set, held still, and the endpoints of its instances.
pub(crate) struct View<'a, S> {
    pub(super) state: MutexGuard<'a, State<S>>,
    pub(super) hub: &'a Arc<Hub>,
}

impl<S> EndpointSet<S> {
    /// Holds the newest snapshot still. Nothing of the users' may run meanwhile.
    pub(crate) fn view(&self) -> View<'_, S> {
        View {
            state: self.lock(),
            hub: &self.hub,
        }
    }

    /// Why there is nobody to call.
    pub(crate) fn nobody(&self) -> CallError {
        self.view().nobody(self.service())
    }
}

impl<S> View<'_, S> {
    /// The newest snapshot.
    pub(crate) fn snapshot(&self) -> &Arc<Snapshot> {
        &self.state.latest
    }

    /// Whether an instance of it is known to be out of reach, or cannot be used.
    pub(crate) fn is_out(&self, entry: &Entry) -> bool {
        self.state.is_out(entry)
    }

    /// The endpoint of an instance of it; made if there is none.
    pub(crate) fn endpoint(&mut self, entry: &Entry) -> Arc<Endpoint<S>> {
        let address = entry.instance().address();
        if let Some(endpoint) = self.state.endpoints.get(address)
            && endpoint.generation() == entry.generation()
        {
            return Arc::clone(endpoint);
        }
        let endpoint = Endpoint::new(entry, Arc::clone(self.hub));
        self.state.legacies.hand_on(&endpoint, clock::now());
        let endpoint = Arc::new(endpoint);
        let former = self
            .state
            .endpoints
            .insert(address.clone(), Arc::clone(&endpoint));
        if let Some(former) = former {
            // The directory announces every departure, so there is none; and if there were one,
            // it would have left.
            former.gate.evict();
            self.state.evicted.push(former);
        }
        endpoint
    }

    pub(super) fn roster(
        &mut self,
        version: u64,
        prefer: Option<&str>,
        former: Option<&Roster<S>>,
    ) -> Roster<S> {
        let snapshot = Arc::clone(self.snapshot());
        let near = |entry: &&Entry| prefer.is_some_and(|c| **entry.instance().cluster() == *c);
        let mut entries: Vec<&Entry> = Vec::with_capacity(snapshot.callable_len());
        entries.extend(snapshot.callable().filter(near));
        let preferred = entries.len();
        entries.extend(snapshot.callable().filter(|entry| !near(entry)));
        let generations = entries.iter().map(|entry| entry.generation()).collect();
        Roster::new(version, &snapshot, former, generations, preferred, |at| {
            self.endpoint(entries[at])
        })
    }

    fn nobody(&self, service: &ServiceKey) -> CallError {
        let state = &self.state;
        let service = service.clone();
        if state.latest.callable_len() == 0 {
            return CallError::NoInstances {
                service,
                reason: vacancy(&state.latest).into(),
            };
        }
        let unusable = state
            .latest
            .callable()
            .filter_map(|entry| state.endpoints.get(entry.instance().address()))
            .find_map(|endpoint| Some((endpoint.address(), endpoint.slot.unusable()?)));
        match (&state.last_error, unusable) {
            (None, Some((instance, reason))) => CallError::Unusable {
                service,
                instance,
                reason,
            },
            (last_error, _) => CallError::AllUnreachable {
                service,
                last_error: last_error
                    .clone()
                    .unwrap_or_else(|| "each of them was tried".into()),
            },
        }
    }
}

fn vacancy(snapshot: &Snapshot) -> String {
    if snapshot.ended {
        return "the subscription ended before the registry said".to_owned();
    }
    if snapshot.entries().is_empty() {
        return match snapshot.hint() {
            Some(hint) => format!("the registry lists none; {hint}"),
            None => "the registry lists none".to_owned(),
        };
    }
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for entry in snapshot.entries() {
        let why = entry.standing().text();
        match counts.iter_mut().find(|(known, _)| *known == why) {
            Some((_, count)) => *count += 1,
            None => counts.push((why, 1)),
        }
    }
    let listed = snapshot.entries().len();
    let whys: Vec<String> = counts
        .into_iter()
        .map(|(why, count)| format!("{count} × {why}"))
        .collect();
    let remedy = snapshot.remedy().map(|remedy| format!("; {remedy}"));
    format!(
        "{listed} listed: {}{}",
        whys.join(", "),
        remedy.unwrap_or_default()
    )
}

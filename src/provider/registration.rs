//! What is registered, and the requests that do it.

use std::sync::{Mutex, PoisonError};

use super::sequence::Deregistered;
use crate::{
    client::{Client, RequestError},
    model::{Instance, ServiceKey, ServiceName, Weight},
};

/// The instances as they are wanted now.
#[derive(Debug)]
pub(super) struct Wanted {
    instances: Vec<Instance>,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// Rises with each change.
    version: u64,
    weight: Option<Weight>,
    drained: bool,
}

impl Wanted {
    pub(super) fn new(instances: Vec<Instance>) -> Self {
        Self {
            instances,
            state: Mutex::default(),
        }
    }

    pub(super) fn set_weight(&self, weight: Weight) {
        self.change(|state| state.weight = Some(weight));
    }

    pub(super) fn set_drained(&self, drained: bool) {
        self.change(|state| state.drained = drained);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.version += 1;
        change(&mut state);
    }

    fn state(&self) -> State {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether something else is wanted than was at `version`.
    pub(super) fn has_changed(&self, version: u64) -> bool {
        self.state().version != version
    }

    fn instances(&self, state: State) -> Vec<Instance> {
        let weighed = |instance: &Instance| {
            let weight = state.weight.unwrap_or_else(|| instance.weight());
            let weight = if state.drained { Weight::ZERO } else { weight };
            instance.clone().with_weight(weight)
        };
        self.instances.iter().map(weighed).collect()
    }

    /// Registers everything everywhere, and returns which version of it. What is registered already is
    /// updated in place.
    pub(super) async fn register(
        &self,
        nacos: &Client,
        services: &[ServiceKey],
    ) -> Result<u64, RequestError> {
        let state = self.state();
        let instances = self.instances(state);
        for service in services {
            let name = ServiceName::from(service.service());
            match &*instances {
                [one] => nacos.register(name, one.clone()).await?,
                all => nacos.register_batch(name, all.to_vec()).await?,
            }
        }
        Ok(state.version)
    }
}

/// What a registry knows of us, as far as it said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listed {
    Confirmed,
    /// It was asked, if it was reached.
    Perhaps,
    /// It was not asked, or said no.
    Refused,
}

impl Listed {
    /// What a deregistration came to, in the light of this: a client has nothing to take back from a
    /// registry that it never reached, or that it lost so long ago that it will have forgotten, and nobody has
    /// said a word then.
    pub(super) fn after(
        self,
        how: Deregistered,
        connected: bool,
    ) -> (Deregistered, Option<&'static str>) {
        match (self, how, connected) {
            (Self::Confirmed, Deregistered::Acknowledged, false) => (
                Deregistered::Unconfirmed,
                Some(
                    "there is no connection to the registry, and callers go on with what it said last",
                ),
            ),
            (Self::Refused, Deregistered::Acknowledged, _)
            | (Self::Perhaps, Deregistered::Acknowledged, false) => (Deregistered::Nothing, None),
            (_, how, _) => (how, None),
        }
    }
}

/// Takes everything back. What fails in one service stops none of the others.
pub(super) async fn deregister(
    nacos: &Client,
    services: &[ServiceKey],
) -> (Deregistered, Option<String>) {
    let all = services
        .iter()
        .map(|service| nacos.deregister(ServiceName::from(service.service())));
    let (mut how, mut why) = (Deregistered::Nothing, None);
    for done in futures_util::future::join_all(all).await {
        match done {
            Ok(()) if how == Deregistered::Nothing => how = Deregistered::Acknowledged,
            Ok(()) | Err(RequestError::NotRegistered) => {}
            Err(error) => {
                how = Deregistered::Unconfirmed;
                why.get_or_insert_with(|| error.to_string());
            }
        }
    }
    (how, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_registry_that_is_there_acknowledges() {
        use Deregistered::{Acknowledged, Nothing, Unconfirmed};
        let (there, away) = (true, false);
        for (listed, how, connected, wanted) in [
            (Listed::Confirmed, Acknowledged, there, Acknowledged),
            (Listed::Confirmed, Acknowledged, away, Unconfirmed),
            (Listed::Perhaps, Acknowledged, there, Acknowledged),
            (Listed::Perhaps, Acknowledged, away, Nothing),
            (Listed::Refused, Acknowledged, there, Nothing),
            (Listed::Refused, Acknowledged, away, Nothing),
            (Listed::Confirmed, Nothing, there, Nothing),
            (Listed::Perhaps, Unconfirmed, away, Unconfirmed),
            (Listed::Refused, Unconfirmed, there, Unconfirmed),
        ] {
            let (found, why) = listed.after(how, connected);
            assert_eq!(found, wanted, "{listed:?} {how:?} {connected}");
            assert_eq!(why.is_some(), found == Unconfirmed && how != found);
        }
    }
}

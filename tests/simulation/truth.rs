//! What is really there: providers that the servers list, and what a server is.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tower_nacos::{
    model::{Address, Instance},
    simulation::Link,
    testing::{ConnId, Login, Profile, Settings, machine::Machine},
};

/// A server that clients may connect to.
pub(crate) struct Server {
    pub(crate) machine: Machine,
    /// Counts its lives: a connection of a former one is gone.
    pub(crate) epoch: u32,
    pub(crate) up: bool,
    /// Lost with its rack: says nothing, not even no.
    pub(crate) dead: bool,
    pub(crate) frozen_until: Instant,
    pub(crate) conns: BTreeMap<ConnId, (usize, Link)>,
    /// Since when nothing but the network can keep clients from it.
    pub(crate) ok_since: Instant,
    pub(crate) scripts_until: Instant,
    /// As what it lists each provider.
    pub(crate) lists: BTreeMap<usize, Instance>,
    pub(crate) profile: Profile,
}

/// A provider that the test plays.
#[derive(Debug)]
pub(crate) struct Provider {
    pub(crate) service: usize,
    pub(crate) instance: Instance,
    /// Where it registers.
    pub(crate) home: usize,
    /// Its process runs.
    pub(crate) alive: bool,
    /// It is registered somewhere, or some server believes so.
    pub(crate) registered: bool,
    /// Since when it is as it is.
    pub(crate) since: Instant,
}

impl Provider {
    pub(crate) fn name(&self) -> String {
        format!("provider {}", self.instance.address())
    }

    pub(crate) fn address(&self) -> &Address {
        self.instance.address()
    }

    /// Whether clients should call it when they can see it.
    pub(crate) fn is_serving(&self) -> bool {
        self.alive && !self.instance.weight().is_zero() && self.instance.is_enabled()
    }
}

pub(crate) fn settings(profile: Profile, race: f64, login: Option<Login>) -> Settings {
    let mut settings = Settings::default();
    settings.profile = profile;
    settings.detection_race = race;
    settings.log_limit = 0;
    settings.login = login;
    settings
}

/// The callable of a list, as the ladder says.
pub(crate) fn callable<'a>(instances: impl Iterator<Item = &'a Instance> + Clone) -> Vec<Address> {
    let usable = instances.filter(|i| i.is_enabled() && !i.weight().is_zero());
    let any_healthy = usable.clone().any(Instance::is_healthy);
    let rung = usable.filter(|i| i.is_healthy() || !any_healthy);
    let mut callable: Vec<Address> = rung.map(|i| i.address().clone()).collect();
    callable.sort();
    callable
}

/// How long other servers list what was lost together with its server.
pub(crate) const FORGET: Duration = Duration::from_secs(180);

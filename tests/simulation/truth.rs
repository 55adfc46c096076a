//! What is really there: providers that the servers list, and what a server is.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tower_nacos::{
    directory::{Mode, Snapshot},
    model::{Address, Instance},
    simulation::SimLink,
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
    pub(crate) conns: BTreeMap<ConnId, (usize, SimLink)>,
    /// Since when nothing but the network can keep clients from it.
    pub(crate) ok_since: Instant,
    pub(crate) scripts_until: Instant,
    /// As what it lists each provider.
    pub(crate) lists: BTreeMap<usize, Instance>,
    /// Since when it has listed each without a break.
    pub(crate) listed_since: BTreeMap<usize, Instant>,
    /// When it last took somebody from each service, which it lists on for a minute.
    pub(crate) emptied: BTreeMap<usize, Instant>,
    pub(crate) profile: Profile,
}

/// A provider that the test plays.
#[derive(Debug)]
pub(crate) struct Provider {
    pub(crate) service: usize,
    pub(crate) instance: Instance,
    /// There is another one at the same address.
    pub(crate) is_twin: bool,
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
        let twin = if self.is_twin { " (twin)" } else { "" };
        format!("provider {}{twin}", self.instance.address())
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

/// The callable of a list, as the ladder says. Of twins the one that does better counts.
pub(crate) fn callable<'a>(instances: impl Iterator<Item = &'a Instance>) -> Vec<Address> {
    let mut healthy: BTreeMap<&Address, bool> = BTreeMap::new();
    for instance in instances.filter(|i| i.is_enabled() && !i.weight().is_zero()) {
        *healthy.entry(instance.address()).or_default() |= instance.is_healthy();
    }
    let any = healthy.values().any(|healthy| *healthy);
    let rung = healthy.into_iter().filter(|(_, healthy)| *healthy || !any);
    rung.map(|(address, _)| address.clone()).collect()
}

/// Whether a server lists these as healthy whatever they are.
pub(crate) fn are_protected(instances: &[Instance], threshold: Option<f64>) -> bool {
    let listed = instances.iter().filter(|i| i.is_enabled());
    let healthy = listed.clone().filter(|i| i.is_healthy()).count();
    let all = listed.count();
    all > 0 && threshold.is_some_and(|threshold| healthy as f64 / all as f64 <= threshold)
}

/// Why `snapshot` is not what its client should make of these instances.
pub(crate) fn differs(
    snapshot: &Snapshot,
    instances: &[Instance],
    threshold: Option<f64>,
) -> Option<String> {
    let callable: Vec<Address> = snapshot
        .callable()
        .map(|entry| entry.instance().address().clone())
        .collect();
    let protected = are_protected(instances, threshold);
    // Who was known to be unhealthy stays so: health under protection is a matter of history.
    let usable: Vec<Address> = callable_but_for_health(instances);
    let expected = self::callable(instances.iter());
    let fits = if protected {
        callable.iter().all(|address| usable.contains(address))
            && callable.is_empty() == usable.is_empty()
    } else {
        callable == expected
    };
    let flagged = snapshot.mode() == Mode::Flagged;
    let panics = snapshot.mode() == Mode::Panic;
    if !fits {
        Some(format!(
            "callable are {callable:?}, should be {expected:?} (protected: {protected}, {usable:?})"
        ))
    } else if flagged != protected && !(protected && panics) {
        Some(format!("{:?}, protected: {protected}", snapshot.mode()))
    } else {
        None
    }
}

fn callable_but_for_health(instances: &[Instance]) -> Vec<Address> {
    let healthy: Vec<Instance> = instances
        .iter()
        .map(|instance| instance.clone().with_healthy(true))
        .collect();
    callable(healthy.iter())
}

/// How long other servers list what was lost together with its server.
pub(crate) const FORGET: Duration = Duration::from_secs(180);

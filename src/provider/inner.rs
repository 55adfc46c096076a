//! What a provider's handles and its task share.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use super::{
    clock,
    error::OnlineError,
    layer::Shared,
    ready::Probe,
    registration::Wanted,
    report::{Offline, Report},
    sequence::Milestones,
    stage::Stage,
};
use crate::client::{Client, RequestError};

pub(super) enum Command {
    Online,
    /// Told once more, it changes nothing.
    Offline,
    /// Offline, if it is on its way there.
    Hasten,
    /// Nobody listens any more.
    Stopped,
    /// What is wanted has changed.
    Update(oneshot::Sender<Result<(), RequestError>>),
}

/// What handles wait for.
#[derive(Clone, Debug)]
pub(super) struct Status {
    pub(super) stage: Stage,
    /// Attempts to go online that failed, and what the last one met.
    pub(super) failures: u64,
    pub(super) error: Option<OnlineError>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) nacos: Client,
    pub(super) shared: Arc<Shared>,
    pub(super) probe: Option<Probe>,
    pub(super) wanted: Wanted,
    /// It looks whether its address answers.
    pub(super) checks: bool,
    /// It looks at its own service while it leaves.
    pub(super) measures: bool,
    /// Nothing can be done with it.
    pub(super) broken: Option<OnlineError>,
    facts: Mutex<Facts>,
}

#[derive(Debug, Default)]
struct Facts {
    milestones: Milestones,
    unconfirmed: Option<String>,
    waiting: Option<String>,
}

impl Inner {
    pub(super) fn new(
        nacos: Client,
        shared: Arc<Shared>,
        probe: Option<Probe>,
        wanted: Wanted,
        checks: bool,
        measures: bool,
        broken: Option<OnlineError>,
    ) -> Self {
        Self {
            nacos,
            shared,
            probe,
            wanted,
            checks,
            measures,
            broken,
            facts: Mutex::default(),
        }
    }

    pub(super) fn note(&self, milestones: Milestones) {
        self.facts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .milestones = milestones;
    }

    pub(super) fn note_unconfirmed(&self, why: String) {
        self.facts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .unconfirmed = Some(why);
    }

    /// What its start waits for.
    pub(super) fn note_waiting(&self, why: Option<String>) {
        self.facts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .waiting = why;
    }

    pub(super) fn report(&self, stage: Stage, error: Option<&OnlineError>) -> Report {
        let counted = self.shared.traffic.counted();
        let facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        let why = facts.unconfirmed.as_deref();
        Report {
            stage,
            ready: stage == Stage::Online,
            waits_for: facts.waiting.clone().filter(|_| stage == Stage::Starting),
            offline: Offline::new(facts.milestones, counted, why, clock::now()),
            in_flight: counted.in_flight,
            misdirected: counted.misdirected,
            error: error.map(ToString::to_string),
        }
    }

    /// For the log.
    pub(super) fn services(&self) -> String {
        let services = self.shared.names.services().iter();
        let names: Vec<String> = services.map(ToString::to_string).collect();
        names.join(", ")
    }
}

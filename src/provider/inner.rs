//! What a provider's handles and its task share.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot, watch};

use super::{
    clock,
    driver::Driver,
    error::OnlineError,
    layer::Shared,
    ready::Probe,
    registration::Wanted,
    report::{Offline, Report},
    sequence::{Milestones, Sequence},
    stage::Stage,
};
use crate::client::{Client, RequestError};

pub(super) enum Command {
    Online,
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
    /// Nothing can be done with it.
    pub(super) broken: Option<OnlineError>,
    facts: Mutex<Facts>,
}

#[derive(Debug, Default)]
struct Facts {
    milestones: Milestones,
    unconfirmed: Option<String>,
}

/// The user's side. Its drop leaves the task alone, which then takes back what is registered.
pub(super) struct Handle {
    pub(super) inner: Arc<Inner>,
    commands: mpsc::UnboundedSender<Command>,
    pub(super) status: watch::Receiver<Status>,
    /// Until it is started on the runtime that first has need of it.
    waiting: Mutex<Option<Driver>>,
}

impl Inner {
    pub(super) fn new(
        nacos: Client,
        shared: Arc<Shared>,
        probe: Option<Probe>,
        wanted: Wanted,
        broken: Option<OnlineError>,
    ) -> Self {
        Self {
            nacos,
            shared,
            probe,
            wanted,
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

    pub(super) fn report(&self, stage: Stage, error: Option<&OnlineError>) -> Report {
        let counted = self.shared.traffic.counted();
        let facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        let why = facts.unconfirmed.as_deref();
        Report {
            stage,
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

impl Handle {
    pub(super) fn new(inner: Inner, sequence: Sequence) -> Self {
        let inner = Arc::new(inner);
        let (commands, received) = mpsc::unbounded_channel();
        let (told, status) = watch::channel(Status {
            stage: Stage::Idle,
            failures: 0,
            error: None,
        });
        let driver = Driver::new(inner.clone(), sequence, received, told);
        Self {
            inner,
            commands,
            status,
            waiting: Mutex::new(Some(driver)),
        }
    }

    /// Tells the task, which lives on the runtime of whoever was the first to do so.
    pub(super) fn tell(&self, command: Command) -> Result<(), OnlineError> {
        {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.is_some() && tokio::runtime::Handle::try_current().is_err() {
                return Err(OnlineError::RuntimeGone);
            }
            if let Some(driver) = waiting.take() {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "the task of the provider: ends when that is over, or its last handle is dropped"
                )]
                tokio::spawn(driver.run());
            }
        }
        self.commands.send(command).map_err(|_| self.gone())
    }

    /// Why the task does not answer.
    pub(super) fn gone(&self) -> OnlineError {
        match self.status.borrow().stage {
            Stage::Over => OnlineError::Leaving,
            _ => OnlineError::RuntimeGone,
        }
    }

    pub(super) fn report(&self) -> Report {
        let status = self.status.borrow().clone();
        let error = self.inner.broken.clone().or(status.error);
        self.inner.report(status.stage, error.as_ref())
    }
}

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, watch};

use super::{
    driver::Driver,
    error::OnlineError,
    inner::{Command, Inner, Status},
    report::Report,
    sequence::Sequence,
    stage::Stage,
};

/// The user's side. Its drop leaves the task alone, which then takes back what is registered.
pub(super) struct Handle {
    pub(super) inner: Arc<Inner>,
    commands: mpsc::UnboundedSender<Command>,
    pub(super) status: watch::Receiver<Status>,
    /// Until it is started on the runtime that first has need of it.
    waiting: Mutex<Option<Driver>>,
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

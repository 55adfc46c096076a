use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};

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
    pub(super) servers: Servers,
}

/// Who serves, as far as they said so.
#[derive(Default)]
pub(super) struct Servers {
    present: AtomicUsize,
    /// One of them was told to stop, and finishes what it has in flight.
    finishes: AtomicBool,
}

/// Somebody serves, until this is dropped.
pub(super) struct Present<'a>(&'a Handle);

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
            servers: Servers::default(),
        }
    }

    /// Somebody serves from now on.
    pub(super) fn present(&self) -> Present<'_> {
        self.servers.present.fetch_add(1, SeqCst);
        Present(self)
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

impl Present<'_> {
    /// It is told to stop listening, in order: what it has in flight goes on.
    pub(super) fn told_to_stop(self) {
        self.0.servers.finishes.store(true, SeqCst);
    }
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        let servers = &self.0.servers;
        let last = servers.present.fetch_sub(1, SeqCst) == 1;
        if last && !servers.finishes.load(SeqCst) {
            let _ = self.0.tell(Command::Stopped);
        }
    }
}

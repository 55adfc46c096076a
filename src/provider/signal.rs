//! What tells a process to end.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use crate::logs;

/// Whether this process listens to signals by [`signal`]. Once it does they end it no more, for good,
/// so that there is no harm in listening for another one.
static LISTENING: AtomicBool = AtomicBool::new(false);
/// Whether [`signal`] has returned.
static TOLD: AtomicBool = AtomicBool::new(false);

/// Returns when this process is told to end: SIGTERM or SIGINT (Ctrl-C); on Windows Ctrl-C,
/// Ctrl-Break, the console's closing, or the system's shutting down.
///
/// From its first poll on these signals end the process no more by themselves: whoever waits here
/// has to. A second one hastens a provider that is leaving. If the system lets nobody listen, it never
/// returns, which one ERROR says; the signals then end the process at once, as they do without it.
///
/// Example: [a provider](crate::provider)
pub async fn signal() {
    LISTENING.store(true, SeqCst);
    match Listener::new() {
        Some(mut listener) => listener.recv().await,
        None => std::future::pending().await,
    }
    TOLD.store(true, SeqCst);
}

/// The signals that come while a provider leaves. The first one of the process hastens nothing: a hook
/// was asked before it, which is how orchestrators go about it (Kubernetes: `preStop`, then SIGTERM).
#[derive(Debug, Default)]
pub(super) struct Signals {
    /// One for all the time, so that none is missed between two looks.
    listener: Option<Listener>,
    /// The listener was asked for.
    asked: bool,
    heard: bool,
}

impl Signals {
    /// The provider begins to leave: from now on.
    pub(super) fn watch(&mut self) {
        if !self.asked && LISTENING.load(SeqCst) {
            self.asked = true;
            self.heard = TOLD.load(SeqCst);
            self.listener = Listener::new();
        }
    }

    /// Returns at the next signal that is not the first; may be dropped.
    pub(super) async fn another(&mut self) {
        let Some(listener) = &mut self.listener else {
            return std::future::pending().await;
        };
        loop {
            listener.recv().await;
            if std::mem::replace(&mut self.heard, true) {
                return;
            }
            tracing::info!(target: logs::PROVIDER, "the provider leaves already, as it was told before this signal; another one hastens it");
        }
    }
}

/// Hears each signal that comes since it was made; several between two looks are one.
#[cfg(unix)]
#[derive(Debug)]
struct Listener([tokio::signal::unix::Signal; 2]);

#[cfg(unix)]
impl Listener {
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let (terminate, interrupt) = (SignalKind::terminate(), SignalKind::interrupt());
        Ok(Self([signal(terminate)?, signal(interrupt)?]))
    }

    async fn recv(&mut self) {
        let [terminate, interrupt] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

/// Hears each signal that comes since it was made; several between two looks are one.
#[cfg(windows)]
#[derive(Debug)]
struct Listener {
    c: tokio::signal::windows::CtrlC,
    stop: tokio::signal::windows::CtrlBreak,
    close: tokio::signal::windows::CtrlClose,
    shutdown: tokio::signal::windows::CtrlShutdown,
}

#[cfg(windows)]
impl Listener {
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::windows::{ctrl_break, ctrl_c, ctrl_close, ctrl_shutdown};
        Ok(Self {
            c: ctrl_c()?,
            stop: ctrl_break()?,
            close: ctrl_close()?,
            shutdown: ctrl_shutdown()?,
        })
    }

    async fn recv(&mut self) {
        tokio::select! {
            _ = self.c.recv() => {}
            _ = self.stop.recv() => {}
            _ = self.close.recv() => {}
            _ = self.shutdown.recv() => {}
        }
    }
}

#[cfg(not(any(unix, windows)))]
#[derive(Debug)]
struct Listener;

#[cfg(not(any(unix, windows)))]
impl Listener {
    fn listen() -> std::io::Result<Self> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    async fn recv(&mut self) {
        std::future::pending().await
    }
}

impl Listener {
    fn new() -> Option<Self> {
        let listener = Self::listen();
        if let Err(error) = &listener {
            tracing::error!(target: logs::PROVIDER, cause = %error, "cannot listen to signals: they end this process at once");
        }
        listener.ok()
    }
}

//! What tells a process to end.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use crate::logs;

/// Whether this process listens to signals by [`signal`]. Once it does they end it no more, for good,
/// so that there is no harm in listening for another one.
static LISTENING: AtomicBool = AtomicBool::new(false);

/// Returns when this process is told to end: SIGTERM or SIGINT (Ctrl-C); on Windows Ctrl-C,
/// Ctrl-Break, the console's closing, or the system's shutting down.
///
/// From its first poll on these signals end the process no more by themselves: whoever waits here
/// has to. A second one hastens a provider that is leaving. If the system lets nobody listen, it never
/// returns, which one ERROR says; the signals then end the process at once, as they do without it.
pub async fn signal() {
    LISTENING.store(true, SeqCst);
    told().await;
}

/// Returns at the next signal, if this process listens to them.
pub(super) async fn another() {
    if LISTENING.load(SeqCst) {
        told().await;
    } else {
        std::future::pending().await
    }
}

async fn told() {
    if let Err(error) = next().await {
        tracing::error!(target: logs::PROVIDER, cause = %error, "cannot listen to signals: they end this process at once");
        std::future::pending().await
    }
}

#[cfg(unix)]
async fn next() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

#[cfg(windows)]
async fn next() -> std::io::Result<()> {
    use tokio::signal::windows::{ctrl_break, ctrl_c, ctrl_close, ctrl_shutdown};
    let (mut c, mut stop) = (ctrl_c()?, ctrl_break()?);
    let (mut close, mut shutdown) = (ctrl_close()?, ctrl_shutdown()?);
    tokio::select! {
        _ = c.recv() => {}
        _ = stop.recv() => {}
        _ = close.recv() => {}
        _ = shutdown.recv() => {}
    }
    Ok(())
}

#[cfg(not(any(unix, windows)))]
async fn next() -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use hyper::{
    rt::Executor,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::{
    core::{Shared, now},
    gate::Gated,
    grpc, http,
    pings::Enforced,
};

/// Lets hyper's tasks live and die with the registry's present life.
#[derive(Clone)]
struct InRun(Arc<Shared>, u64);

impl<F> Executor<F> for InRun
where
    F: Future + Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(self.1, async move {
            task.await;
        });
    }
}

/// What makes a connection of a socket.
#[derive(Clone, Default)]
pub(super) struct Acceptor {
    #[cfg(feature = "tls")]
    tls: Option<tokio_rustls::TlsAcceptor>,
}

/// A connection as hyper takes it.
pub(super) type Connection = TokioIo<Pin<Box<dyn Io>>>;

pub(super) trait Io: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Io for T {}

impl Acceptor {
    /// `None` when the client's TLS is not to our liking, or not there.
    async fn accept(&self, socket: Gated) -> Option<Connection> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            let stream = tls.accept(socket).await.ok()?;
            return Some(TokioIo::new(Box::pin(stream)));
        }
        Some(TokioIo::new(Box::pin(socket)))
    }
}

#[cfg(feature = "tls")]
impl From<Option<tokio_rustls::TlsAcceptor>> for Acceptor {
    fn from(tls: Option<tokio_rustls::TlsAcceptor>) -> Self {
        Self { tls }
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").finish_non_exhaustive()
    }
}

/// Calls the machine when it wants to be called.
pub(super) async fn drive(shared: Arc<Shared>) {
    loop {
        shared.gate.passed().await;
        for (ip, port) in shared.take_checks() {
            let task = shared.clone();
            shared.spawn(shared.run_number(), async move {
                let accepts = accepts(&ip, port).await;
                task.with(|machine, now| machine.handle_checked(&ip, port, accepts, now));
            });
        }
        let due: Option<Instant> = shared.look(|machine| machine.poll_timeout());
        match due {
            Some(due) if due <= now() => {
                shared.with(|machine, now| machine.handle_timeout(now));
                // `with` woke the timer that nobody waits for now.
            }
            Some(due) => {
                let due = tokio::time::Instant::from_std(due);
                tokio::select! {
                    () = tokio::time::sleep_until(due) => {}
                    () = shared.timer.notified() => {}
                }
            }
            None => shared.timer.notified().await,
        }
    }
}

/// Whether somebody accepts connections there, within the 500 ms that genuine servers wait.
async fn accepts(ip: &str, port: i32) -> bool {
    let Ok(port) = u16::try_from(port) else {
        return false;
    };
    let dialled = TcpStream::connect((ip, port));
    matches!(
        timeout(Duration::from_millis(500), dialled).await,
        Ok(Ok(_))
    )
}

pub(super) async fn accept_grpc(
    shared: Arc<Shared>,
    listener: TcpListener,
    acceptor: Acceptor,
    run: u64,
) {
    loop {
        shared.gate.passed().await;
        let Ok((socket, address)) = listener.accept().await else {
            // Out of file descriptors, as a rule: the listener itself is well.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let _ = socket.set_nodelay(true);
        let (task, acceptor) = (shared.clone(), acceptor.clone());
        shared.spawn(run, async move {
            let (conn, close, gate) = task.opened(address);
            let socket = Gated::new(socket, [task.gate.clone(), gate]);
            let accepted = tokio::select! {
                accepted = acceptor.accept(socket) => accepted,
                () = close.notified() => None,
            };
            let Some(io) = accepted else {
                return task.closed(conn);
            };
            let every = task.look(|machine| machine.settings().pings_every);
            let io = TokioIo::new(Enforced::new(io.into_inner(), every));
            let calls = task.clone();
            let service = service_fn(move |request| grpc::serve(calls.clone(), run, conn, request));
            let serving = http2::Builder::new(InRun(task.clone(), run))
                .timer(TokioTimer::new())
                .serve_connection(io, service);
            tokio::select! {
                _ = serving => {} // how it ended makes no difference to the machine
                () = close.notified() => {}
            }
            task.closed(conn);
        });
    }
}

pub(super) async fn accept_http(
    shared: Arc<Shared>,
    listener: TcpListener,
    acceptor: Acceptor,
    run: u64,
) {
    loop {
        shared.gate.passed().await;
        let Ok((socket, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let (task, acceptor) = (shared.clone(), acceptor.clone());
        shared.spawn(run, async move {
            let socket = Gated::new(socket, [task.gate.clone(), Arc::default()]);
            let Some(io) = acceptor.accept(socket).await else {
                return;
            };
            let service = service_fn(move |request| http::serve(task.clone(), request));
            let serving = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(io, service);
            let _ = serving.await; // the operator went away
        });
    }
}

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use hyper::{
    rt::Executor,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use super::{
    core::{Shared, now},
    gate::Gated,
    grpc, http,
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

/// Calls the machine when it wants to be called.
pub(super) async fn drive(shared: Arc<Shared>) {
    loop {
        shared.gate.passed().await;
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

pub(super) async fn accept_grpc(shared: Arc<Shared>, listener: TcpListener, run: u64) {
    loop {
        shared.gate.passed().await;
        let Ok((socket, address)) = listener.accept().await else {
            // Out of file descriptors, as a rule: the listener itself is well.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let _ = socket.set_nodelay(true);
        let task = shared.clone();
        shared.spawn(run, async move {
            let (conn, close, gate) = task.opened(address);
            let io = TokioIo::new(Gated::new(socket, [task.gate.clone(), gate]));
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

pub(super) async fn accept_http(shared: Arc<Shared>, listener: TcpListener, run: u64) {
    loop {
        shared.gate.passed().await;
        let Ok((socket, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let task = shared.clone();
        shared.spawn(run, async move {
            let io = TokioIo::new(Gated::new(socket, [task.gate.clone(), Arc::default()]));
            let service = service_fn(move |request| http::serve(task.clone(), request));
            let serving = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(io, service);
            let _ = serving.await; // the operator went away
        });
    }
}

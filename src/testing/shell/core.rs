use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use tokio::{
    runtime::Handle,
    sync::{Notify, mpsc, oneshot, watch},
    task::JoinSet,
};

use crate::testing::machine::{CallId, ConnId, Machine, Output, StreamEnd};

use super::gate::Gate;

/// What the tasks of a registry share: the machine behind a lock that is never held across an
/// await.
#[derive(Debug)]
pub(super) struct Shared {
    core: Mutex<Core>,
    run: Mutex<Run>,
    runtime: Handle,
    /// Tells the driver that the machine's next timeout may have moved.
    pub(super) timer: Notify,
    /// Rises with everything that happens.
    pub(super) version: watch::Sender<u64>,
    pub(super) gate: Arc<Gate>,
}

#[derive(Debug)]
struct Core {
    machine: Machine,
    links: HashMap<ConnId, Link>,
    calls: CallId,
    /// Addresses that the machine wants dialled.
    checks: Vec<(String, i32)>,
}

/// The tasks of one life of the registry, from a start to a stop.
#[derive(Debug, Default)]
struct Run {
    number: u64,
    tasks: JoinSet<()>,
}

/// The socket side of a connection.
#[derive(Debug)]
struct Link {
    stream: Option<(u64, mpsc::UnboundedSender<Item>)>,
    calls: HashMap<CallId, oneshot::Sender<Answered>>,
    close: Arc<Notify>,
    gate: Arc<Gate>,
}

/// What goes out on a stream.
#[derive(Debug)]
pub(super) enum Item {
    Payload(Bytes),
    End(StreamEnd),
}

/// A call's answer, to be awaited.
pub(super) type Answer = oneshot::Receiver<Answered>;

/// A payload, or a gRPC status that is no success.
pub(super) type Answered = Result<Bytes, (i32, String)>;

impl Shared {
    pub(super) fn new(machine: Machine, runtime: Handle) -> Self {
        Self {
            core: Mutex::new(Core {
                machine,
                links: HashMap::new(),
                calls: 0,
                checks: Vec::new(),
            }),
            run: Mutex::default(),
            runtime,
            timer: Notify::new(),
            version: watch::Sender::new(0),
            gate: Arc::default(),
        }
    }

    /// Lets the machine do something, and carries out what it wants done.
    pub(super) fn with<R>(&self, act: impl FnOnce(&mut Machine, Instant) -> R) -> R {
        self.with_core(|core, now| act(&mut core.machine, now))
    }

    fn with_core<R>(&self, act: impl FnOnce(&mut Core, Instant) -> R) -> R {
        let mut core = self.lock();
        let result = act(&mut core, now());
        core.carry_out();
        drop(core);
        self.timer.notify_one();
        self.version.send_modify(|version| *version += 1);
        result
    }

    /// What is to be dialled, since this was asked last.
    pub(super) fn take_checks(&self) -> Vec<(String, i32)> {
        std::mem::take(&mut self.lock().checks)
    }

    pub(super) fn look<R>(&self, look: impl FnOnce(&Machine) -> R) -> R {
        look(&self.lock().machine)
    }

    /// Runs a task as part of the life `run`, unless that has ended.
    pub(super) fn spawn(&self, run: u64, task: impl Future<Output = ()> + Send + 'static) {
        let mut present = self.lock_run();
        if run != present.number {
            return;
        }
        while present.tasks.try_join_next().is_some() {}
        present.tasks.spawn_on(task, &self.runtime);
    }

    pub(super) fn run_number(&self) -> u64 {
        self.lock_run().number
    }

    /// Ends the present life; the tasks end when the set is dropped or shut down.
    pub(super) fn end_run(&self) -> JoinSet<()> {
        let mut run = self.lock_run();
        run.number += 1;
        let tasks = std::mem::take(&mut run.tasks);
        drop(run);
        self.lock().links.clear();
        tasks
    }

    pub(super) fn opened(&self, address: SocketAddr) -> (ConnId, Arc<Notify>, Arc<Gate>) {
        let (close, gate) = (Arc::<Notify>::default(), Arc::<Gate>::default());
        let link = Link {
            stream: None,
            calls: HashMap::new(),
            close: close.clone(),
            gate: gate.clone(),
        };
        let conn = self.with_core(|core, now| {
            let conn = core.machine.open(address, now);
            core.links.insert(conn, link);
            conn
        });
        (conn, close, gate)
    }

    pub(super) fn closed(&self, conn: ConnId) {
        self.with_core(|core, now| {
            core.links.remove(&conn);
            core.machine.handle_closed(conn, now);
        });
    }

    pub(super) fn call(&self, conn: ConnId, payload: &[u8]) -> Answer {
        let (sender, answer) = oneshot::channel();
        self.with_core(|core, now| {
            let call = core.number();
            if let Some(link) = core.links.get_mut(&conn) {
                link.calls.retain(|_, caller| !caller.is_closed()); // withheld and timed out
                link.calls.insert(call, sender);
            }
            core.machine.handle_unary(conn, call, payload, now);
        });
        answer
    }

    pub(super) fn stream_opened(&self, conn: ConnId) -> (u64, mpsc::UnboundedReceiver<Item>) {
        let (sender, items) = mpsc::unbounded_channel();
        let number = self.with_core(|core, now| {
            let number = core.number();
            if let Some(link) = core.links.get_mut(&conn) {
                link.stream = Some((number, sender));
            }
            core.machine.handle_stream_opened(conn, now);
            number
        });
        (number, items)
    }

    /// The client's side of the stream `number` ended; an older one than the present changes
    /// nothing.
    pub(super) fn stream_closed(&self, conn: ConnId, number: u64) {
        self.with_core(|core, now| {
            let stream = core.links.get(&conn).and_then(|link| link.stream.as_ref());
            if stream.is_some_and(|(present, _)| *present == number) {
                core.machine.handle_stream_closed(conn, now);
            }
        });
    }

    pub(super) fn conn_gate(&self, conn: ConnId) -> Option<Arc<Gate>> {
        self.lock().links.get(&conn).map(|link| link.gate.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_run(&self) -> MutexGuard<'_, Run> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Core {
    fn number(&mut self) -> u64 {
        self.calls += 1;
        self.calls
    }

    fn carry_out(&mut self) {
        // A receiver that is gone has lost interest: the client cancelled or went away.
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Answer {
                    conn,
                    call,
                    payload,
                } => {
                    if let Some(caller) = self.caller(conn, call) {
                        let _ = caller.send(Ok(payload));
                    }
                }
                Output::Fail {
                    conn,
                    call,
                    code,
                    message,
                } => {
                    if let Some(caller) = self.caller(conn, call) {
                        let _ = caller.send(Err((code, message)));
                    }
                }
                Output::Stream { conn, payload } => {
                    if let Some((_, stream)) = self.links.get(&conn).and_then(|l| l.stream.as_ref())
                    {
                        let _ = stream.send(Item::Payload(payload));
                    }
                }
                Output::EndStream { conn, end } => {
                    let link = self.links.get_mut(&conn);
                    if let Some((_, stream)) = link.and_then(|link| link.stream.take()) {
                        let _ = stream.send(Item::End(end));
                    }
                }
                Output::Check { ip, port } => self.checks.push((ip, port)),
                Output::CloseTransport { conn } => {
                    if let Some(link) = self.links.remove(&conn) {
                        link.close.notify_one();
                    }
                }
            }
        }
    }

    fn caller(&mut self, conn: ConnId, call: CallId) -> Option<oneshot::Sender<Answered>> {
        self.links.get_mut(&conn)?.calls.remove(&call)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the shell is where real time enters; the machine takes it as an argument"
)]
pub(super) fn now() -> Instant {
    Instant::now()
}

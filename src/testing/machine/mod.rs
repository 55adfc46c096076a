//! A Nacos naming server as a state machine: payloads, time and a seed in, payloads out.
//!
//! It has no sockets, no clock and no tasks, so that replays and simulations drive it in virtual
//! time; [`Registry`](super::Registry) puts it on a pair of ports. It was written against
//! transcripts of Alibaba's servers and shares none of this crate's decoding.

#[cfg(feature = "ram")]
mod access_key;
mod body;
mod checks;
mod conn_id;
mod connections;
mod faults;
mod frame;
mod fuzzy;
mod instance;
mod log;
mod login;
mod operator;
mod operator_call;
mod params;
mod patterns;
mod persistent;
mod profile;
mod publications;
mod push;
mod reads;
mod requests;
mod script;
mod service_id;
mod services;
mod settings;
#[cfg(test)]
mod tests;
mod view;

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;
use rand::{SeedableRng, rngs::StdRng};

#[cfg(feature = "ram")]
pub use self::access_key::AccessKey;
use self::{
    checks::Checks, connections::Connection, log::Log, login::Tokens, patterns::Fuzzy,
    services::Service,
};
pub use self::{
    conn_id::ConnId,
    faults::{Fault, Script},
    frame::{Frame, NotAPayload},
    log::{Received, Via},
    login::Login,
    operator::OperatorAnswer,
    operator_call::OperatorCall,
    profile::Profile,
    service_id::ServiceId,
    settings::Settings,
    view::{ConnectionInfo, View},
};

/// Names a unary call within its connection; the caller chooses it.
///
/// Example: [the machine](crate::testing::machine::Machine)
pub type CallId = u64;

/// A Nacos naming server without sockets. See the [module](self).
///
/// Hand it what comes with its `handle_` methods, take what leaves from [`poll_output`], and call
/// [`handle_timeout`] when [`poll_timeout`] says so. Time must not run backwards between calls.
///
/// [`poll_output`]: Self::poll_output
/// [`handle_timeout`]: Self::handle_timeout
/// [`poll_timeout`]: Self::poll_timeout
///
/// ```
/// use std::time::Instant;
/// use tower_nacos::testing::{Settings, machine::Machine};
///
/// let mut machine = Machine::new(Settings::default(), 7, Instant::now());
/// assert!(machine.view().connections().is_empty());
/// assert!(machine.poll_output().is_none());
/// ```
#[derive(Debug)]
pub struct Machine {
    settings: Settings,
    start: Instant,
    /// When it was started last.
    up: Instant,
    seed: u64,
    rng: StdRng,
    wall_offset_ms: i64,
    last_conn: u64,
    last_request: u64,
    conns: BTreeMap<ConnId, Connection>,
    services: BTreeMap<ServiceId, Service>,
    next_sweep: Instant,
    later: Vec<(Instant, Later)>,
    scripts: Vec<Script>,
    outputs: VecDeque<Output>,
    log: Log,
    tokens: Tokens,
    checks: Checks,
    fuzzy: Fuzzy<ConnId>,
}

/// What the machine wants done, in this order.
///
/// Example: [the machine](crate::testing::machine::Machine)
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// Answer a unary call with this payload.
    Answer {
        /// Whose call.
        conn: ConnId,
        /// Which.
        call: CallId,
        /// The encoded payload.
        payload: Bytes,
    },
    /// End a unary call with this gRPC status.
    Fail {
        /// Whose call.
        conn: ConnId,
        /// Which.
        call: CallId,
        /// The gRPC status code.
        code: i32,
        /// The status message.
        message: String,
    },
    /// Send this payload on the connection's stream.
    Stream {
        /// Whose stream.
        conn: ConnId,
        /// The encoded payload.
        payload: Bytes,
    },
    /// End the stream; the transport stays open.
    EndStream {
        /// Whose stream.
        conn: ConnId,
        /// How.
        end: StreamEnd,
    },
    /// Close the transport.
    CloseTransport {
        /// Whose.
        conn: ConnId,
    },
    /// Dial this address, and say with [`handle_checked`](Machine::handle_checked) whether somebody
    /// accepts connections there. Only with [`Settings::tcp_checks`].
    Check {
        /// The host, as it was registered.
        ip: String,
        /// The port.
        port: i32,
    },
}

/// How a stream ends.
///
/// Example: [a registry](crate::testing)
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamEnd {
    /// With trailers that say OK, as a server gives up a client.
    Clean,
    /// With this gRPC status code and message.
    Status(i32, String),
    /// Reset without a status, as a server does that is told to stop.
    Reset,
}

/// What a fault put off.
#[derive(Debug)]
enum Later {
    Output(Output),
    SetUp(ConnId, Frame),
}

impl Machine {
    /// A server that starts now, knowing nothing. The seed decides the order of lists and the
    /// detection race.
    pub fn new(settings: Settings, seed: u64, now: Instant) -> Self {
        Self {
            next_sweep: now + settings.detection_scan,
            settings,
            start: now,
            up: now,
            seed,
            rng: StdRng::seed_from_u64(seed),
            wall_offset_ms: 0,
            last_conn: 0,
            last_request: 0,
            conns: BTreeMap::new(),
            services: BTreeMap::new(),
            later: Vec::new(),
            scripts: Vec::new(),
            outputs: VecDeque::new(),
            log: Log::default(),
            tokens: Tokens::default(),
            checks: Checks::default(),
            fuzzy: Fuzzy::default(),
        }
    }

    /// How it was told to behave.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What it knows and has seen.
    pub const fn view(&self) -> View<'_> {
        View::of(self)
    }

    /// The next thing to do, until there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is next of use.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let pushes = self
            .services
            .values()
            .filter_map(|s| s.task.as_ref())
            .map(|t| t.due);
        let conns = self.conns.values().flat_map(|c| {
            let acks = c.unacked.values().map(|unacked| unacked.deadline);
            acks.chain(c.detection.as_ref().map(|(_, until)| *until))
        });
        let later = self.later.iter().map(|(at, _)| *at);
        let sweep = self
            .conns
            .values()
            .any(|c| c.setup.is_some())
            .then_some(self.next_sweep);
        pushes
            .chain(conns)
            .chain(later)
            .chain(sweep)
            .chain(self.next_cleaning())
            .chain(self.checks.next())
            .chain(self.fuzzy.next())
            .min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.settle(now);
    }

    /// The server is killed and started again: connections, ephemeral instances and subscriptions
    /// are gone, persistent ones and operators' edits are not. Scripts and the log stay. Outputs
    /// that nobody took are gone too; close the sockets yourself.
    pub fn restart(&mut self, now: Instant) {
        self.up = now;
        self.conns.clear();
        self.later.clear();
        self.outputs.clear();
        self.checks.clear();
        self.fuzzy = Fuzzy::default();
        for state in self.services.values_mut() {
            state
                .publications
                .retain(|publisher, _| matches!(publisher, services::Publisher::Persistent(_)));
            state.subscribers.clear();
            state.task = None;
            state.data = None;
            state.exists = !state.publications.is_empty();
            state.listed = state.exists;
            for edited in state.edits.values_mut() {
                edited.absent_since = Some(now);
            }
        }
        let kept = self.services.values().flat_map(|s| s.publications.values());
        let kept: Vec<_> = kept
            .flatten()
            .map(|instance| (**instance).clone())
            .collect();
        self.check_from_now(&kept, now);
    }

    /// Sets the server's wall clock back (or forward) by this many milliseconds: the stamps of
    /// later lists, nothing else.
    pub const fn step_clock(&mut self, milliseconds: i64) {
        self.wall_offset_ms += milliseconds;
    }

    fn settle(&mut self, now: Instant) {
        while self.poll_timeout().is_some_and(|due| due <= now) {
            self.run_later(now);
            self.run_pushes(now);
            self.expire_acks(now);
            self.expire_detections(now);
            self.sweep(now);
            self.clean_services(now);
            self.run_checks(now);
            self.run_fuzzy(now);
        }
    }

    fn run_later(&mut self, now: Instant) {
        let mut due = Vec::new();
        let mut at = 0;
        while at < self.later.len() {
            if self.later[at].0 <= now {
                due.push(self.later.remove(at));
            } else {
                at += 1;
            }
        }
        due.sort_by_key(|(at, _)| *at); // stable: what was put off first goes first
        for (_, later) in due {
            match later {
                Later::SetUp(conn, frame) => self.set_up(conn, &frame, now),
                Later::Output(output) if self.is_sendable(&output) => {
                    self.outputs.push_back(output);
                }
                Later::Output(_) => {}
            }
        }
    }

    fn is_sendable(&self, output: &Output) -> bool {
        match output {
            Output::Stream { conn, .. } => self.conns.get(conn).is_some_and(|c| c.stream),
            Output::Answer { conn, .. } => self.conns.contains_key(conn),
            _ => true,
        }
    }

    fn output_at(&mut self, at: Instant, output: Output, now: Instant) {
        if at <= now {
            self.outputs.push_back(output);
        } else {
            self.later.push((at, Later::Output(output)));
        }
    }

    fn later_setup(&mut self, at: Instant, conn: ConnId, frame: Frame) {
        self.later.push((at, Later::SetUp(conn, frame)));
    }

    fn request_id(&mut self) -> String {
        self.last_request += 1;
        self.last_request.to_string()
    }

    fn wall_clock(&self, now: Instant) -> i64 {
        let elapsed: Duration = now.saturating_duration_since(self.start);
        let elapsed = i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX);
        self.settings
            .wall_clock_ms
            .saturating_add(elapsed)
            .saturating_add(self.wall_offset_ms)
    }
}

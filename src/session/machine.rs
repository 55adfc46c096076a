use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use rand::rngs::StdRng;

use super::{
    calls::{Calls, Purpose},
    config::{Config, Headers},
    dialer::{Dialer, Recommended},
    error::{
        CallFailure, ConnectError, DialError, EachServer, LinkError, OperationError, ServerFailure,
    },
    event::{
        CallId, Command, LinkId, Operation, Outcome, Output, SessionCounters, SessionState, Ticket,
    },
    items::Items,
    kind::Context,
    link::{Attempt, Link, Step},
    own::Own,
    pace::Pace,
    reads::ReadRequest,
    timers::{Timer, Timers},
};
use crate::{
    model::{Address, Interfaces, ServiceKey},
    wire::Payload,
};

/// The protocol machine of one client: what is wanted, what a server has confirmed, and what has
/// to be sent so that the two agree.
///
/// It does no I/O and reads no clock. Whoever drives it calls, with a `now` that never goes back:
///
/// 1. the `handle_*` functions with what happened;
/// 2. after each, [`poll_output`](Self::poll_output) until it is empty, and does what it says in
///    that order;
/// 3. [`handle_timeout`](Self::handle_timeout) no later than [`poll_timeout`](Self::poll_timeout).
///
/// Events of links and calls that the session has given up are ignored, so nothing needs to be
/// cancelled in time. With the same seed and the same calls it does the same.
#[derive(Debug)]
pub(crate) struct Session {
    pub(super) config: Config,
    pub(super) rng: StdRng,
    pub(super) timers: Timers<Timer>,
    pub(super) outputs: VecDeque<Output>,
    pub(super) dialer: Dialer,
    /// The connection in the making. Beside a current link only while the server has asked us to
    /// move.
    pub(super) attempt: Option<Attempt>,
    /// The only link that calls are made on and whose pushes count.
    pub(super) current: Option<Link>,
    /// The link before, kept open until the current one has everything.
    pub(super) draining: Option<LinkId>,
    pub(super) calls: Calls,
    /// Everything that is wanted of servers.
    pub(super) items: Items,
    /// This machine's, as far as somebody has to know them.
    pub(super) interfaces: Interfaces,
    pub(super) counters: SessionCounters,
    pub(super) life: Life,
    pub(super) said: Option<SessionState>,
    pub(super) unfinished: Vec<(Operation, ServiceKey)>,
    /// Whether the session moves because its server is no longer listed, and for no other reason.
    pub(super) unlisted: bool,
    last_id: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Open,
    Closing,
    Closed,
}

/// A connection that lived so long was a good one: the wait before a retry starts from the least.
const HELD: Duration = Duration::from_secs(3);

impl Session {
    /// A session that begins to connect at `now`, unless it is to stay offline.
    pub(crate) fn new(config: Config, rng: StdRng, now: Instant) -> Self {
        let mut session = Self {
            config,
            rng,
            timers: Timers::default(),
            outputs: VecDeque::new(),
            dialer: Dialer::default(),
            attempt: None,
            current: None,
            draining: None,
            calls: Calls::default(),
            items: Items::default(),
            interfaces: Interfaces::default(),
            counters: SessionCounters::default(),
            life: Life::Open,
            said: None,
            unfinished: Vec::new(),
            unlisted: false,
            last_id: 0,
        };
        if !session.config.offline {
            session.start_attempt(now);
        }
        session
    }

    /// Someone wants something.
    pub(crate) fn handle_command(&mut self, command: Command, now: Instant) {
        if self.life != Life::Open {
            return self.refuse(&command);
        }
        let (items, mut cx) = self.items(now);
        let cx = &mut cx;
        match command {
            Command::Subscribe(key) => items.subscribe(key, cx),
            Command::Refresh(key) => items.refresh(&key, cx),
            Command::Unsubscribe(key) => items.unsubscribe(&key, cx),
            Command::Register {
                ticket,
                key,
                instance,
            } => items.register(ticket, &key, *instance, cx),
            Command::RegisterBatch {
                ticket,
                key,
                instances,
            } => items.register_batch(ticket, &key, instances, cx),
            Command::Persist {
                ticket,
                key,
                instance,
                on,
            } => items.read(ticket, ReadRequest::Persist { key, instance, on }, cx),
            Command::Deregister { ticket, key } => items.deregister(ticket, &key, cx),
            Command::Query { ticket, key } => items.read(ticket, ReadRequest::Query(key), cx),
            Command::List {
                ticket,
                group,
                page,
                page_size,
            } => {
                let request = ReadRequest::List {
                    group,
                    page,
                    page_size,
                };
                items.read(ticket, request, cx);
            }
            Command::Watch(filter) => items.begin_watch(filter, cx),
            Command::Unwatch(filter) => items.end_watch(&filter, cx),
            Command::Cancel(ticket) => items.cancel(ticket, cx),
            Command::Close => self.close(now),
        }
        self.pump(now);
    }

    /// Other headers for naming requests, a new token for one. What was denied is tried again.
    pub(crate) fn handle_headers(&mut self, headers: HashMap<String, String>, now: Instant) {
        self.config.headers = Headers(headers);
        let (items, mut cx) = self.items(now);
        items.wake_waiting(&mut cx);
        self.pump(now);
    }

    /// A name of `Output::Resolve` resolved, to any number of addresses, or did not.
    pub(crate) fn handle_resolved(
        &mut self,
        link: LinkId,
        server: usize,
        result: Result<Vec<SocketAddr>, String>,
        now: Instant,
    ) {
        self.resolved(link, server, result, now);
    }

    /// The HTTP/2 handshake is done; `local` is our end of the connection, and `headers`, if this
    /// connection has its own, go with its naming requests once it is the one in use.
    pub(crate) fn handle_connected(
        &mut self,
        link: LinkId,
        local: IpAddr,
        headers: Option<HashMap<String, String>>,
        now: Instant,
    ) {
        self.connected(link, local, headers.map(Headers), now);
    }

    /// The login at the server of this connection failed. To be told right after
    /// [`handle_connected`](Self::handle_connected), with headers that carry no token, of one in the
    /// making: it counts if the server wants no login. One in use is given up.
    pub(crate) fn handle_login_failed(&mut self, link: LinkId, error: DialError, now: Instant) {
        self.login_failed(link, error, now);
    }

    /// The connection in use.
    pub(crate) fn current_link(&self) -> Option<LinkId> {
        self.current.as_ref().map(|link| link.id)
    }

    /// This machine's interfaces as they are now, for addresses that are to be found.
    pub(crate) fn handle_interfaces(&mut self, interfaces: Interfaces) {
        self.interfaces = interfaces;
    }

    /// Where an instance is registered on the present connection that leaves its address to be found;
    /// `None` without a connection.
    pub(crate) fn place(&self, address: &Address) -> Option<Result<Address, OperationError>> {
        let link = self.current.as_ref()?;
        Some(Own::new(link, &self.interfaces).place(address))
    }

    /// No connection came of a dial.
    pub(crate) fn handle_dial_failed(&mut self, link: LinkId, error: DialError, now: Instant) {
        self.dial_failed(link, error, now);
    }

    /// A unary call ended.
    pub(crate) fn handle_answer(
        &mut self,
        call: CallId,
        result: Result<Payload, CallFailure>,
        now: Instant,
    ) {
        self.call_ended(call, result, now);
    }

    /// A message came on the stream.
    pub(crate) fn handle_stream(&mut self, link: LinkId, payload: &Payload, now: Instant) {
        self.stream_message(link, payload, now);
    }

    /// The stream ended, in whatever way. A clean end is an end as well: the server has given us
    /// up and answers 301 from now on.
    pub(crate) fn handle_stream_ended(&mut self, link: LinkId, reason: String, now: Instant) {
        let registering = self.attempt_at(link, Step::Register).is_some();
        let error = if registering {
            LinkError::TurnedAway(reason)
        } else {
            LinkError::StreamEnded(reason)
        };
        self.link_ended(link, error, now);
    }

    /// Time passed. Afterwards `poll_timeout` lies after `now`.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.expired(now) {
            match timer {
                Timer::Redial if self.life == Life::Open => self.start_attempt(now),
                Timer::Redial => {}
                Timer::Step(link) => self.step_timed_out(link, now),
                Timer::ResolveGrace(link) => self.resolve_grace_over(link, now),
                Timer::Poll(link) => self.poll_registration(link, now),
                Timer::Liveness => self.liveness_due(now),
                Timer::Age => self.move_away(None, now),
                Timer::Handover => self.hang_up_draining(),
                Timer::Call(call) => self.call_ended(call, Err(CallFailure::Timeout), now),
                Timer::SafetyRead(key) => self.safety_read_due(&key, now),
                Timer::Item(id) => {
                    let (items, mut cx) = self.items(now);
                    items.due(&id, &mut cx);
                }
            }
        }
        self.pump(now);
    }

    /// What to do next, oldest first.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call `handle_timeout`, unless something happens before.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// What to report to someone who waited in vain for a connection.
    pub(crate) fn connect_error(&self) -> ConnectError {
        let waiting_for = self.attempt.as_ref().map(|attempt| {
            let server = attempt
                .candidate
                .map(|candidate| self.describe(candidate))
                .unwrap_or_default();
            match attempt.step {
                Step::Resolve => "the servers' names to resolve".to_owned(),
                Step::Dial => format!("{server} to take the connection"),
                Step::Check => format!("{server} to answer the server check"),
                Step::Register => format!("{server} to register the connection"),
            }
        });
        let last = self.dialer.last_error.clone();
        let mut others = self.dialer.each_server();
        let of_last = last.as_ref().and_then(|last| last.server.as_ref());
        others.0.retain(|other| other.server.as_ref() != of_last);
        ConnectError {
            attempts: self.dialer.attempts,
            last,
            others,
            waiting_for,
        }
    }

    /// What each server says, if one of those that were tried since the last connection refused the
    /// login and there is none.
    pub(crate) fn login_refusal(&self) -> Option<EachServer> {
        let refused = self.current.is_none() && self.dialer.is_login_refused();
        refused.then(|| self.dialer.each_server())
    }

    /// How quickly the server in use answers and tells; `None` without a connection.
    #[cfg_attr(
        not(feature = "status"),
        expect(dead_code, reason = "the status page shows it")
    )]
    pub(crate) fn pace(&self) -> Option<&Pace> {
        self.current.as_ref().map(|link| &link.pace)
    }

    /// What was seen and not passed on.
    pub(crate) const fn counters(&self) -> SessionCounters {
        self.counters
    }

    /// Sends what is queued, as far as the cap on calls allows, and looks whether that was all.
    pub(super) fn pump(&mut self, now: Instant) {
        while let Some(link) = self.current.as_ref().map(|link| link.id)
            && self.calls.items() < self.config.concurrent_calls
        {
            let (items, mut cx) = self.items(now);
            let Some((id, asked, request)) = items.take_turn(&mut cx) else {
                break;
            };
            let call = self.call(link, &request, Purpose::Item(id.clone(), asked), now);
            self.items.sent(&id, call);
        }
        if self.draining.is_some() && self.is_settled(now) {
            self.hang_up_draining();
        }
        if self.life == Life::Closing && (self.items.is_empty() || self.current.is_none()) {
            self.finish_close();
        }
    }

    /// The current connection is gone, and with it everything that the server knew of us.
    pub(super) fn lose(&mut self, error: LinkError, now: Instant) {
        let Some(link) = self.current.take() else {
            return;
        };
        self.counters.connections_lost += 1;
        self.forget_calls(link.id);
        self.timers.stop(&Timer::Liveness);
        self.timers.stop(&Timer::Age);
        self.outputs.push_back(Output::Hangup { link: link.id });
        if now.duration_since(link.since) >= HELD {
            self.dialer.held();
        }
        self.dialer.exclude(link.addr);
        self.dialer.last_error = Some(ServerFailure {
            server: Some(link.server),
            error,
        });
        let (items, mut cx) = self.items(now);
        items.forget_confirmations(&mut cx);
        if self.life == Life::Open {
            self.say_connecting();
            if self.attempt.is_none() && !self.timers.is_running(&Timer::Redial) {
                let wait = self.dialer.come_back(&self.config, &mut self.rng);
                self.timers.set(Timer::Redial, now + wait);
            }
        }
        self.pump(now);
    }

    /// The server, or the age of the connection, asks us to move, to `recommended` if it says so.
    pub(super) fn move_away(&mut self, recommended: Option<Recommended>, now: Instant) {
        self.unlisted = false;
        if self.life != Life::Open || self.attempt.is_some() {
            return; // on the way already
        }
        let Some(link) = &self.current else { return };
        self.dialer.exclude(link.addr);
        self.dialer.recommend(recommended);
        if !self.timers.is_running(&Timer::Redial) {
            if now.duration_since(link.since) >= HELD {
                self.dialer.held();
            }
            // Many clients are told at once; they shall not arrive at once, nor again and again.
            let wait = self.dialer.come_back(&self.config, &mut self.rng);
            self.timers.set(Timer::Redial, now + wait);
        }
    }

    fn link_ended(&mut self, link: LinkId, error: LinkError, now: Instant) {
        if self.is_current(link) {
            self.lose(error, now);
        } else if self
            .attempt
            .as_ref()
            .is_some_and(|attempt| attempt.id == link)
        {
            self.fail_attempt(error, now);
        } else if self.draining == Some(link) {
            self.hang_up_draining();
        }
    }

    pub(super) fn hang_up_draining(&mut self) {
        if let Some(link) = self.draining.take() {
            self.timers.stop(&Timer::Handover);
            self.outputs.push_back(Output::Hangup { link });
        }
    }

    /// A new connection: nothing is confirmed there, everything is asked for at once.
    pub(super) fn redo(&mut self, now: Instant) {
        let (items, mut cx) = self.items(now);
        items.forget_confirmations(&mut cx);
        items.ask_for_everything(&mut cx);
        self.pump(now);
    }

    /// Whether the current link has all that is wanted, apart from what it refuses for good.
    fn is_settled(&self, now: Instant) -> bool {
        self.current.is_some() && self.calls.items() == 0 && self.items.are_settled(now)
    }

    /// The items, and what they work with.
    pub(super) fn items(&mut self, now: Instant) -> (&mut Items, Context<'_>) {
        let link = self.current.as_ref();
        let context = Context {
            now,
            config: &self.config,
            link: link.map(|link| link.id),
            fuzzy_watch: link.is_some_and(|link| link.fuzzy_watch),
            adds_up: link.is_some_and(|link| !link.negotiates),
            own: link.map(|link| Own::new(link, &self.interfaces)),
            closing: self.life == Life::Closing,
            failures: 0,
            rng: &mut self.rng,
            timers: &mut self.timers,
            counters: &mut self.counters,
            outputs: &mut self.outputs,
            unfinished: &mut self.unfinished,
        };
        (&mut self.items, context)
    }

    pub(super) fn say(&mut self, state: SessionState) {
        if self.said.as_ref() != Some(&state) {
            self.said = Some(state.clone());
            self.outputs.push_back(Output::State(state));
        }
    }

    pub(super) fn done(&mut self, ticket: Ticket, outcome: Result<Outcome, OperationError>) {
        self.outputs.push_back(Output::Done { ticket, outcome });
    }

    pub(super) fn is_current(&self, link: LinkId) -> bool {
        self.current
            .as_ref()
            .is_some_and(|current| current.id == link)
    }

    pub(super) const fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}

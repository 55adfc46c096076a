//! The one task of a client: pumps the session's machine and writes the directory.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};

use rand::rngs::StdRng;
use tokio::{
    runtime,
    sync::{mpsc, oneshot, watch},
    time::sleep_until,
};

use super::{
    CloseError, ConnectionState, Handle, RequestError,
    counters::Teller,
    hints::Hints,
    lease::Subscriptions,
    links::{Event, Links},
    operations::{Operation, Reply},
};
use crate::{
    directory::{self, Options, Writer},
    model::{Listing, ServiceKey},
    session::{self, Command, Config, Outcome, Output, Session, Ticket},
};

/// How long the farewell takes at most when nobody waits for it.
const FAREWELL: Duration = Duration::from_secs(3);
/// What a deadline past the end of the clock means.
const A_YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

pub(super) struct Driver {
    session: Session,
    links: Links,
    operations: mpsc::UnboundedReceiver<Operation>,
    subscriptions: Arc<Subscriptions>,
    state: watch::Sender<ConnectionState>,
    namespace: Arc<str>,
    services: HashMap<ServiceKey, Service>,
    /// Services whose writer wants to be woken by time, which is rare.
    timed: HashSet<ServiceKey>,
    replies: HashMap<Ticket, Reply>,
    /// Services that this client registered an instance in, or is about to.
    registered: HashSet<ServiceKey>,
    /// Tickets for what nobody waits for, counted from the other end.
    spare_ticket: u64,
    closing: Option<Closing>,
    /// When the last byte of the message being handled left the socket.
    received: Option<Instant>,
    hints: Hints,
    teller: Teller,
}

/// A subscribed service.
struct Service {
    writer: Writer,
    /// Who wants to know if the server refuses the subscription for good.
    waiting: Vec<oneshot::Sender<RequestError>>,
    /// Whether the server refused it for good on this connection.
    refused: bool,
}

struct Closing {
    until: Instant,
    replies: Vec<oneshot::Sender<Result<(), CloseError>>>,
}

impl Driver {
    /// Starts the task on `runtime` and returns the handle that it serves.
    pub(super) fn start(
        runtime: &runtime::Handle,
        config: Config,
        rng: StdRng,
        max_message_size: usize,
        directory: Options,
        namespace: Arc<str>,
        patience: Duration,
    ) -> Handle {
        let (sender, operations) = mpsc::unbounded_channel();
        let first = ConnectionState::Connecting {
            attempt: 1,
            last_error: None,
        };
        let (state, watch) = watch::channel(first);
        let subscriptions = Arc::new(Subscriptions::new(directory));
        let teller = Teller::new(&namespace);
        let tally = teller.tally().clone();
        let driver = Self {
            session: Session::new(config, rng, now()),
            links: Links::new(max_message_size),
            operations,
            subscriptions: subscriptions.clone(),
            state,
            namespace: namespace.clone(),
            services: HashMap::new(),
            timed: HashSet::new(),
            replies: HashMap::new(),
            registered: HashSet::new(),
            spare_ticket: u64::MAX,
            closing: None,
            received: None,
            hints: Hints::default(),
            teller,
        };
        // The task ends by itself when every handle is gone, or at `close`.
        drop(runtime.spawn(driver.run()));
        Handle {
            operations: sender,
            subscriptions,
            state: watch,
            namespace,
            tickets: AtomicU64::new(0),
            tally,
            patience,
        }
    }

    async fn run(mut self) {
        loop {
            self.pump();
            let connected = self.state.borrow().is_connected();
            self.teller.tell(&self.session.counters(), connected);
            if self.is_over() {
                break;
            }
            let wake = self.next_timeout();
            let idle = wake.is_none();
            let sleep = sleep_until(wake.unwrap_or_else(now).into());
            let open = self.closing.is_none();
            tokio::select! {
                event = self.links.next() => self.handle_event(event),
                operation = self.operations.recv(), if open => match operation {
                    Some(operation) => self.handle_operation(operation),
                    None => self.begin_close(FAREWELL, None),
                },
                () = sleep, if !idle => self.handle_timeout(),
            }
        }
        self.end();
    }

    fn is_over(&self) -> bool {
        let overdue = self
            .closing
            .as_ref()
            .is_some_and(|closing| closing.until <= now());
        overdue || matches!(&*self.state.borrow(), ConnectionState::Closed)
    }

    fn next_timeout(&self) -> Option<Instant> {
        let timed = self
            .timed
            .iter()
            .filter_map(|key| self.services.get(key)?.writer.poll_timeout());
        let closing = self.closing.as_ref().map(|closing| closing.until);
        timed
            .chain(self.session.poll_timeout())
            .chain(closing)
            .min()
    }

    fn handle_timeout(&mut self) {
        let now = now();
        self.session.handle_timeout(now);
        for key in self.timed.clone() {
            let Some(service) = self.services.get_mut(&key) else {
                self.timed.remove(&key);
                continue;
            };
            if service.writer.poll_timeout().is_some_and(|at| at <= now) {
                service.writer.handle_timeout(now);
            }
            self.note_timer(&key);
        }
    }

    fn handle_event(&mut self, event: Event) {
        let now = now();
        match event {
            Event::Resolved {
                link,
                server,
                result,
            } => {
                self.session.handle_resolved(link, server, result, now);
            }
            Event::Connected { link, local } => self.session.handle_connected(link, local, now),
            Event::DialFailed { link, error } => self.session.handle_dial_failed(link, error, now),
            Event::Answered { call, result, .. } => {
                self.session.handle_answer(call, result, now);
            }
            Event::Message {
                link,
                payload,
                received,
            } => {
                self.received = received;
                self.session.handle_stream(link, &payload, now);
                self.pump();
                self.received = None;
            }
            Event::StreamEnded { link, reason } => {
                self.session.handle_stream_ended(link, reason, now);
            }
        }
    }

    fn handle_operation(&mut self, operation: Operation) {
        let now = now();
        let command = match operation {
            Operation::Subscribe { key, mut writer } => {
                if self.state.borrow().is_connected() {
                    writer.handle_connected(now);
                }
                self.services.insert(
                    key.clone(),
                    Service {
                        writer,
                        waiting: Vec::new(),
                        refused: false,
                    },
                );
                Command::Subscribe(key)
            }
            Operation::Release(key) => {
                if !self.subscriptions.release(&key) {
                    return; // somebody holds it again
                }
                self.services.remove(&key);
                self.timed.remove(&key);
                Command::Unsubscribe(key)
            }
            Operation::Await { key, reply } => {
                let Some(service) = self.services.get_mut(&key) else {
                    return;
                };
                service.waiting.retain(|waiting| !waiting.is_closed());
                service.waiting.push(reply);
                if !std::mem::take(&mut service.refused) {
                    return;
                }
                // Somebody asks again: so do we.
                self.session
                    .handle_command(Command::Unsubscribe(key.clone()), now);
                Command::Subscribe(key)
            }
            Operation::Diagnose(reply) => {
                let _ = reply.send(self.session.connect_error().to_string());
                return;
            }
            Operation::Register {
                ticket,
                key,
                instance,
                reply,
            } => {
                self.replies.insert(ticket, reply);
                self.registered.insert(key.clone());
                Command::Register {
                    ticket,
                    key,
                    instance,
                }
            }
            Operation::Deregister { ticket, key, reply } => {
                self.replies.insert(ticket, reply);
                self.registered.remove(&key);
                Command::Deregister { ticket, key }
            }
            Operation::Query { ticket, key, reply } => {
                self.replies.insert(ticket, reply);
                Command::Query { ticket, key }
            }
            Operation::List {
                ticket,
                group,
                page,
                page_size,
                reply,
            } => {
                self.replies.insert(ticket, reply);
                Command::List {
                    ticket,
                    group,
                    page,
                    page_size,
                }
            }
            Operation::Cancel(ticket) => {
                self.replies.remove(&ticket);
                Command::Cancel(ticket)
            }
            Operation::Withdraw => {
                for key in std::mem::take(&mut self.registered) {
                    let ticket = self.spare_ticket();
                    self.session
                        .handle_command(Command::Deregister { ticket, key }, now);
                }
                return;
            }
            Operation::Close { deadline, reply } => return self.begin_close(deadline, Some(reply)),
        };
        self.session.handle_command(command, now);
    }

    fn begin_close(
        &mut self,
        deadline: Duration,
        reply: Option<oneshot::Sender<Result<(), CloseError>>>,
    ) {
        let now = now();
        self.closing = Some(Closing {
            until: now.checked_add(deadline).unwrap_or(now + A_YEAR),
            replies: Vec::from_iter(reply),
        });
        self.session.handle_command(Command::Close, now);
    }

    /// Carries out everything the session wants.
    fn pump(&mut self) {
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Resolve {
                    link,
                    server,
                    name,
                    port,
                } => {
                    self.links.resolve(link, server, name, port);
                }
                Output::Dial {
                    link,
                    addr,
                    timeout,
                    ..
                } => self.links.dial(link, addr, timeout),
                Output::OpenStream { link, payload } => self.links.open_stream(link, payload),
                Output::StreamSend { link, payload } => self.links.send(link, payload),
                Output::Call {
                    link,
                    call,
                    payload,
                    timeout,
                } => {
                    self.links.call(link, call, payload, timeout);
                }
                Output::Hangup { link } => self.links.hang_up(link),
                Output::Listing {
                    key,
                    listing,
                    origin,
                } => self.apply(&key, listing, origin),
                Output::Undecodable { key, reason } => self.undecodable(key.as_ref(), &reason),
                Output::Failed {
                    key,
                    operation,
                    error,
                    retries,
                } => {
                    self.failed(&key, operation, error, retries);
                }
                Output::Done { ticket, outcome } => self.done(ticket, outcome),
                Output::State(state) => self.set_state(state),
            }
        }
    }

    fn apply(&mut self, key: &ServiceKey, listing: Listing, origin: session::Origin) {
        let origin = match origin {
            session::Origin::Push => directory::Origin::Push,
            session::Origin::FirstAnswer => directory::Origin::FirstAnswer,
            session::Origin::Read => directory::Origin::Read,
        };
        if listing.instances().is_empty()
            && listing.rejected().is_empty()
            && origin != directory::Origin::Push
        {
            self.ask_hint(key);
        }
        let Some(service) = self.services.get_mut(key) else {
            return;
        };
        let received = self.received.unwrap_or_else(now);
        service.writer.apply(listing, origin, received);
        service.refused = false;
        service.waiting.clear(); // answered: whoever waits sees it in the subscription
        self.note_timer(key);
    }

    fn undecodable(&mut self, key: Option<&ServiceKey>, reason: &str) {
        let now = now();
        match key {
            Some(key) => {
                if let Some(service) = self.services.get_mut(key) {
                    service.writer.handle_undecodable(reason, now);
                }
            }
            None => tracing::warn!(
                namespace = &*self.namespace,
                cause = reason,
                "a message of the registry cannot be read"
            ),
        }
    }

    fn failed(
        &mut self,
        key: &ServiceKey,
        operation: session::Operation,
        error: session::OperationError,
        retries: bool,
    ) {
        let (namespace, group, service) = (&**key.namespace(), &**key.group(), &**key.name());
        tracing::debug!(namespace, group, service, ?operation, cause = %error, retries, "request failed");
        self.hint_refusal(key, &error);
        if retries || operation != session::Operation::Subscribe {
            return;
        }
        tracing::warn!(namespace, group, service, cause = %error, "the registry refuses the subscription");
        if let Some(service) = self.services.get_mut(key) {
            service.refused = true;
            for waiting in service.waiting.drain(..) {
                let _ = waiting.send(error.clone().into());
            }
        }
    }

    fn done(&mut self, ticket: Ticket, outcome: Result<Outcome, session::OperationError>) {
        if self.hints.is_ours(ticket) {
            return self.hint(ticket, outcome.ok());
        }
        if let Some(reply) = self.replies.remove(&ticket) {
            let _ = reply.send(outcome.map_err(RequestError::from));
        }
    }

    /// Nothing is listed of a service: what its neighbours suggest.
    fn ask_hint(&mut self, key: &ServiceKey) {
        let ticket = self.spare_ticket();
        if let Some(command) = self.hints.ask(key, ticket) {
            self.session.handle_command(command, now());
        }
    }

    fn hint(&mut self, ticket: Ticket, outcome: Option<Outcome>) {
        let next = self.spare_ticket();
        let found = self.hints.answered(ticket, outcome, next);
        for (key, hint) in found.hints {
            if let Some(subscription) = self.subscriptions.peek(&key) {
                subscription.set_hint_while_empty(&hint);
            }
        }
        if let Some(command) = found.again {
            self.session.handle_command(command, now());
        }
    }

    /// Whoever waits for instances shall hear that the registry denies them.
    fn hint_refusal(&self, key: &ServiceKey, error: &session::OperationError) {
        if error.is_denied()
            && let Some(subscription) = self.subscriptions.peek(key)
        {
            subscription.set_hint(&format!("the registry refuses to list it: {error}"));
        }
    }

    const fn spare_ticket(&mut self) -> Ticket {
        self.spare_ticket -= 1;
        Ticket(self.spare_ticket)
    }

    fn set_state(&mut self, state: session::State) {
        let now = now();
        let was_connected = self.state.borrow().is_connected();
        let state = match state {
            session::State::Connecting {
                attempt,
                last_error,
            } => ConnectionState::Connecting {
                attempt,
                last_error: last_error.map(|error| error.to_string().into()),
            },
            session::State::Connected { server, .. } => ConnectionState::Connected { server },
            session::State::Closed => ConnectionState::Closed,
        };
        if state.is_connected() {
            tracing::info!(namespace = &*self.namespace, %state, "registry connection");
            self.services
                .values_mut()
                .for_each(|s| s.writer.handle_connected(now));
        } else if was_connected && self.closing.is_none() {
            tracing::warn!(namespace = &*self.namespace, cause = %state, "registry connection lost");
            self.services
                .values_mut()
                .for_each(|s| s.writer.handle_disconnected(now));
        }
        self.state.send_replace(state);
    }

    fn note_timer(&mut self, key: &ServiceKey) {
        let timer = self
            .services
            .get(key)
            .and_then(|service| service.writer.poll_timeout());
        match timer {
            Some(_) => self.timed.insert(key.clone()),
            None => self.timed.remove(key),
        };
    }

    /// The farewell is over, done or not: nobody is left waiting.
    fn end(mut self) {
        let unfinished = self.session.unfinished().into_iter();
        let still_registered: Vec<ServiceKey> = unfinished
            .filter(|(operation, _)| *operation == session::Operation::Deregister)
            .map(|(_, key)| key)
            .collect();
        for (_, service) in self.services.drain() {
            service.writer.close();
        }
        self.state.send_replace(ConnectionState::Closed);
        for (_, reply) in self.replies.drain() {
            let _ = reply.send(Err(RequestError::Closed));
        }
        let result = match still_registered {
            none if none.is_empty() => Ok(()),
            some => Err(CloseError::new(some)),
        };
        for reply in self.closing.into_iter().flat_map(|closing| closing.replies) {
            let _ = reply.send(result.clone());
        }
    }
}

/// The driver's clock: tokio's, which tests can pause.
fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "the one clock of the driver")]
    tokio::time::Instant::now().into_std()
}

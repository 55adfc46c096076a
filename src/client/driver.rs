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
    CloseError, ConnectionState, ENDLESS, Handle, RequestError,
    copies::Copies,
    lease::Subscriptions,
    links::{Event, Links},
    operations::{Operation, Reply},
};
use crate::{
    directory::Options,
    model::{Listing, ServiceKey},
    session::{self, Command, Config, Outcome, Output, Session, Ticket},
};

/// How long the farewell takes at most when nobody waits for it.
const FAREWELL: Duration = Duration::from_secs(3);

/// A registry that misbehaves does so again and again: at most one warning a cause.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// What is warned of.
#[derive(Clone, Copy)]
enum Cause {
    Unreadable,
    Lost,
}

pub(super) struct Driver {
    session: Session,
    links: Links,
    operations: mpsc::UnboundedReceiver<Operation>,
    subscriptions: Arc<Subscriptions>,
    state: watch::Sender<ConnectionState>,
    namespace: Arc<str>,
    copies: Copies,
    services: HashMap<ServiceKey, Service>,
    replies: HashMap<Ticket, Reply>,
    /// Services that this client registered an instance in, or is about to.
    registered: HashSet<ServiceKey>,
    /// Tickets for what nobody waits for, counted from the other end.
    spare_ticket: u64,
    closing: Option<Closing>,
    /// When the last warning of each cause was given.
    warned: [Option<Instant>; 2],
    /// When the last byte of the message being handled left the socket.
    received: Option<Instant>,
}

/// Who waits for a subscribed service.
#[derive(Default)]
struct Service {
    /// Who wants to know if the server refuses the subscription for good.
    waiting: Vec<oneshot::Sender<RequestError>>,
    /// Whether the server refused it; asked again only when somebody asks us.
    refused: bool,
    /// What the last request met, until a list comes.
    trouble: Option<String>,
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
        let driver = Self {
            session: Session::new(config, rng, now()),
            links: Links::new(max_message_size),
            operations,
            subscriptions: subscriptions.clone(),
            state,
            namespace: namespace.clone(),
            copies: Copies::default(),
            services: HashMap::new(),
            replies: HashMap::new(),
            registered: HashSet::new(),
            spare_ticket: u64::MAX,
            closing: None,
            warned: [None; 2],
            received: None,
        };
        // The task ends by itself when every handle is gone, or at `close`.
        drop(runtime.spawn(driver.run()));
        Handle {
            operations: sender,
            subscriptions,
            state: watch,
            namespace,
            tickets: AtomicU64::new(0),
            patience,
        }
    }

    async fn run(mut self) {
        loop {
            self.pump();
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
        let closing = self.closing.as_ref().map(|closing| closing.until);
        [
            self.copies.poll_timeout(),
            self.session.poll_timeout(),
            closing,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn handle_timeout(&mut self) {
        let now = now();
        self.session.handle_timeout(now);
        self.copies.handle_timeout(now);
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
            Operation::Subscribe { key, writer } => {
                self.copies.open(key.clone(), writer, now);
                self.services.insert(key.clone(), Service::default());
                Command::Subscribe(key)
            }
            Operation::Release(key, slot) => {
                if !self.subscriptions.release(&key, slot) {
                    return; // somebody holds it again
                }
                self.services.remove(&key);
                self.copies.close(&key);
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
            Operation::Diagnose { key, reply } => {
                let _ = reply.send(match key {
                    Some(key) => self.services.get(&key).and_then(|s| s.trouble.clone()),
                    None => Some(self.session.connect_error().to_string()),
                });
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
                    let ticket = Ticket(self.spare_ticket);
                    self.spare_ticket -= 1;
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
            until: now + deadline.min(ENDLESS),
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
        let Some(service) = self.services.get_mut(key) else {
            return;
        };
        let received = self.received.unwrap_or_else(now);
        self.copies.apply(key, listing, origin, received);
        service.refused = false;
        service.trouble = None;
        service.waiting.clear(); // answered: whoever waits sees it in the subscription
    }

    fn failed(
        &mut self,
        key: &ServiceKey,
        operation: session::Operation,
        error: session::OperationError,
        retries: bool,
    ) {
        tracing::debug!(service = %key, ?operation, %error, retries, "request failed");
        if operation != session::Operation::Subscribe {
            return;
        }
        let Some(service) = self.services.get_mut(key) else {
            return;
        };
        service.trouble = Some(error.to_string());
        // What is denied is asked for again, seldom; whoever waits need not.
        if !retries || error.is_denied() {
            if !service.refused {
                tracing::warn!(service = %key, %error, "the registry refuses the subscription");
            }
            service.refused = true;
            for waiting in service.waiting.drain(..) {
                let _ = waiting.send(error.clone().into());
            }
        }
    }

    fn done(&mut self, ticket: Ticket, outcome: Result<Outcome, session::OperationError>) {
        if let Some(reply) = self.replies.remove(&ticket) {
            let _ = reply.send(outcome.map_err(RequestError::from));
        }
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
            tracing::info!(namespace = %self.namespace, %state, "registry connection");
            self.copies.handle_connected(now);
        } else if was_connected && self.closing.is_none() {
            if self.may_warn(Cause::Lost, now) {
                tracing::warn!(namespace = %self.namespace, %state, "registry connection lost");
            } else {
                tracing::info!(namespace = %self.namespace, %state, "registry connection lost");
            }
            self.copies.handle_disconnected(now);
        }
        self.state.send_replace(state);
    }

    fn undecodable(&mut self, key: Option<&ServiceKey>, reason: &str) {
        let now = now();
        match key {
            Some(key) => self.copies.undecodable(key, reason, now),
            None if self.may_warn(Cause::Unreadable, now) => {
                tracing::warn!(reason, "a message of the registry cannot be read");
            }
            None => {}
        }
    }

    fn may_warn(&mut self, cause: Cause, now: Instant) -> bool {
        let last = &mut self.warned[cause as usize];
        let may = last.is_none_or(|last| now.saturating_duration_since(last) >= WARN_EVERY);
        if may {
            *last = Some(now);
        }
        may
    }

    /// The farewell is over, done or not: nobody is left waiting.
    fn end(mut self) {
        let unfinished = self.session.unfinished().into_iter();
        let still_registered: Vec<ServiceKey> = unfinished
            .filter(|(operation, _)| *operation == session::Operation::Deregister)
            .map(|(_, key)| key)
            .collect();
        // First, so that whoever wakes because a subscription ended finds out why.
        self.state.send_replace(ConnectionState::Closed);
        self.copies.close_all();
        self.services.clear();
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

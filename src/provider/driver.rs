//! The one task of a provider: it does what the sequence says, and tells it what came of it.

use std::{sync::Arc, time::Instant};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{sleep, sleep_until},
};

use super::{
    clock,
    error::OnlineError,
    inner::{Command, Inner, Status},
    listening::Watch,
    names::Claim,
    registration::Listed,
    sequence::{Action, Sequence},
    signal::Signals,
    stage::Stage,
    work::{self, Done, Work, working},
};
use crate::{
    client::{RequestError, Witness},
    logs,
};

/// How long an address may not answer before that is told: who listens may be about to.
const CHECK_PATIENCE: std::time::Duration = std::time::Duration::from_secs(3);
/// Between two lines of the log about the same trouble.
const WARN_EVERY: std::time::Duration = std::time::Duration::from_secs(60);

/// Between two looks at what callers have heard: an error of the measure that is less than its spread.
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(50);

pub(super) struct Driver {
    inner: Arc<Inner>,
    sequence: Sequence,
    commands: mpsc::UnboundedReceiver<Command>,
    status: watch::Sender<Status>,
    work: Option<Work>,
    /// Who waits for what is wanted to be registered.
    updates: Vec<oneshot::Sender<Result<(), RequestError>>>,
    claim: Option<Claim>,
    checking: Option<Instant>,
    warned: Option<Instant>,
    /// Sees what callers hear of us, if that is wanted.
    witness: Option<Witness>,
    /// Sees whether anybody listens while it is online.
    listens: Option<Watch>,
    signals: Signals,
    /// A registration is under way.
    registering: bool,
    /// One was confirmed, or went unanswered: a registry that was reached may list us.
    may_be_listed: bool,
    /// Nobody holds a handle any more.
    alone: bool,
}

impl Driver {
    pub(super) fn new(
        inner: Arc<Inner>,
        sequence: Sequence,
        commands: mpsc::UnboundedReceiver<Command>,
        status: watch::Sender<Status>,
    ) -> Self {
        Self {
            inner,
            sequence,
            commands,
            status,
            work: None,
            updates: Vec::new(),
            claim: None,
            checking: None,
            warned: None,
            witness: None,
            listens: None,
            signals: Signals::default(),
            registering: false,
            may_be_listed: false,
            alone: false,
        }
    }

    /// Lives until the provider is over and everything is told.
    pub(super) async fn run(mut self) {
        loop {
            self.act();
            self.tell();
            if self.stage() == Stage::Over {
                break;
            }
            let (leaving, at) = (self.sequence.is_leaving(), self.sequence.poll_timeout());
            if leaving {
                self.listens = None;
                self.signals.watch();
            }
            let looks_next = self.listens.as_ref().map(Watch::next);
            let traffic = self.inner.shared.traffic.clone();
            let looks = self.witness.is_some() && self.stage() == Stage::Lingering;
            tokio::select! {
                biased;
                command = self.commands.recv(), if !self.alone => self.obey(command),
                () = self.signals.another(), if leaving => self.signal("another signal"),
                done = working(&mut self.work) => {
                    self.work = None;
                    self.done(done);
                }
                () = traffic.idle(), if leaving => {
                    if traffic.calls().in_flight == 0 {
                        self.sequence.handle_idle(clock::now());
                    }
                }
                () = sleep(LOOK_EVERY), if looks => self.look(),
                () = until(looks_next) => self.look_for_listeners(),
                () = until(at) => self.sequence.handle_timeout(clock::now(), traffic.calls()),
            }
        }
        self.report();
        // What is asked from here on finds nobody.
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            if let Command::Update(reply) = command {
                let _ = reply.send(Err(RequestError::NotRegistered));
            }
        }
        // A connection that lives on may still bring calls. None of them ends later than those of before.
        let traffic = self.inner.shared.traffic.clone();
        let most = self.sequence.cut_at();
        drop(self);
        until(most).await;
        traffic.cut();
    }

    fn stage(&self) -> Stage {
        Stage::of(self.sequence.state())
    }

    fn obey(&mut self, command: Option<Command>) {
        let now = clock::now();
        match command {
            Some(Command::Online) => self.sequence.go_online(now),
            // Two servers of one provider hear the same signal, and a hook may be asked besides.
            Some(Command::Offline) if self.sequence.is_leaving() => {}
            Some(Command::Offline) => self.signal("told to go offline"),
            Some(Command::Hasten) if self.sequence.is_leaving() => self.signal("hastened"),
            Some(Command::Hasten) => {}
            Some(Command::Stopped) => self.stopped("who served with it has ended"),
            Some(Command::Update(reply)) => self.update(reply),
            // Nobody can want it online any more, or see how it leaves.
            None => {
                self.alone = true;
                self.stopped("its last handle was dropped");
            }
        }
    }

    fn stopped(&mut self, why: &str) {
        if !self.sequence.is_leaving() && self.claim.is_some() {
            tracing::info!(target: logs::PROVIDER, cause = why, stage = self.stage().name(), "provider goes offline, without lingering");
        }
        let calls = self.inner.shared.traffic.calls();
        self.sequence.handle_stopped(clock::now(), calls);
    }

    fn look_for_listeners(&mut self) {
        let now = clock::now();
        if self
            .listens
            .as_mut()
            .is_some_and(|seen| seen.has_ended(now))
        {
            let services = self.inner.services();
            tracing::warn!(target: logs::PROVIDER, service = %services, instances = ?self.inner.shared.names.addresses(), "nobody listens any more where callers were told to call: the server ended, and did not tell; the provider leaves");
            self.stopped("nobody listens any more");
        }
    }

    fn signal(&mut self, why: &str) {
        tracing::info!(target: logs::PROVIDER, cause = why, stage = self.stage().name(), "provider goes offline");
        let calls = self.inner.shared.traffic.calls();
        self.sequence.handle_signal(clock::now(), calls);
    }

    /// What is wanted has changed, and is registered if it was before. One request is under way at a
    /// time, and what is wanted meanwhile goes with the next, however often it changes.
    fn update(&mut self, reply: oneshot::Sender<Result<(), RequestError>>) {
        match self.stage() {
            Stage::Idle | Stage::Starting => drop(reply.send(Ok(()))), // comes with the registration
            Stage::Online => {
                self.updates.retain(|waiting| !waiting.is_closed());
                self.updates.push(reply);
                if self.work.is_none() {
                    self.register_changes();
                }
            }
            _ => drop(reply.send(Err(RequestError::NotRegistered))),
        }
    }

    fn register_changes(&mut self) {
        self.work = Some(work::update(self.inner.clone()));
    }

    /// This version is registered: who waits is told, unless something else is wanted by now.
    fn registered(&mut self, version: Result<u64, RequestError>) {
        if self.stage() != Stage::Online {
            return;
        }
        match version {
            Ok(version) if self.inner.wanted.has_changed(version) => self.register_changes(),
            result => {
                for waiting in self.updates.drain(..) {
                    let _ = waiting.send(result.clone().map(|_| ()));
                }
            }
        }
    }

    /// Does what is to be done. One request is under way at a time; the next drops it.
    fn act(&mut self) {
        while let Some(action) = self.sequence.poll_action() {
            let inner = self.inner.clone();
            match action {
                Action::AskReady => {
                    self.work = Some(work::ask(inner));
                }
                Action::CheckAddress => {
                    self.work = Some(work::check(inner));
                }
                Action::Register => self.register(),
                Action::NotReady => self.look_out(),
                Action::Deregister => {
                    // Another provider has these services of this client: what is registered is its.
                    let ours = self.claim.is_some();
                    let listed = match self.sequence.was_online() {
                        true => Listed::Confirmed,
                        false if self.may_be_listed || self.registering => Listed::Perhaps,
                        false => Listed::Refused,
                    };
                    self.updates.clear();
                    self.work = Some(work::deregister(inner, ours.then_some(listed)));
                }
                Action::Mark => inner.shared.traffic.mark(),
                Action::StopListening => {
                    inner.shared.traffic.stop();
                    // The last call may have ended just before, and told nobody.
                    if inner.shared.traffic.calls().in_flight == 0 {
                        self.sequence.handle_idle(clock::now());
                    }
                }
                Action::Cut => inner.shared.traffic.cut(),
                Action::Exit => self.claim = None,
            }
        }
    }

    /// It leaves: when callers have heard of that can be seen if they know of it now.
    fn look_out(&mut self) {
        let ours = self.inner.shared.names.addresses();
        self.witness = self.witness.take().filter(|seen| seen.lists_any(ours));
        if self.witness.is_some() {
            self.sequence.await_news();
        }
    }

    fn look(&mut self) {
        let ours = self.inner.shared.names.addresses();
        if self
            .witness
            .as_ref()
            .is_some_and(|seen| !seen.lists_any(ours))
        {
            self.witness = None;
            let calls = self.inner.shared.traffic.calls();
            self.sequence.handle_heard(clock::now(), calls);
        }
    }

    fn register(&mut self) {
        let inner = self.inner.clone();
        if self.claim.is_none() {
            match inner.shared.names.claim(inner.nacos.id()) {
                Ok(claim) => self.claim = Some(claim),
                Err((service, address)) => {
                    let taken = OnlineError::AlreadyProvided { service, address };
                    self.work = Some(work::refused(taken));
                    return;
                }
            }
        }
        self.registering = true;
        self.work = Some(work::register(inner));
    }

    fn done(&mut self, done: Done) {
        let now = clock::now();
        match done {
            Done::Ready(answer) => {
                self.inner.note_waiting(answer.as_ref().err().cloned());
                if let Err(why) = &answer {
                    self.trouble(now, why);
                }
                self.sequence.handle_ready(answer.is_ok(), now);
            }
            Done::Checked(answer) => {
                let since = *self.checking.get_or_insert(now);
                let why = answer.as_ref().err().map(ToString::to_string);
                self.inner.note_waiting(why);
                match &answer {
                    Ok(()) => self.checking = None,
                    Err(error) if now.saturating_duration_since(since) >= CHECK_PATIENCE => {
                        self.fail(now, error.clone());
                    }
                    Err(_) => {}
                }
                self.sequence.handle_checked(answer.is_ok(), now);
            }
            Done::Registered(answer) => {
                self.registering = false;
                // Of several services the first may have been taken.
                let refused = answer.as_ref().is_err_and(OnlineError::is_refusal);
                let one = self.inner.shared.names.services().len() == 1;
                self.may_be_listed |= !(refused && one);
                match &answer {
                    Ok(_) => self.online(),
                    Err(error) => self.fail(now, error.clone()),
                }
                self.sequence.handle_registered(answer.is_ok(), now);
                if let Ok(version) = answer {
                    self.registered(Ok(version));
                }
            }
            Done::Deregistered(how, why) => {
                if let Some(why) = why {
                    self.inner.note_unconfirmed(why);
                }
                let calls = self.inner.shared.traffic.calls();
                self.sequence.handle_deregistered(how, now, calls);
            }
            Done::Updated(result) => self.registered(result),
        }
    }

    fn online(&mut self) {
        let names = &self.inner.shared.names;
        if self.inner.measures
            && let Some(first) = names.services().first()
        {
            self.witness = self.inner.nacos.witness(first).ok();
        }
        if self.inner.checks {
            self.listens = Watch::new(names.addresses(), clock::now());
        }
        for service in names.services() {
            tracing::info!(target: logs::PROVIDER,
                namespace = &**service.namespace(),
                group = &**service.group(),
                service = &**service.name(),
                instances = ?names.addresses(),
                "provider is online"
            );
        }
    }

    fn fail(&mut self, now: Instant, error: OnlineError) {
        self.trouble(now, &error.to_string());
        self.status.send_modify(|status| {
            status.failures += 1;
            status.error = Some(error);
        });
    }

    /// One line a minute.
    fn trouble(&mut self, now: Instant, why: &str) {
        let quiet = |at: Instant| now.saturating_duration_since(at) < WARN_EVERY;
        if self.warned.is_some_and(quiet) {
            tracing::debug!(target: logs::PROVIDER, cause = why, "provider is not online yet");
        } else {
            self.warned = Some(now);
            let services = self.inner.services();
            tracing::warn!(target: logs::PROVIDER, service = %services, cause = why, "provider is not online yet; it is tried again");
        }
    }

    /// Tells whoever waits how far it is.
    fn tell(&self) {
        let (stage, milestones) = (self.stage(), self.sequence.milestones());
        self.inner.note(milestones);
        self.status.send_if_modified(|status| {
            let changed = status.stage != stage;
            status.stage = stage;
            if stage == Stage::Online {
                status.error = None;
            }
            changed
        });
    }

    fn report(&self) {
        let report = self.inner.report(Stage::Over, None);
        if let Some(offline) = &report.offline {
            let services = self.inner.services();
            tracing::info!(target: logs::PROVIDER, service = %services, "provider is offline: {offline}");
            #[cfg(feature = "metrics")]
            for service in self.inner.shared.names.services() {
                crate::metrics::offline(
                    service,
                    [
                        1,
                        u64::from(!offline.is_confirmed()),
                        offline.calls_after_offline,
                        offline.calls_after_listening,
                        offline.rejected,
                        offline.in_flight_at_end as u64,
                        offline.cut,
                    ],
                    [
                        offline.acknowledged_in,
                        Some(offline.linger),
                        offline.last_call_after,
                    ],
                );
            }
        }
    }
}

impl Drop for Driver {
    /// Its runtime ended before it was over, or it panicked: nobody is left to do it in order.
    fn drop(&mut self) {
        if self.stage() == Stage::Over || self.claim.is_none() {
            return;
        }
        let (service, stage) = (self.inner.services(), self.stage().name());
        if self.sequence.is_acknowledged() {
            tracing::warn!(target: logs::PROVIDER, %service, stage, "the runtime of a provider ended before callers had heard that it leaves: await the server, or `offline()`, before the runtime ends");
            return;
        }
        for service in self.inner.shared.names.services() {
            self.inner.nacos.withdraw(service.clone());
        }
        tracing::error!(target: logs::PROVIDER, %service, stage, "the runtime of a provider ended before it was offline: what it registered goes with the connection to the registry, and callers were not told; await the server, or `offline()`, before the runtime ends");
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

//! What users, operators, providers and fate do.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use tower_nacos::{
    simulation::SimLink,
    testing::{Fault, Profile, Script, StreamEnd, machine::Machine},
};

use crate::{
    network::{Event, MS, SEC, Up},
    plan::{Step, What},
    truth::{self, FORGET},
    world::{Checked, SERVICES, World, server_addr},
};

impl World {
    /// One thing happens. Its own dice decide the rest, so that it is much the same without those
    /// before it.
    pub(crate) fn step(&mut self, step: Step) -> Checked {
        self.quiet_is_well()?;
        self.log(|| format!("{:?}", step.what));
        self.disturbed = self.disturbed.max(self.now);
        if step.what == What::MeddleTokens {
            self.meddle_tokens(step.dice);
            return Ok(());
        }
        self.rng = StdRng::seed_from_u64(step.dice);
        match step.what {
            What::KillServer => self.kill_server(),
            What::LoseRack => self.lose_rack(),
            What::Freeze => self.freeze(),
            What::Partition => self.partition(),
            What::BreakLink => self.break_some_link(),
            What::EndStream => self.end_some_stream(),
            What::ResetLink => self.reset_some_link(),
            What::Detect => self.detect(),
            What::StepClock => self.step_clock(),
            What::Script => self.script(),
            What::SlowDown => self.slow(),
            What::PushAgain => self.push_again(),
            What::NoNames => self.no_names(),
            What::ChangeProvider => self.change_provider(),
            What::ToggleSubscription => self.toggle_subscription()?,
            What::TogglePublication => self.toggle_publication()?,
            What::Query => self.query()?,
            What::RestartAmidReconnect => self.restart_amid_a_reconnect(),
            What::Protect => self.protect(),
            What::LeaveUnanswered => self.leave_unanswered()?,
            What::Persist => self.persist()?,
            What::ChangeServices => self.change_services(),
            What::ToggleList => self.toggle_list()?,
            What::MeddleTokens => {}
        }
        Ok(())
    }

    /// It is time for peace.
    pub(crate) fn end_of_faults(&mut self) {
        // What is held up by a partition or a freeze comes in order only when that is over.
        let blocked = self.clients.iter().flat_map(|c| c.blocked.values());
        let frozen = self.servers.iter().map(|s| &s.frozen_until);
        match blocked.chain(frozen).copied().max() {
            Some(end) if end > self.now => self.at(end, Event::EndOfFaults),
            _ => self.calm(),
        }
    }

    fn no_names(&mut self) {
        self.log(|| "no names".to_owned());
        self.no_names_until = self.now + self.rng.random_range(1..20) * SEC;
    }

    /// No more faults: everything works again but what is lost for good.
    pub(crate) fn calm(&mut self) {
        self.log(|| "calm".to_owned());
        let now = self.now;
        self.calm_since = Some(now);
        self.rng = StdRng::seed_from_u64(self.seed);
        self.no_names_until = now;
        self.tokens.are_to_be_had(now);
        // What is refused for good is asked for on the next connection only.
        for client in 0..self.clients.len() {
            if self.clients[client].refused {
                self.at(now + 10 * SEC, Event::Break(client));
            }
        }
        for client in &mut self.clients {
            client.lag = client.lag.min(40 * MS);
        }
        for n in 0..self.servers.len() {
            self.servers[n].scripts_until = now;
            self.servers[n].machine.clear_scripts();
            if !self.servers[n].up && !self.servers[n].dead {
                self.server_up(n);
            }
        }
    }

    pub(crate) fn some_server(&mut self) -> Option<usize> {
        let up = |n: &usize| self.servers[*n].up && self.servers[*n].frozen_until <= self.now;
        let up: Vec<usize> = (0..self.servers.len()).filter(up).collect();
        up.choose(&mut self.rng).copied()
    }

    pub(crate) fn some_client(&mut self) -> usize {
        self.rng.random_range(0..self.clients.len())
    }

    pub(crate) fn some_link(&mut self) -> Option<(usize, SimLink)> {
        let client = self.some_client();
        let open = self.clients[client].open_links();
        let open: Vec<SimLink> = open.map(|(link, _)| *link).collect();
        Some((client, *open.choose(&mut self.rng)?))
    }

    // Servers.

    pub(crate) fn kill_server(&mut self) {
        let Some(n) = self.some_server() else { return };
        let down = match self.rng.random_range(0..4) {
            0 => self.rng.random_range(0..500) * MS,
            1 | 2 => self.rng.random_range(500..8_000) * MS,
            _ => self.rng.random_range(8..90) * SEC,
        };
        let profile = self.rng.random_bool(0.3).then(|| {
            let profiles = [Profile::V2_2, Profile::V2_5, Profile::V3_0];
            *profiles.choose(&mut self.rng).unwrap()
        });
        self.log(|| format!("server {n} restarts, {down:?}, {profile:?}"));
        self.take_down(n, false);
        if let Some(profile) = profile {
            let seed = self.rng.random();
            let settings = truth::settings(profile, self.race, self.tokens.login());
            self.servers[n].machine = Machine::new(settings, seed, self.now);
            self.servers[n].profile = profile;
            for client in &mut self.clients {
                client.persistent.replaced(); // another server, another disk
            }
        }
        let alone = self.servers.len() == 1;
        for p in 0..self.providers.len() {
            let provider = &mut self.providers[p];
            if provider.home != n || !provider.registered {
                continue;
            }
            if !provider.alive {
                provider.registered = false;
                continue;
            }
            if !alone {
                let after = self.rng.random_range(1_000..4_000) * MS;
                self.later(after, Event::Return(p));
            }
        }
        self.later(down, Event::ServerUp(n));
    }

    /// A server and its providers, with power and all.
    pub(crate) fn lose_rack(&mut self) {
        let lost = self.servers.iter().any(|server| server.dead);
        if self.servers.len() < 2 || lost {
            return;
        }
        let Some(n) = self.some_server() else { return };
        self.log(|| format!("rack {n} is lost"));
        self.take_down(n, true);
        for p in 0..self.providers.len() {
            if self.providers[p].home == n && self.providers[p].alive {
                self.providers[p].alive = false;
                self.providers[p].since = self.now;
                self.later(FORGET, Event::Forget(p));
            }
        }
    }

    pub(crate) fn take_down(&mut self, n: usize, silent: bool) {
        let now = self.now;
        let server = &mut self.servers[n];
        server.up = false;
        server.dead = silent;
        server.epoch += 1;
        server.machine.restart(now);
        server.lists.clear();
        server.listed_since.clear();
        for (client, link) in std::mem::take(&mut server.conns).into_values() {
            self.clients[client].wires.get_mut(&link).unwrap().conn = None;
            if !silent {
                self.down(client, link, crate::network::Down::Broken);
            }
        }
    }

    pub(crate) fn server_up(&mut self, n: usize) {
        if self.servers[n].up || self.servers[n].dead {
            return;
        }
        self.log(|| format!("server {n} is up"));
        self.servers[n].up = true;
        self.servers[n].ok_since = self.now;
        if self.calm_since.is_none() && self.rng.random_bool(0.2) {
            let script = Script::next("ServerCheckRequest", Fault::RefuseAsError(300)).times(3);
            self.servers[n].machine.script(script);
            self.scripted(n, 5 * SEC);
        }
        if self.calm_since.is_none() && self.rng.random_bool(0.5) {
            // It knows some of its providers then.
            let (client, after) = (self.some_client(), self.rng.random_range(500..5_000) * MS);
            self.later(after, Event::Starts(client));
        }
        for provider in 0..self.providers.len() {
            self.replicate_later(n, provider);
            if self.providers[provider].home == n {
                let after = self.rng.random_range(1_000..4_000) * MS;
                self.later(after, Event::Return(provider));
            }
        }
    }

    pub(crate) fn freeze(&mut self) {
        let Some(n) = self.some_server() else { return };
        let freeze = self.rng.random_range(500..40_000) * MS;
        self.log(|| format!("server {n} freezes for {freeze:?}"));
        self.servers[n].frozen_until = self.now + freeze;
        self.hold_up(self.now + freeze);
    }

    pub(crate) fn step_clock(&mut self) {
        let Some(n) = self.some_server() else { return };
        let step = self.rng.random_range(-3_600_000..3_600_000);
        self.log(|| format!("the clock of server {n} steps {step} ms"));
        self.servers[n].machine.step_clock(step);
    }

    pub(crate) fn script(&mut self) {
        let Some(n) = self.some_server() else { return };
        const CALLS: [&str; 10] = [
            "ServerCheckRequest",
            "HealthCheckRequest",
            "SubscribeServiceRequest",
            "InstanceRequest",
            "BatchInstanceRequest",
            "PersistentInstanceRequest",
            "ServiceQueryRequest",
            "ConnectionSetupRequest",
            "ServiceListRequest",
            "NamingFuzzyWatchRequest",
        ];
        const FRAMES: [&str; 4] = [
            "NotifySubscriberRequest",
            "SetupAckRequest",
            "NamingFuzzyWatchSyncRequest",
            "NamingFuzzyWatchChangeNotifyRequest",
        ];
        let times = self.rng.random_range(1..5);
        let script = if self.rng.random_bool(0.6) {
            let kind = *CALLS.choose(&mut self.rng).unwrap();
            let codes = [300, 301, 302, 400, 403, 500, 502, 503, -401];
            let code = *codes.choose(&mut self.rng).unwrap();
            let fault = match self.rng.random_range(0..7) {
                0 => Fault::Drop,
                1 => Fault::Delay(self.rng.random_range(50..6_000) * MS),
                2 => Fault::Refuse(code),
                3 => Fault::RefuseAsError(code),
                4 => Fault::Fail(*[14, 13, 4].choose(&mut self.rng).unwrap()),
                // A read that cannot be read is not tried again: only a safety read helps.
                _ if kind == "ServiceQueryRequest" && !self.lies => Fault::Drop,
                5 => Fault::Truncate,
                _ => Fault::InvalidUtf8,
            };
            Script::next(kind, fault)
        } else {
            let kind = *FRAMES.choose(&mut self.rng).unwrap();
            let push = kind == "NotifySubscriberRequest";
            let fault = match self
                .rng
                .random_range(0..if self.lies && push { 9 } else { 5 })
            {
                0 => Fault::Delay(self.rng.random_range(50..6_000) * MS),
                1 => Fault::Duplicate,
                2 => Fault::Truncate,
                3 => Fault::InvalidUtf8,
                4 => Fault::BareNan,
                5 | 6 => Fault::Drop,
                7 => Fault::NullHosts,
                _ => Fault::NoServiceInfo,
            };
            Script::next(kind, fault)
        };
        let script = script.times(times);
        self.log(|| format!("server {n}: {script:?}"));
        self.servers[n].machine.script(script);
        let lasts = self.rng.random_range(1..20) * SEC;
        self.scripted(n, lasts);
    }

    /// The next requests of a kind are carried out and not answered, while users change their minds.
    fn leave_unanswered(&mut self) -> Checked {
        let Some(n) = self.some_server() else {
            return Ok(());
        };
        let subscription = self.rng.random_bool(0.3);
        let kind = match self.rng.random_range(0..4) {
            _ if subscription => "SubscribeServiceRequest",
            0 => "BatchInstanceRequest",
            _ => "InstanceRequest",
        };
        let script = Script::next(kind, Fault::Drop).times(self.rng.random_range(1..4));
        self.log(|| format!("server {n}: {script:?}"));
        self.servers[n].machine.script(script);
        self.scripted(n, 15 * SEC);
        for _ in 0..self.rng.random_range(1..4) {
            if subscription {
                self.toggle_subscription()?;
            } else {
                self.toggle_publication()?;
            }
        }
        Ok(())
    }

    /// An operator has a service listed as healthy when few of its instances are.
    fn protect(&mut self) {
        let service = self.rng.random_range(0..SERVICES);
        let threshold = *[0.0, 0.4, 0.6, 1.0].choose(&mut self.rng).unwrap();
        self.log(|| format!("service {service} is protected at {threshold}"));
        for n in 0..self.servers.len() {
            let now = self.now;
            if self.servers[n].up && self.servers[n].frozen_until <= now {
                let key = &self.keys[service];
                self.servers[n]
                    .machine
                    .set_protect_threshold(key, threshold, now);
                self.take_outputs(n);
            }
        }
    }

    pub(crate) fn scripted(&mut self, n: usize, lasts: Duration) {
        let until = self.now + lasts;
        self.servers[n].scripts_until = self.servers[n].scripts_until.max(until);
        let until = self.servers[n].scripts_until;
        self.at(until, Event::ClearScripts(n));
    }

    pub(crate) fn push_again(&mut self) {
        let Some(n) = self.some_server() else { return };
        let service = self.rng.random_range(0..SERVICES);
        let now = self.now;
        self.servers[n].machine.push_again(&self.keys[service], now);
        self.take_outputs(n);
    }

    // Connections.

    pub(crate) fn partition(&mut self) {
        let client = self.some_client();
        let all = self.rng.random_bool(0.4);
        let one = self.rng.random_range(0..self.servers.len());
        let lasts = match self.rng.random_range(0..3) {
            0 => self.rng.random_range(100..3_000) * MS,
            _ => self.rng.random_range(3..60) * SEC,
        };
        self.log(|| format!("client {client} is cut off from {one} (or all: {all}) for {lasts:?}"));
        self.hold_up(self.now + lasts);
        for n in (0..self.servers.len()).filter(|n| all || *n == one) {
            let until = self.now + lasts;
            let blocked = self.clients[client].blocked.entry(n).or_insert(until);
            *blocked = until.max(*blocked);
        }
    }

    pub(crate) fn break_some_link(&mut self) {
        let Some((client, link)) = self.some_link() else {
            return;
        };
        if self.rng.random_bool(0.5) {
            self.log(|| format!("client {client}: {link:?} breaks"));
            self.break_link(client, link);
        } else {
            self.log(|| format!("client {client}: {link:?} is cut in silence"));
            self.clients[client].wires.get_mut(&link).unwrap().cut = true;
            self.clients[client].disturbed = self.now;
            let noticed = self.rng.random_range(15..60) * SEC;
            self.later(
                noticed,
                Event::ToServer {
                    client,
                    link,
                    up: Up::Noticed,
                },
            );
        }
    }

    /// A provider restarts while a client changes its connection, and the answer to the
    /// subscription may be slow.
    pub(crate) fn restart_amid_a_reconnect(&mut self) {
        let alive =
            |p: &usize| self.providers[*p].alive && self.servers[self.providers[*p].home].up;
        let alive: Vec<usize> = (0..self.providers.len()).filter(alive).collect();
        let (Some(p), Some(n)) = (alive.choose(&mut self.rng).copied(), self.some_server()) else {
            return;
        };
        let client = self.some_client();
        if self.rng.random_bool(0.5) {
            let delay = self.rng.random_range(500..3_500) * MS;
            let fault = Fault::Delay(delay);
            let script = Script::every("SubscribeServiceRequest", fault);
            self.log(|| format!("server {n}: {script:?}"));
            self.servers[n].machine.script(script);
            self.scripted(n, 4 * SEC);
        }
        self.stop(p);
        let (start, broken) = (
            self.rng.random_range(100..2_500),
            self.rng.random_range(100..2_500),
        );
        self.later(start * MS, Event::Start(p));
        self.later(broken * MS, Event::Break(client));
    }

    pub(crate) fn break_newest(&mut self, client: usize) {
        let newest = self.clients[client]
            .open_links()
            .last()
            .map(|(link, _)| *link);
        if let Some(link) = newest {
            self.log(|| format!("client {client}: {link:?} breaks"));
            self.break_link(client, link);
        }
    }

    pub(crate) fn end_some_stream(&mut self) {
        let Some(n) = self.some_server() else { return };
        let Some((conn, (client, link))) = self.some_conn(n) else {
            return;
        };
        let end = match self.rng.random_range(0..3) {
            0 => StreamEnd::Clean,
            1 => StreamEnd::Status(14, "as scripted".to_owned()),
            _ => StreamEnd::Reset,
        };
        self.clients[client].disturbed = self.now;
        self.log(|| format!("server {n} ends {link:?} of client {client}: {end:?}"));
        self.end_stream(n, conn, end);
    }

    pub(crate) fn some_conn(
        &mut self,
        n: usize,
    ) -> Option<(tower_nacos::testing::ConnId, (usize, SimLink))> {
        let conns = self.servers[n].conns.iter().map(|(c, of)| (*c, *of));
        let conns: Vec<_> = conns.collect();
        conns.choose(&mut self.rng).copied()
    }

    pub(crate) fn reset_some_link(&mut self) {
        let Some(n) = self.some_server() else { return };
        let Some((conn, (client, link))) = self.some_conn(n) else {
            return;
        };
        let to = self.rng.random_range(0..self.servers.len());
        let to = format!("{}:8848", server_addr(to).ip());
        let to = self.rng.random_bool(0.5).then_some(to);
        self.clients[client].disturbed = self.now;
        self.log(|| format!("server {n} resets {link:?} of client {client} to {to:?}"));
        let now = self.now;
        self.servers[n]
            .machine
            .reset_connection(conn, to.as_deref(), now);
        self.take_outputs(n);
    }

    pub(crate) fn detect(&mut self) {
        let Some(n) = self.some_server() else { return };
        let Some((conn, (client, link))) = self.some_conn(n) else {
            return;
        };
        self.clients[client].disturbed = self.now;
        self.log(|| format!("server {n} asks {link:?} of client {client} whether it lives"));
        let now = self.now;
        self.servers[n].machine.detect(conn, now);
        self.take_outputs(n);
    }

    pub(crate) fn slow(&mut self) {
        let client = self.some_client();
        let lag = self.rng.random_range(100..2_500) * MS;
        self.log(|| format!("client {client} has a lag of {lag:?}"));
        self.clients[client].lag = lag;
        let lasts = self.rng.random_range(1..30) * SEC;
        self.later(lasts, Event::Calmer(client));
    }
}

//! Servers that are told while the session lives.

use std::{mem, net::SocketAddr, time::Instant};

use super::{
    config::Server,
    link::Link,
    machine::{Life, Session},
    timers::Timer,
};
use crate::model::Host;

impl Session {
    /// There are these servers from now on, in any order. The connection stays while its server is one
    /// of them; else the session moves, and keeps the connection until the next one has everything. Is it
    /// one of them again before that, the session stays. A session that is offline begins to connect.
    /// None at all says nothing.
    pub(crate) fn handle_servers(&mut self, servers: Vec<Server>, now: Instant) {
        if self.life != Life::Open || servers.is_empty() {
            return;
        }
        let waited = mem::take(&mut self.config.offline);
        let known = &self.config.servers;
        let same = servers.iter().all(|server| known.contains(server))
            && known.iter().all(|server| servers.contains(server));
        if same && !waited {
            return;
        }
        self.config.servers = servers;
        let listed = |link: &Link, servers: &[Server]| servers.iter().any(|s| is_at(s, link));
        let current = self.current.as_ref();
        let current = current.map(|link| listed(link, &self.config.servers));
        if current == Some(true) && mem::take(&mut self.unlisted) {
            self.drop_attempt();
            self.timers.stop(&Timer::Redial);
            self.dialer.exclude_none();
            return;
        }
        // An attempt's candidates are numbered by the servers that there were.
        let under_way = self.attempt.is_some();
        self.drop_attempt();
        if waited || under_way {
            return self.start_attempt(now);
        }
        if current == Some(false) {
            let moves = self.timers.is_running(&Timer::Redial) && !self.unlisted;
            self.move_away(None, now);
            self.unlisted = !moves;
        }
    }
}

/// Whether `link` is a connection to `server`.
fn is_at(server: &Server, link: &Link) -> bool {
    match &server.host {
        Host::Ip(ip) => SocketAddr::new(*ip, server.port) == link.addr,
        // As `describe` has it.
        _ => link.server == format!("{server} ({})", link.addr),
    }
}

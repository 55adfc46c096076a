//! Servers that are told while the session lives.

use std::{mem, net::SocketAddr, time::Instant};

use super::{
    config::Server,
    link::Link,
    machine::{Life, Session},
};
use crate::model::Host;

impl Session {
    /// There are these servers from now on, in any order. The connection stays while its server is one
    /// of them; else the session moves, and keeps the connection until the next one has everything. A
    /// session that is offline begins to connect. None at all says nothing.
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
        // An attempt's candidates are numbered by the servers that there were.
        let under_way = self.attempt.is_some();
        self.drop_attempt();
        if waited || under_way {
            return self.start_attempt(now);
        }
        let listed = |link: &Link| self.config.servers.iter().any(|s| is_at(s, link));
        if self.current.as_ref().is_some_and(|link| !listed(link)) {
            self.move_away(None, now);
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

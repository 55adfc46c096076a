//! What an address server says of the registry's servers.

use std::{sync::Arc, time::Instant};

use super::{Driver, Warning, now};
use crate::{
    client::{ConnectionState, ServerAddress},
    logs,
};

impl Driver {
    /// Asks, if it is time.
    pub(super) fn ask_addresses(&mut self, now: Instant) {
        if let Some(server) = &mut self.addresses
            && server.schedule.take_due(now)
        {
            server.ask();
        }
    }

    pub(super) fn addresses_told(&mut self, answer: Result<Vec<ServerAddress>, String>) {
        let now = now();
        let Some(server) = &mut self.addresses else {
            return;
        };
        server.schedule.answered(answer.is_ok(), now);
        let failures = server.schedule.failures();
        match answer {
            Ok(servers) => {
                server.unknown = None;
                self.set_servers(servers, now);
            }
            Err(cause) => {
                let cause = format!("address server {}: {cause}", server.url);
                if let Some(unknown) = &mut server.unknown {
                    unknown.clone_from(&cause);
                    return self.no_servers(failures, &cause.into(), now);
                }
                if self.may_warn(Warning::AddressServer, now) {
                    tracing::warn!(target: logs::REGISTRY, client = self.owner.name(), namespace = &*self.namespace, failures, cause, "the servers that are known stay");
                }
            }
        }
    }

    fn set_servers(&mut self, servers: Vec<ServerAddress>, now: Instant) {
        if !self.links.set_servers(&servers) {
            return;
        }
        self.servers.send_replace(servers.clone());
        let named: Vec<String> = servers
            .iter()
            .take(NAMED)
            .map(ToString::to_string)
            .collect();
        tracing::info!(target: logs::REGISTRY, client = self.owner.name(), namespace = &*self.namespace, servers = servers.len(), named = named.join(", "), "the address server lists these servers");
        let servers = servers.iter().map(ServerAddress::grpc).collect();
        self.core.session_mut().handle_servers(servers, now);
    }

    /// There is nobody to connect to yet.
    fn no_servers(&mut self, attempt: u32, cause: &Arc<str>, now: Instant) {
        self.owner.set_outage(Some(Arc::clone(cause)));
        let line = self.outage.connecting(attempt, Some(cause), now);
        self.state.send_replace(ConnectionState::Connecting {
            attempt,
            last_error: Some(Arc::clone(cause)),
        });
        if let Some(line) = line {
            self.tell(&line);
        }
    }
}

/// A line of the log names so many servers.
const NAMED: usize = 10;

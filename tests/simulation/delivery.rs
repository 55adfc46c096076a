//! What reaches servers and clients, how late and in which order.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use rand::RngExt;
use tower_nacos::{
    simulation::{Failure, SimLink},
    testing::{ConnId, machine::Output},
};

use crate::{
    client::Came,
    network::{Down, Event, Up, Wire},
    world::{Checked, World, contains, local},
};

impl World {
    pub(crate) fn dialled(&mut self, client: usize, link: SimLink, server: usize) {
        let wire = self.clients[client].wires.get_mut(&link).unwrap();
        let node = &self.servers[server];
        if wire.hung_up || node.dead {
            return;
        }
        wire.epoch = node.epoch;
        if node.up {
            let token = self.grant(server);
            self.up(client, link, Up::Open);
            let delay = self.delay(client);
            self.later(
                delay,
                Event::Connected {
                    client,
                    link,
                    token,
                },
            );
        } else {
            let delay = self.delay(client);
            self.later(delay, Event::Refused { client, link });
        }
    }

    pub(crate) fn reach_server(&mut self, client: usize, link: SimLink, up: Up) {
        let now = self.now;
        let wire = self.clients[client].wires.get_mut(&link).unwrap();
        let n = wire.server;
        let node = &mut self.servers[n];
        if node.dead || wire.cut && !matches!(up, Up::Noticed) {
            return;
        }
        if !node.up || wire.epoch != node.epoch {
            return self.down(client, link, Down::Broken);
        }
        match (up, wire.conn) {
            (Up::Open, _) => {
                let port = 40_000 + (self.serial % 20_000) as u16;
                let conn = node.machine.open(SocketAddr::new(local(client), port), now);
                wire.conn = Some(conn);
                node.conns.insert(conn, (client, link));
            }
            (_, None) => return,
            (Up::OpenStream(payload), Some(conn)) => {
                node.machine.handle_stream_opened(conn, now);
                node.machine.handle_stream(conn, &payload, now);
            }
            (Up::Stream(payload), Some(conn)) => node.machine.handle_stream(conn, &payload, now),
            (Up::Call(call, payload), Some(conn)) => {
                self.last_call += 1;
                self.calls.insert(self.last_call, (client, link, call));
                node.machine
                    .handle_unary(conn, self.last_call, &payload, now);
            }
            (Up::Close | Up::Noticed, Some(conn)) => {
                node.machine.handle_closed(conn, now);
                node.conns.remove(&conn);
                wire.conn = None;
            }
        }
        self.take_outputs(n);
    }

    pub(crate) fn reach_client(&mut self, client: usize, link: SimLink, down: Down) -> Checked {
        let now = self.now;
        let c = &mut self.clients[client];
        let wire = c.wires.get_mut(&link).unwrap();
        if wire.hung_up || wire.cut || wire.broken {
            return Ok(());
        }
        let came = match down {
            Down::Answer(call, payload) => {
                if !wire.calls.remove(&call) {
                    return Ok(());
                }
                c.unit.handle_answer(call, Ok(payload), now);
                Came::Answer(link, call)
            }
            Down::Fail(call, code) => {
                if !wire.calls.remove(&call) {
                    return Ok(());
                }
                c.unit.handle_answer(call, Err(Failure::Status(code)), now);
                Came::Answer(link, call)
            }
            Down::Stream(payload) => {
                if !wire.streaming {
                    return Ok(());
                }
                if contains(&payload, b"ConnectResetRequest") {
                    wire.reset = true;
                }
                self.unacknowledged =
                    contains(&payload, b"NotifySubscriberRequest").then_some(link);
                c.unit.handle_stream(link, payload, now);
                Came::Stream(link)
            }
            Down::StreamEnd(end) => {
                wire.streaming = false;
                c.unit.handle_stream_ended(link, &format!("{end:?}"), now);
                Came::Other
            }
            Down::Broken => {
                wire.broken = true;
                let calls = std::mem::take(&mut wire.calls);
                let streaming = std::mem::take(&mut wire.streaming);
                let first = self.rng.random_bool(0.5);
                if first && streaming {
                    self.clients[client]
                        .unit
                        .handle_stream_ended(link, "broken", now);
                    self.after(client, Came::Other)?;
                }
                for call in calls {
                    self.clients[client]
                        .unit
                        .handle_answer(call, Err(Failure::Lost), now);
                    self.after(client, Came::Other)?;
                }
                if !first && streaming {
                    self.clients[client]
                        .unit
                        .handle_stream_ended(link, "broken", now);
                }
                Came::Other
            }
        };
        self.after(client, came)
    }

    pub(crate) fn take_outputs(&mut self, server: usize) {
        while let Some(output) = self.servers[server].machine.poll_output() {
            match output {
                Output::Answer { call, payload, .. } => {
                    if let Some((client, link, call)) = self.calls.remove(&call) {
                        let delay = self.delay(client);
                        let down = Down::Answer(call, payload);
                        self.later(delay, Event::ToClient { client, link, down });
                    }
                }
                Output::Fail { call, code, .. } => {
                    if let Some((client, link, call)) = self.calls.remove(&call) {
                        let delay = self.delay(client);
                        let down = Down::Fail(call, code);
                        self.later(delay, Event::ToClient { client, link, down });
                    }
                }
                Output::Stream { conn, payload } => {
                    if let Some((client, link)) = self.owner(server, conn) {
                        self.down(client, link, Down::Stream(payload));
                    }
                }
                Output::EndStream { conn, end } => {
                    if let Some((client, link)) = self.owner(server, conn) {
                        self.down(client, link, Down::StreamEnd(end));
                    }
                }
                Output::CloseTransport { conn } => {
                    if let Some((client, link)) = self.owner(server, conn) {
                        self.down(client, link, Down::Broken);
                    }
                }
                _ => {}
            }
        }
    }

    pub(crate) fn owner(&self, server: usize, conn: ConnId) -> Option<(usize, SimLink)> {
        self.servers[server].conns.get(&conn).copied()
    }

    pub(crate) fn wire(&mut self, client: usize, link: SimLink) -> Result<&mut Wire, String> {
        let wire = self.clients[client].wires.get_mut(&link);
        let wire = wire.ok_or_else(|| format!("{link:?} was never dialled"))?;
        if wire.hung_up {
            return Err(format!("something is sent on {link:?}, which was hung up"));
        }
        Ok(wire)
    }

    /// In order, as on a stream.
    pub(crate) fn up(&mut self, client: usize, link: SimLink, up: Up) {
        let delay = self.delay(client);
        let wire = self.clients[client].wires.get_mut(&link).unwrap();
        wire.last_up = wire.last_up.max(self.now + delay);
        let at = wire.last_up;
        self.at(at, Event::ToServer { client, link, up });
    }

    pub(crate) fn down(&mut self, client: usize, link: SimLink, down: Down) {
        let delay = self.delay(client);
        let wire = self.clients[client].wires.get_mut(&link).unwrap();
        wire.last_down = wire.last_down.max(self.now + delay);
        let at = wire.last_down;
        self.at(at, Event::ToClient { client, link, down });
    }

    pub(crate) fn delay(&mut self, client: usize) -> Duration {
        let lag = self.clients[client].lag;
        lag.mul_f64(self.rng.random_range(0.5..2.0))
    }

    pub(crate) fn blocked_until(&self, client: usize, server: usize) -> Instant {
        let until = self.clients[client].blocked.get(&server);
        until.copied().unwrap_or(self.start)
    }
}

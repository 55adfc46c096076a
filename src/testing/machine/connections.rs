use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    time::{Duration, Instant},
};

use rand::RngExt;
use serde_json::{Value, json};

use super::{
    ConnId, Frame, Machine, Output, ServiceId, StreamEnd, Via,
    body::{Fields, Malformed},
    faults::Fault,
    push::{PUSH, Unacked},
    services::Publisher,
};

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) address: SocketAddr,
    /// What the server calls it: `<millis>_<ip>_<port>`.
    pub(super) name: String,
    /// Whether a stream is open; frames can be sent.
    pub(super) stream: bool,
    /// What its setup said, while it counts as a client.
    pub(super) setup: Option<Setup>,
    pub(super) last_active: Instant,
    /// The request that a silent client was sent, and until when it may answer.
    pub(super) detection: Option<(String, Instant)>,
    pub(super) unacked: BTreeMap<String, Unacked>,
    pub(super) hold_until: Option<Instant>,
    pub(super) pushes: u64,
    pub(super) acks: u64,
    pub(super) refusals: u64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Setup {
    pub(super) client_version: String,
    pub(super) tenant: String,
    pub(super) labels: BTreeMap<String, String>,
}

impl Connection {
    /// Without the label the server makes no naming client of a connection.
    pub(super) fn is_naming(&self) -> bool {
        self.setup
            .as_ref()
            .is_some_and(|setup| setup.labels.get("module").is_some_and(|m| m == "naming"))
    }
}

impl Machine {
    /// A client's transport is up.
    pub fn open(&mut self, address: SocketAddr, now: Instant) -> ConnId {
        self.last_conn += 1;
        let conn = ConnId(self.last_conn);
        let name = format!(
            "{}_{}_{}",
            self.wall_clock(now),
            address.ip(),
            address.port()
        );
        self.conns.insert(
            conn,
            Connection {
                address,
                name,
                stream: false,
                setup: None,
                last_active: now,
                detection: None,
                unacked: BTreeMap::new(),
                hold_until: None,
                pushes: 0,
                acks: 0,
                refusals: 0,
            },
        );
        conn
    }

    /// The client opened its stream. Nothing comes of it until its setup arrives.
    pub fn handle_stream_opened(&mut self, conn: ConnId, _now: Instant) {
        if let Some(connection) = self.conns.get_mut(&conn) {
            connection.stream = true;
        }
    }

    /// A payload came on the stream.
    pub fn handle_stream(&mut self, conn: ConnId, payload: &[u8], now: Instant) {
        let Ok(frame) = Frame::decode(payload) else {
            // grpc-java ends a call whose message it cannot parse.
            self.end_stream(conn, StreamEnd::Status(13, "no payload".to_owned()), now);
            return;
        };
        let limit = self.settings.log_limit;
        self.log.received(conn, Via::Stream, &frame, now, limit);
        match frame.kind.as_str() {
            "ConnectionSetupRequest" => {
                match self.take_fault("ConnectionSetupRequest", None, conn) {
                    Some(Fault::Drop) => {}
                    Some(Fault::Delay(delay)) => self.later_setup(now + delay, conn, frame),
                    Some(Fault::Fail(code)) => {
                        let end = StreamEnd::Status(code, "refused".to_owned());
                        self.end_stream(conn, end, now);
                    }
                    _ => self.set_up(conn, &frame, now),
                }
            }
            kind if kind.ends_with("Response") => self.client_answered(conn, &frame, now),
            _ => {} // Servers log it and go on.
        }
        self.settle(now);
    }

    /// The client ended its side of the stream. Servers end theirs, cleanly, and keep the client
    /// registered until the transport goes.
    pub fn handle_stream_closed(&mut self, conn: ConnId, now: Instant) {
        if let Some(connection) = self.conns.get_mut(&conn)
            && connection.stream
        {
            connection.stream = false;
            let end = StreamEnd::Clean;
            self.outputs.push_back(Output::EndStream { conn, end });
        }
        self.settle(now);
    }

    /// The transport is gone, whoever closed it, and all that the client had with it.
    pub fn handle_closed(&mut self, conn: ConnId, now: Instant) {
        self.unregister(conn, now);
        self.conns.remove(&conn);
        self.settle(now);
    }

    /// Ends a connection's stream; the transport stays open and unary calls answer 301.
    pub fn end_stream(&mut self, conn: ConnId, end: StreamEnd, now: Instant) {
        self.unregister(conn, now);
        if let Some(connection) = self.conns.get_mut(&conn)
            && std::mem::take(&mut connection.stream)
        {
            self.outputs.push_back(Output::EndStream { conn, end });
        }
        self.settle(now);
    }

    /// Closes a connection's transport as a killed server would.
    pub fn close_transport(&mut self, conn: ConnId, now: Instant) {
        if self.conns.contains_key(&conn) {
            self.handle_closed(conn, now);
            self.outputs.push_back(Output::CloseTransport { conn });
        }
    }

    /// Asks a client to go to another server: `ConnectResetRequest`, with the address of a
    /// recommended server or without. The old connection stays open until the client closes it.
    pub fn reset_connection(&mut self, conn: ConnId, recommended: Option<&str>, now: Instant) {
        let Some(name) = self.conns.get(&conn).map(|c| c.name.clone()) else {
            return;
        };
        let mut body = json!({"headers": {}, "requestId": self.request_id(), "module": "internal"});
        if let Some(server) = recommended {
            let (ip, port) = server.rsplit_once(':').unwrap_or((server, "8848"));
            body["serverIp"] = json!(ip);
            body["serverPort"] = json!(port);
            body["connectionId"] = json!(name);
        }
        let body = body.to_string().into();
        self.send(conn, "ConnectResetRequest", None, body, now);
        self.settle(now);
    }

    /// Asks a client now whether it lives, however lately it spoke.
    pub fn detect(&mut self, conn: ConnId, now: Instant) {
        let id = self.request_id();
        let deadline = now + self.settings.detection_timeout;
        let Some(connection) = self.conns.get_mut(&conn) else {
            return;
        };
        connection.detection = Some((id.clone(), deadline));
        self.log.detections += 1;
        let body = json!({"headers": {}, "requestId": id, "module": "internal"});
        let body = body.to_string().into();
        self.send(conn, "ClientDetectionRequest", None, body, now);
        self.settle(now);
    }

    pub(super) fn set_up(&mut self, conn: ConnId, frame: &Frame, now: Instant) {
        let Ok((setup, negotiates)) = read_setup(frame) else {
            return;
        };
        let Some(connection) = self.conns.get_mut(&conn) else {
            return;
        };
        connection.setup = Some(setup);
        connection.last_active = now;
        self.log.setups += 1;
        if negotiates && self.settings.profile.negotiates() {
            let abilities = self.settings.profile.abilities();
            let body = json!({"headers": {}, "abilityTable": abilities, "module": "internal"});
            let body = body.to_string().into();
            self.send(conn, "SetupAckRequest", None, body, now);
        }
    }

    fn client_answered(&mut self, conn: ConnId, frame: &Frame, now: Instant) {
        let Ok(fields) = Fields::parse(&frame.body) else {
            return;
        };
        let Some(connection) = self.conns.get_mut(&conn) else {
            return;
        };
        connection.last_active = now;
        let id = fields.text("requestId").ok().flatten().unwrap_or_default();
        if connection
            .detection
            .as_ref()
            .is_some_and(|(asked, _)| *asked == id)
        {
            connection.detection = None;
            let race = self.settings.detection_race;
            if race > 0.0 && self.rng.random::<f64>() < race {
                self.end_stream(conn, StreamEnd::Clean, now);
            }
            return;
        }
        let accepted = fields
            .integer("resultCode", 200)
            .is_ok_and(|code| code == 200);
        if self.fuzzy_answered(conn, &id, accepted, now) {
            return;
        }
        let Some(connection) = self.conns.get_mut(&conn) else {
            return;
        };
        if frame.kind == PUSH.replace("Request", "Response") || connection.unacked.contains_key(&id)
        {
            self.push_answered(conn, &id, accepted, now);
        }
    }

    /// Forgets a client: its subscriptions at once, its instances for all the others to hear of.
    pub(super) fn unregister(&mut self, conn: ConnId, now: Instant) {
        let Some(connection) = self.conns.get_mut(&conn) else {
            return;
        };
        connection.setup = None;
        connection.detection = None;
        connection.unacked.clear();
        self.fuzzy.forget(conn);
        let mut published: Vec<ServiceId> = Vec::new();
        for (service, state) in &mut self.services {
            state.subscribers.remove(&conn);
            if state
                .publications
                .contains_key(&Publisher::Connection(conn))
            {
                published.push(service.clone());
            }
        }
        for service in published {
            self.publish(&service, Publisher::Connection(conn), Vec::new(), now);
        }
    }

    /// Asks the silent, and gives up those who were asked and said nothing.
    pub(super) fn sweep(&mut self, now: Instant) {
        if self.next_sweep > now {
            return;
        }
        while self.next_sweep <= now {
            self.next_sweep += self.settings.detection_scan.max(Duration::from_millis(1));
        }
        if !self.settings.profile.ejects_silent() {
            return;
        }
        let silent: Vec<ConnId> = self
            .conns
            .iter()
            .filter(|(_, c)| c.setup.is_some() && c.detection.is_none())
            .filter(|(_, c)| now.saturating_duration_since(c.last_active) >= self.settings.silence)
            .map(|(conn, _)| *conn)
            .collect();
        for conn in silent {
            self.detect(conn, now);
        }
    }

    pub(super) fn expire_detections(&mut self, now: Instant) {
        let dead: Vec<ConnId> = self
            .conns
            .iter()
            .filter(|(_, c)| c.detection.as_ref().is_some_and(|(_, until)| *until <= now))
            .map(|(conn, _)| *conn)
            .collect();
        for conn in dead {
            self.end_stream(conn, StreamEnd::Clean, now);
        }
    }
}

/// What a setup says, and whether it wants to negotiate abilities: any table will do, an empty one
/// included.
fn read_setup(frame: &Frame) -> Result<(Setup, bool), Malformed> {
    let fields = Fields::parse(&frame.body)?;
    let setup = Setup {
        client_version: fields.text("clientVersion")?.unwrap_or_default(),
        tenant: fields.text("tenant")?.unwrap_or_default(),
        labels: fields.texts("labels")?,
    };
    let negotiates = fields.raw("abilityTable").is_some_and(Value::is_object);
    Ok((setup, negotiates))
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

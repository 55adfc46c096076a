use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::{ConnId, Machine, ServiceId};

/// What goes wrong with one message.
///
/// For an answer, everything but `Refuse`, `RefuseAsError` and `Fail` happens after the request
/// took effect. For a frame on the stream those three mean nothing and leave it as it is.
///
/// Example: [a registry](crate::testing)
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Fault {
    /// Never sent. The server takes a dropped push as acknowledged and does not repeat it; a
    /// dropped answer leaves the caller to its timeout; a dropped setup registers nobody.
    Drop,
    /// Sent this much later; what follows on the same stream waits behind it.
    Delay(Duration),
    /// Sent twice. Frames on the stream only.
    Duplicate,
    /// Not done; the expected type of answer with `resultCode` 500 and this `errorCode`.
    Refuse(i32),
    /// Not done; an `ErrorResponse` with this `errorCode`.
    RefuseAsError(i32),
    /// Not done; the call ends with this gRPC status. On `ConnectionSetupRequest`: the stream does.
    Fail(i32),
    /// The body cut off in the middle.
    Truncate,
    /// A weight that reads `NaN`, which is no JSON.
    BareNan,
    /// The first instance has an object for a port and a list for a weight.
    WrongTypes,
    /// A byte in the body that is no UTF-8.
    InvalidUtf8,
    /// `hosts` is the empty list.
    EmptyHosts,
    /// `hosts` is null.
    NullHosts,
    /// No `serviceInfo` at all.
    NoServiceInfo,
    /// Another body, whatever it is.
    Body(Bytes),
}

/// Which messages a [`Fault`] befalls, and how often.
///
/// The kind is the type of the request whose answer is meant, `SubscribeServiceRequest` say, or
/// that of a frame of the server's on the stream: `NotifySubscriberRequest`, `SetupAckRequest`,
/// `ClientDetectionRequest`, `ConnectResetRequest`; or `ConnectionSetupRequest`, the one message
/// of a client's stream that can be delayed, dropped and failed.
///
/// Example: [a registry](crate::testing)
#[derive(Clone, Debug, PartialEq)]
pub struct Script {
    kind: String,
    service: Option<ServiceId>,
    conn: Option<ConnId>,
    times: Option<u32>,
    fault: Fault,
}

impl Script {
    /// The next message of this kind, whoever it is for.
    pub fn next(kind: impl Into<String>, fault: Fault) -> Self {
        Self {
            kind: kind.into(),
            service: None,
            conn: None,
            times: Some(1),
            fault,
        }
    }

    /// Every message of this kind until the scripts are cleared.
    pub fn every(kind: impl Into<String>, fault: Fault) -> Self {
        Self {
            times: None,
            ..Self::next(kind, fault)
        }
    }

    /// The next push.
    pub fn next_push(fault: Fault) -> Self {
        Self::next("NotifySubscriberRequest", fault)
    }

    /// Every push until the scripts are cleared.
    pub fn every_push(fault: Fault) -> Self {
        Self::every("NotifySubscriberRequest", fault)
    }

    /// Only messages about this service.
    #[must_use]
    pub fn of_service(mut self, service: impl Into<ServiceId>) -> Self {
        self.service = Some(service.into());
        self
    }

    /// Only messages from or to this connection.
    #[must_use]
    pub fn on_connection(mut self, conn: ConnId) -> Self {
        self.conn = Some(conn);
        self
    }

    /// The next `times` messages.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }
}

impl Machine {
    /// Lets a fault happen. Scripts are tried in the order in which they were given; the first that
    /// fits a message is the one that befalls it.
    pub fn script(&mut self, script: Script) {
        self.scripts.push(script);
    }

    /// Forgets all faults that have not happened yet.
    pub fn clear_scripts(&mut self) {
        self.scripts.clear();
    }

    pub(super) fn take_fault(
        &mut self,
        kind: &str,
        service: Option<&ServiceId>,
        conn: ConnId,
    ) -> Option<Fault> {
        let at = self.scripts.iter().position(|script| {
            script.kind == kind
                && script.service.as_ref().is_none_or(|s| Some(s) == service)
                && script.conn.is_none_or(|c| c == conn)
        })?;
        let script = &mut self.scripts[at];
        let fault = script.fault.clone();
        if let Some(times) = &mut script.times {
            *times = times.saturating_sub(1);
            if *times == 0 {
                self.scripts.remove(at);
            }
        }
        Some(fault)
    }
}

impl Fault {
    /// What becomes of a message's body.
    pub(super) fn tamper(&self, body: Bytes) -> Bytes {
        match self {
            Self::Truncate => body.slice(..body.len() / 2),
            Self::BareNan => bare_nan(&body),
            Self::WrongTypes => edit(&body, |info| {
                if let Some(first) = info.pointer_mut("/hosts/0") {
                    first["port"] = json!({});
                    first["weight"] = json!([]);
                } else {
                    info["hosts"] = json!("none");
                }
            }),
            Self::InvalidUtf8 => {
                let mut bytes = body.to_vec();
                // Inside the name of the first field, where no parser gets round it.
                bytes.insert(bytes.len().min(2), 0xff);
                bytes.into()
            }
            Self::EmptyHosts => edit(&body, |info| info["hosts"] = json!([])),
            Self::NullHosts => edit(&body, |info| info["hosts"] = Value::Null),
            Self::NoServiceInfo => edit_body(&body, |whole| {
                whole
                    .as_object_mut()
                    .map(|whole| whole.remove("serviceInfo"));
            }),
            Self::Body(other) => other.clone(),
            _ => body,
        }
    }
}

fn bare_nan(body: &Bytes) -> Bytes {
    let text = String::from_utf8_lossy(body);
    let (before, after) = match text.split_once("\"weight\":") {
        Some((before, after)) => {
            let end = after.find([',', '}']).unwrap_or(after.len());
            (format!("{before}\"weight\":NaN"), after[end..].to_owned())
        }
        None => {
            let (before, after) = text.split_at(text.len().min(1));
            (format!("{before}\"weight\":NaN,"), after.to_owned())
        }
    };
    format!("{before}{after}").into()
}

fn edit(body: &Bytes, change: impl FnOnce(&mut Value)) -> Bytes {
    edit_body(body, |whole| {
        if let Some(info) = whole.get_mut("serviceInfo").filter(|info| info.is_object()) {
            change(info);
        }
    })
}

fn edit_body(body: &Bytes, change: impl FnOnce(&mut Value)) -> Bytes {
    match serde_json::from_slice::<Value>(body) {
        Ok(mut whole) => {
            change(&mut whole);
            whole.to_string().into()
        }
        Err(_) => body.clone(),
    }
}

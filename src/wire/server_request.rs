use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    body::Text,
    envelope::Payload,
    error::DecodeError,
    scan,
    service_info::{RawHost, ServiceInfo},
};
use crate::model::{Listing, ServiceName};

/// What a server sends on the stream by itself.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ServerRequest {
    /// The setup is done. Not to be answered.
    SetupAck,
    /// "Are you there?" Unanswered for 5 s, the server drops the connection.
    ClientDetection,
    /// "Go to another server", possibly a named one.
    ConnectReset {
        server: Option<(String, Option<u16>)>,
    },
    /// A service's new list. `None` is a push without one (`hosts: null`), which says nothing.
    Notify {
        service: ServiceName,
        listing: Option<Listing>,
    },
    /// A type that this client does not know.
    Other(String),
}

#[derive(Deserialize)]
#[serde(
    rename_all = "camelCase",
    bound(deserialize = "H: Deserialize<'de>, 'de: 'a")
)]
struct NotifyBody<'a, H> {
    /// Read in the same pass. Whatever stands there spoils no list.
    #[serde(default, borrow)]
    request_id: Option<&'a RawValue>,
    service_info: Option<ServiceInfo<'a, H>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResetBody<'a> {
    #[serde(default, borrow)]
    server_ip: Option<Text<'a>>,
    #[serde(default, borrow)]
    server_port: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RequestId<'a> {
    #[serde(default, borrow)]
    request_id: Option<Text<'a>>,
}

impl ServerRequest {
    /// The request, and the id that its acknowledgement must repeat: as far as the message can be
    /// read, and also of one that cannot be used.
    pub(crate) fn decode(payload: &Payload) -> (Option<String>, Result<Self, DecodeError>) {
        match payload.kind() {
            "NotifySubscriberRequest" => decode_notify(payload),
            kind => (request_id(payload), Ok(Self::of_kind(kind, payload))),
        }
    }

    fn of_kind(kind: &str, payload: &Payload) -> Self {
        match kind {
            "SetupAckRequest" => Self::SetupAck,
            "ClientDetectionRequest" => Self::ClientDetection,
            "ConnectResetRequest" => {
                // The address is advice: a body that cannot be read still means "go".
                let server = serde_json::from_slice::<ResetBody<'_>>(payload.json())
                    .ok()
                    .and_then(|body| {
                        let port = body.server_port.and_then(|text| text.0.parse().ok());
                        Some((body.server_ip?.0.into_owned(), port))
                    })
                    .filter(|(ip, _)| !ip.is_empty());
                Self::ConnectReset { server }
            }
            other => Self::Other(other.to_owned()),
        }
    }
}

fn request_id(payload: &Payload) -> Option<String> {
    match serde_json::from_slice::<RequestId<'_>>(payload.json()) {
        Ok(body) => body.request_id.map(|text| text.0.into_owned()),
        Err(_) => scan::string_after(payload.json(), "requestId").map(str::to_owned),
    }
}

/// The acknowledgement of the request `kind` with `request_id`; `code` 200 is success.
pub(crate) fn ack(kind: &str, request_id: Option<&str>, code: i32) -> Payload {
    let kind = kind.strip_suffix("Request").unwrap_or(kind);
    let kind = match kind {
        // Java answers both fuzzy-watch requests with the one type.
        "NamingFuzzyWatchSync" => "NamingFuzzyWatchChangeNotify",
        other => other,
    };
    let json = serde_json::json!({
        "resultCode": code,
        "errorCode": 0,
        "requestId": request_id,
        "success": code == 200,
    });
    Payload::new(&format!("{kind}Response"), json.to_string())
}

fn decode_notify(payload: &Payload) -> (Option<String>, Result<ServerRequest, DecodeError>) {
    let json = payload.json();
    if let Ok(body) = serde_json::from_slice::<NotifyBody<'_, RawHost<'_>>>(json) {
        let id = body.request_id.and_then(text_of);
        return (
            id,
            notify(payload, body.service_info, ServiceInfo::into_listing),
        );
    }
    let text = String::from_utf8_lossy(json);
    let lossy = matches!(text, std::borrow::Cow::Owned(_));
    match serde_json::from_str::<NotifyBody<'_, &RawValue>>(&text) {
        Ok(body) => {
            let id = body.request_id.and_then(text_of);
            let list = |info: ServiceInfo<'_, _>| info.into_listing_leniently(lossy);
            (id, notify(payload, body.service_info, list))
        }
        Err(error) => (request_id(payload), Err(unusable(payload, &error))),
    }
}

fn notify<'a, H>(
    payload: &Payload,
    info: Option<ServiceInfo<'a, H>>,
    list: impl FnOnce(ServiceInfo<'a, H>) -> Option<Listing>,
) -> Result<ServerRequest, DecodeError> {
    let info = info.ok_or_else(|| unusable(payload, &"it carries no serviceInfo"))?;
    let service = info.service().map_err(|error| unusable(payload, &error))?;
    let listing = list(info);
    Ok(ServerRequest::Notify { service, listing })
}

fn unusable(payload: &Payload, what: &dyn ToString) -> DecodeError {
    let service = service_in_ruins(payload.json());
    DecodeError::new(payload.kind(), what.to_string()).about(service)
}

/// The text of a JSON value, if it is one.
fn text_of(value: &RawValue) -> Option<String> {
    let text = serde_json::from_str::<Text<'_>>(value.get()).ok()?;
    Some(text.0.into_owned())
}

/// Which service a broken push was about, so that it can be asked for.
fn service_in_ruins(json: &[u8]) -> Option<ServiceName> {
    let name = scan::string_after(json, "name")?;
    if name.contains("@@") {
        return name.parse().ok();
    }
    ServiceName::new(scan::string_after(json, "groupName")?, name).ok()
}

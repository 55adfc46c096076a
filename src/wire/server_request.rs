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
    pub(crate) fn decode(payload: &Payload) -> Result<Self, DecodeError> {
        match payload.kind() {
            "SetupAckRequest" => Ok(Self::SetupAck),
            "ClientDetectionRequest" => Ok(Self::ClientDetection),
            "NotifySubscriberRequest" => decode_notify(payload),
            "ConnectResetRequest" => {
                // The address is advice: a body that cannot be read still means "go".
                let server = serde_json::from_slice::<ResetBody<'_>>(payload.json())
                    .ok()
                    .and_then(|body| {
                        let port = body.server_port.and_then(|text| text.0.parse().ok());
                        Some((body.server_ip?.0.into_owned(), port))
                    })
                    .filter(|(ip, _)| !ip.is_empty());
                Ok(Self::ConnectReset { server })
            }
            other => Ok(Self::Other(other.to_owned())),
        }
    }
}

/// The id that an acknowledgement must repeat, as far as the message can be read.
pub(crate) fn request_id(payload: &Payload) -> Option<String> {
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

fn decode_notify(payload: &Payload) -> Result<ServerRequest, DecodeError> {
    let json = payload.json();
    let error = |what: &dyn ToString| {
        DecodeError::new(payload.kind(), what.to_string()).about(service_in_ruins(json))
    };
    let missing = "it carries no serviceInfo";
    if let Ok(body) = serde_json::from_slice::<NotifyBody<'_, RawHost<'_>>>(json) {
        let info = body.service_info.ok_or_else(|| error(&missing))?;
        let service = info.service().map_err(|e| error(&e))?;
        return Ok(ServerRequest::Notify {
            service,
            listing: info.into_listing(),
        });
    }
    let text = String::from_utf8_lossy(json);
    let lossy = matches!(text, std::borrow::Cow::Owned(_));
    let body: NotifyBody<'_, &RawValue> = serde_json::from_str(&text).map_err(|e| error(&e))?;
    let info = body.service_info.ok_or_else(|| error(&missing))?;
    let service = info.service().map_err(|e| error(&e))?;
    Ok(ServerRequest::Notify {
        service,
        listing: info.into_listing_leniently(lossy),
    })
}

/// Which service a broken push was about, so that it can be asked for.
fn service_in_ruins(json: &[u8]) -> Option<ServiceName> {
    let name = scan::string_after(json, "name")?;
    if name.contains("@@") {
        return name.parse().ok();
    }
    ServiceName::new(scan::string_after(json, "groupName")?, name).ok()
}

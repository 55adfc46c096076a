use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    body::Text,
    envelope::Payload,
    error::DecodeError,
    head::head,
    json,
    kept::{Kept, WORTH},
    scan,
    service_info::{RawHost, ServiceInfo},
};
use crate::model::{Listing, ServiceName};

/// What a server sends on the stream by itself.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ServerRequest {
    /// The setup is done. Not to be answered.
    SetupAck {
        /// Whether the server tells of services by patterns.
        fuzzy_watch: bool,
    },
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
    /// What a server knows of the services that a watched pattern takes, in batches.
    FuzzySync(FuzzySync),
    /// A service came or went that a watched pattern takes.
    FuzzyChange(WatchedService),
    /// A type that this client does not know.
    Other(String),
}

/// A batch of services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FuzzySync {
    /// `namespace>>group>>name`.
    pub(crate) pattern: String,
    /// What differs from what the request said that is known. None where nothing does.
    pub(crate) services: Vec<WatchedService>,
    /// Whether that was the last batch.
    pub(crate) is_finished: bool,
}

/// A service that a watched pattern takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WatchedService {
    pub(crate) namespace: String,
    pub(crate) service: ServiceName,
    /// Whether there is one; else it is gone.
    pub(crate) exists: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SetupAckBody {
    #[serde(default)]
    ability_table: Option<Abilities>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Abilities {
    #[serde(default)]
    fuzzy_watch: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FuzzySyncBody<'a> {
    #[serde(default, borrow)]
    sync_type: Option<Text<'a>>,
    #[serde(borrow)]
    group_key_pattern: Text<'a>,
    #[serde(default, borrow)]
    contexts: Option<Vec<FuzzyContext<'a>>>,
}

/// Also the whole body of a change.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FuzzyContext<'a> {
    #[serde(default, borrow)]
    service_key: Option<Text<'a>>,
    #[serde(default, borrow)]
    changed_type: Option<Text<'a>>,
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
    #[cfg(test)]
    pub(crate) fn decode(payload: &Payload) -> (Option<String>, Result<Self, DecodeError>) {
        Self::decode_with(payload, |_| None)
    }

    /// The same, where `kept` has what is kept of a service's hosts: of a list of that service only what
    /// changed is decoded. What comes of it is the same.
    pub(crate) fn decode_with<'k>(
        payload: &Payload,
        kept: impl FnOnce(&ServiceName) -> Option<&'k mut Kept>,
    ) -> (Option<String>, Result<Self, DecodeError>) {
        if payload.kind() == "NotifySubscriberRequest" && payload.json().len() < WORTH {
            return decode_notify(payload);
        }
        Self::decode_against(payload, kept)
    }

    /// The same, of a message of any length.
    pub(super) fn decode_against<'k>(
        payload: &Payload,
        kept: impl FnOnce(&ServiceName) -> Option<&'k mut Kept>,
    ) -> (Option<String>, Result<Self, DecodeError>) {
        match payload.kind() {
            "NotifySubscriberRequest" => {
                decode_changes(payload, kept).unwrap_or_else(|| decode_notify(payload))
            }
            "NamingFuzzyWatchSyncRequest" => (request_id(payload), decode_sync(payload)),
            "NamingFuzzyWatchChangeNotifyRequest" => (request_id(payload), decode_change(payload)),
            kind => (request_id(payload), Ok(Self::of_kind(kind, payload))),
        }
    }

    fn of_kind(kind: &str, payload: &Payload) -> Self {
        match kind {
            "SetupAckRequest" => {
                // Abilities that cannot be read are none.
                let body = serde_json::from_slice::<SetupAckBody>(payload.json()).ok();
                let abilities = body.and_then(|body| body.ability_table);
                Self::SetupAck {
                    fuzzy_watch: abilities.and_then(|table| table.fuzzy_watch) == Some(true),
                }
            }
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

/// Decodes what changed since the last list. `None` where that is not all there is to it: then it is
/// for [`decode_notify`] to say what the message is.
fn decode_changes<'k>(
    payload: &Payload,
    kept: impl FnOnce(&ServiceName) -> Option<&'k mut Kept>,
) -> Option<(Option<String>, Result<ServerRequest, DecodeError>)> {
    let json = payload.json();
    let head = head(json)?;
    let (rest, read) = kept(&head.service)?.read(json, head.hosts)?;
    let body: NotifyBody<'_, &RawValue> = json::read(&rest).ok()?;
    let info = body.service_info?;
    let service = info.service().ok()?;
    let listing = Some(read.into_listing(&rest, &info)?);
    let id = body.request_id.and_then(text_of);
    Some((id, Ok(ServerRequest::Notify { service, listing })))
}

fn decode_notify(payload: &Payload) -> (Option<String>, Result<ServerRequest, DecodeError>) {
    let json = payload.json();
    if let Ok(body) = json::read::<NotifyBody<'_, Vec<RawHost<'_>>>>(json) {
        let id = body.request_id.and_then(text_of);
        return (
            id,
            notify(payload, body.service_info, ServiceInfo::into_listing),
        );
    }
    let text = String::from_utf8_lossy(json);
    let lossy = matches!(text, Cow::Owned(_));
    match serde_json::from_str::<NotifyBody<'_, Vec<&RawValue>>>(&text) {
        Ok(body) => {
            let id = body.request_id.and_then(text_of);
            let list = |info: ServiceInfo<'_, _>| info.into_listing_leniently(lossy);
            (id, notify(payload, body.service_info, list))
        }
        Err(error) => (request_id(payload), Err(unusable(payload, &error))),
    }
}

fn decode_sync(payload: &Payload) -> Result<ServerRequest, DecodeError> {
    let body: FuzzySyncBody<'_> = read(payload)?;
    let kind = body.sync_type.map_or(Cow::Borrowed(""), |text| text.0);
    // A key that cannot be read is of a service that nobody could subscribe to.
    let contexts = body.contexts.into_iter().flatten();
    let services = contexts.filter_map(FuzzyContext::read).collect();
    Ok(ServerRequest::FuzzySync(FuzzySync {
        pattern: body.group_key_pattern.0.into_owned(),
        services,
        is_finished: kind == "FINISH_FUZZY_WATCH_INIT_NOTIFY",
    }))
}

fn decode_change(payload: &Payload) -> Result<ServerRequest, DecodeError> {
    let body: FuzzyContext<'_> = read(payload)?;
    let change = body.read();
    let unusable = || DecodeError::new(payload.kind(), "it names no service, or no change");
    change.map(ServerRequest::FuzzyChange).ok_or_else(unusable)
}

fn read<'a, T: Deserialize<'a>>(payload: &'a Payload) -> Result<T, DecodeError> {
    serde_json::from_slice(payload.json()).map_err(|error| DecodeError::new(payload.kind(), error))
}

impl FuzzyContext<'_> {
    /// From `namespace@@group@@name` and what happened to it.
    fn read(self) -> Option<WatchedService> {
        let exists = match &*self.changed_type?.0 {
            "ADD_SERVICE" => true,
            "DELETE_SERVICE" => false,
            _ => return None, // of instances, not of services
        };
        let key = self.service_key?.0;
        let (namespace, rest) = key.split_once("@@")?;
        let (group, name) = rest.split_once("@@")?;
        Some(WatchedService {
            namespace: namespace.to_owned(),
            service: ServiceName::new(group, name).ok()?,
            exists,
        })
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

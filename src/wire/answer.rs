use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    body::Text,
    envelope::Payload,
    error::DecodeError,
    head::head,
    json,
    kept::{Kept, Read, WORTH},
    service_info::{RawHost, ServiceInfo},
};
use crate::model::{Listing, ServiceName};

/// What a server answered to a unary request, when it succeeded.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    ServerCheck {
        connection_id: Option<String>,
        /// Whether the server will acknowledge the setup with its abilities (2.3 and later).
        negotiates: bool,
    },
    /// Also the answer to an unsubscription.
    Subscribe {
        /// The service, if the answer names it in full.
        service: Option<ServiceName>,
        /// `None` if the answer carries no list.
        listing: Option<Listing>,
    },
    Query {
        service: Option<ServiceName>,
        listing: Option<Listing>,
    },
    List {
        count: u64,
        names: Vec<String>,
    },
    /// Any other success: of a health check, a registration.
    Done,
}

impl Answer {
    /// The server's stamp of the list that it carries; 0 if there is none.
    pub(crate) fn stamp(&self) -> i64 {
        match self {
            Self::Subscribe { listing, .. } | Self::Query { listing, .. } => {
                listing.as_ref().map_or(0, Listing::stamp)
            }
            _ => 0,
        }
    }
}

/// A refusal: `ErrorResponse`, or the expected type with a result code that is not 200.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server answered {code}{}", saying(message))]
pub(crate) struct ServerError {
    pub(crate) code: i32,
    pub(crate) message: String,
}

/// What a server said beside a code: often nothing.
fn saying(message: &str) -> String {
    if message.trim().is_empty() {
        return " and no word".to_owned();
    }
    format!(": {message}")
}

const SUCCESS: i32 = 200;

#[derive(Deserialize)]
#[serde(
    rename_all = "camelCase",
    bound(deserialize = "H: Deserialize<'de>, 'de: 'a")
)]
struct Body<'a, H> {
    #[serde(default)]
    result_code: Option<i32>,
    #[serde(default)]
    error_code: Option<i32>,
    #[serde(default, borrow)]
    message: Option<Text<'a>>,
    #[serde(default, borrow)]
    connection_id: Option<Text<'a>>,
    #[serde(default)]
    support_ability_negotiation: Option<bool>,
    #[serde(default)]
    service_info: Option<ServiceInfo<'a, H>>,
    #[serde(default)]
    count: Option<u64>,
    #[serde(default)]
    service_names: Option<Vec<String>>,
}

impl Answer {
    /// Reads an answer. The outer error means that the server said something unreadable, the
    /// inner one that it refused.
    pub(crate) fn decode(payload: &Payload) -> Result<Result<Self, ServerError>, DecodeError> {
        Self::decode_with(payload, None)
    }

    /// The same of an answer that may carry a service's list, of whose hosts something is `kept`: only what
    /// changed is decoded. What comes of it is the same.
    pub(crate) fn decode_with(
        payload: &Payload,
        kept: Option<&mut Kept>,
    ) -> Result<Result<Self, ServerError>, DecodeError> {
        match kept {
            Some(kept) if payload.json().len() < WORTH => Self::decode_short(payload, kept),
            kept => Self::decode_against(payload, kept),
        }
    }

    /// The same, of a message that is decoded as a whole unless its list is the one that was read last.
    pub(super) fn decode_short(
        payload: &Payload,
        kept: &mut Kept,
    ) -> Result<Result<Self, ServerError>, DecodeError> {
        let json = payload.json();
        let at = head(json).map(|head| head.hosts);
        let same = at.and_then(|at| kept.read_same(json, at));
        if let Some(answer) = same.and_then(|(rest, read)| Self::around(payload, &rest, read)) {
            return Ok(answer);
        }
        let answer = Self::decode_whole(payload);
        if let Ok(Ok(Self::Subscribe { listing, .. } | Self::Query { listing, .. })) = &answer
            && let Some(listing) = listing
        {
            kept.note(json, at, listing);
        }
        answer
    }

    /// The same, of a message of any length.
    pub(super) fn decode_against(
        payload: &Payload,
        kept: Option<&mut Kept>,
    ) -> Result<Result<Self, ServerError>, DecodeError> {
        let changes = kept.and_then(|kept| Self::changes(payload, kept));
        changes.map_or_else(|| Self::decode_whole(payload), Ok)
    }

    /// Decodes what changed since the last list. `None` where that is not all there is to it: then it
    /// is for [`decode_whole`](Self::decode_whole) to say what the message is.
    fn changes(payload: &Payload, kept: &mut Kept) -> Option<Result<Self, ServerError>> {
        let json = payload.json();
        let (rest, read) = kept.read(json, head(json)?.hosts)?;
        Self::around(payload, &rest, read)
    }

    /// The answer whose list was read apart from the rest.
    fn around(payload: &Payload, rest: &[u8], read: Read) -> Option<Result<Self, ServerError>> {
        let body: Body<'_, &RawValue> = json::read(rest).ok()?;
        let listing = read.into_listing(rest, body.service_info.as_ref()?)?;
        Some(body.into_answer(payload.kind(), |_| Some(listing)))
    }

    fn decode_whole(payload: &Payload) -> Result<Result<Self, ServerError>, DecodeError> {
        let kind = payload.kind();
        match json::read::<Body<'_, Vec<RawHost<'_>>>>(payload.json()) {
            Ok(body) => Ok(body.into_answer(kind, ServiceInfo::into_listing)),
            Err(_) => {
                let text = String::from_utf8_lossy(payload.json());
                let lossy = matches!(text, std::borrow::Cow::Owned(_));
                let body: Body<'_, Vec<&RawValue>> =
                    serde_json::from_str(&text).map_err(|e| DecodeError::new(kind, e))?;
                Ok(body.into_answer(kind, |info| info.into_listing_leniently(lossy)))
            }
        }
    }
}

impl<'a, H> Body<'a, H> {
    fn into_answer(
        self,
        kind: &str,
        listing: impl FnOnce(ServiceInfo<'a, H>) -> Option<Listing>,
    ) -> Result<Answer, ServerError> {
        // Java's default is success, and Jackson leaves defaults out on some paths.
        let result = self.result_code.unwrap_or(SUCCESS);
        if result != SUCCESS || kind == "ErrorResponse" {
            let code = self.error_code.filter(|code| *code != 0).unwrap_or(result);
            let message = self
                .message
                .map(|text| text.0.into_owned())
                .unwrap_or_default();
            return Err(ServerError { code, message });
        }
        Ok(match kind {
            "ServerCheckResponse" => Answer::ServerCheck {
                connection_id: self.connection_id.map(|text| text.0.into_owned()),
                negotiates: self.support_ability_negotiation.unwrap_or(false),
            },
            "SubscribeServiceResponse" => Answer::Subscribe {
                service: self
                    .service_info
                    .as_ref()
                    .and_then(ServiceInfo::named_in_full),
                listing: self.service_info.and_then(listing),
            },
            "QueryServiceResponse" => Answer::Query {
                service: self
                    .service_info
                    .as_ref()
                    .and_then(ServiceInfo::named_in_full),
                listing: self.service_info.and_then(listing),
            },
            "ServiceListResponse" => Answer::List {
                count: self.count.unwrap_or(0),
                names: self.service_names.unwrap_or_default(),
            },
            _ => Answer::Done,
        })
    }
}

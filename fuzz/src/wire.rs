//! The files of `src/wire`, and the comparison, which has to see into them.

#[path = "../../src/wire/answer.rs"]
mod answer;
#[path = "../../src/wire/body.rs"]
mod body;
#[path = "../../src/wire/common.rs"]
mod common;
#[path = "../../src/wire/envelope.rs"]
mod envelope;
#[path = "../../src/wire/equal.rs"]
mod equal;
#[path = "../../src/wire/error.rs"]
mod error;
#[path = "../../src/wire/head.rs"]
mod head;
#[path = "../../src/wire/json.rs"]
mod json;
#[path = "../../src/wire/kept.rs"]
mod kept;
#[path = "../../src/wire/scan.rs"]
mod scan;
#[path = "../../src/wire/server_request.rs"]
mod server_request;
#[path = "../../src/wire/service_info.rs"]
mod service_info;
#[path = "../../src/wire/short.rs"]
mod short;

use prost::Message;
use serde::de::IgnoredAny;

use self::{
    answer::Answer, envelope::Payload, error::DecodeError, kept::Kept,
    server_request::ServerRequest,
};
use crate::model::Listing;

const PUSH: &str = "NotifySubscriberRequest";
/// Answers that carry a list, and one that may not.
const ANSWERS: [&str; 2] = ["SubscribeServiceResponse", "ErrorResponse"];

/// Reads the lists of one service, one after the other.
#[derive(Debug, Default)]
pub struct Reader {
    kept: Kept,
    /// Where each message counts as a short one.
    short: Kept,
}

impl Reader {
    /// Reads one message in every way and panics if they differ.
    pub fn read(&mut self, json: &[u8]) {
        let json = bytes::Bytes::copy_from_slice(json);
        self.push(&Payload::new(PUSH, json.clone()));
        // One of them, whichever: each is decoded twice, and time is what fuzzing has too little of.
        let kind = ANSWERS[json.len() % ANSWERS.len()];
        self.answer(&Payload::new(kind, json));
    }

    fn push(&mut self, payload: &Payload) {
        let (id, request) = ServerRequest::decode_against(payload, |_| Some(&mut self.kept));
        let (whole_id, whole) = ServerRequest::decode_against(payload, |_| None);
        assert_eq!(id, whole_id);
        same(&request, &whole);
        if let Ok(ServerRequest::Notify { listing, .. }) = &request {
            sound(payload, listing.as_ref());
            let listing = listing.as_ref();
            let instances = listing.map_or(&[][..], Listing::instances);
            self.kept.listed(instances);
            self.short.listed(instances);
        }
    }

    fn answer(&mut self, payload: &Payload) {
        let answer = Answer::decode_against(payload, Some(&mut self.kept));
        let whole = Answer::decode_against(payload, None);
        same(&answer, &whole);
        // The first of these may be decoded, and the second is not if it is short.
        same(&Answer::decode_short(payload, &mut self.short), &whole);
        same(&Answer::decode_short(payload, &mut self.short), &whole);
        if let Ok(Ok(Answer::Subscribe { listing, .. } | Answer::Query { listing, .. })) = &answer {
            sound(payload, listing.as_ref());
        }
    }
}

/// Reads bytes as a client does that gets them from a server, whatever they claim to be.
pub fn frame(bytes: &[u8], reader: &mut Reader) {
    let Ok(payload) = Payload::decode(bytes) else {
        return;
    };
    reader.push(&payload);
    reader.answer(&payload);
    reader.read(payload.json());
}

/// Errors by their words: both ways end in the same place.
fn same<T>(one: &Result<T, DecodeError>, other: &Result<T, DecodeError>)
where
    T: std::fmt::Debug + PartialEq,
{
    assert_eq!(one, other);
}

/// What gave a list is JSON, as soon as what is not UTF-8 in it is replaced; and whom it lists can be dialled.
fn sound(payload: &Payload, listing: Option<&Listing>) {
    let text = String::from_utf8_lossy(payload.json());
    serde_json::from_str::<IgnoredAny>(&text).expect("what gave a list is JSON");
    for instance in listing.map_or(&[][..], Listing::instances) {
        assert_ne!(instance.address().port(), 0);
        assert!(instance.address().host().own().is_none());
    }
}

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use prost::Message;

use crate::wire::{Any, Payload, PayloadMetadata};

/// One message of either direction: what Nacos calls a payload, taken apart.
///
/// [`Machine`](super::Machine) takes and gives encoded payloads; this reads and builds them. The
/// body is what travelled, JSON text as a rule, and is not checked.
///
/// ```
/// use tower_nacos::testing::Frame;
///
/// let frame = Frame::new("HealthCheckRequest", "{}").with_header("user", "nobody");
/// assert_eq!(Frame::decode(&frame.encode())?.text(), "{}");
/// # Ok::<(), tower_nacos::testing::machine::NotAPayload>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Frame {
    /// The simple name of the body's class, `SubscribeServiceRequest` say.
    pub kind: String,
    /// The headers beside the body: application name, access token.
    pub headers: BTreeMap<String, String>,
    /// The address that the sender says is its own; empty in answers.
    pub client_ip: String,
    /// The body's bytes.
    pub body: Bytes,
}

/// The bytes are no protobuf `Payload`.
///
/// Example: [encoded and read again](crate::testing::Frame)
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a Nacos payload: {0}")]
pub struct NotAPayload(String);

impl Frame {
    /// A frame without headers.
    pub fn new(kind: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self {
            kind: kind.into(),
            body: body.into(),
            ..Self::default()
        }
    }

    /// Adds a header.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// Reads an encoded payload.
    ///
    /// # Errors
    ///
    /// If the bytes are no protobuf message of this shape. A body that is no JSON is no error here.
    pub fn decode(payload: &[u8]) -> Result<Self, NotAPayload> {
        let payload = Payload::decode(payload).map_err(|e| NotAPayload(e.to_string()))?;
        let metadata = payload.metadata.unwrap_or_default();
        Ok(Self {
            kind: metadata.kind,
            headers: metadata.headers.into_iter().collect(),
            client_ip: metadata.client_ip,
            body: payload.body.map(|body| body.value).unwrap_or_default(),
        })
    }

    /// The payload's bytes, without gRPC's five-byte prefix.
    pub fn encode(&self) -> Bytes {
        let payload = Payload {
            metadata: Some(PayloadMetadata {
                kind: self.kind.clone(),
                client_ip: self.client_ip.clone(),
                headers: self.headers.clone().into_iter().collect(),
            }),
            body: Some(Any {
                type_url: String::new(),
                value: self.body.clone(),
            }),
        };
        payload.encode_to_vec().into()
    }

    /// The body as text; what is no UTF-8 in it is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The value at a JSON pointer (`/labels/module`) of the body: a string as it is, anything
    /// else as JSON text; `None` if there is none or the body is no JSON.
    pub fn field(&self, pointer: &str) -> Option<String> {
        let body: serde_json::Value = serde_json::from_slice(&self.body).ok()?;
        match body.pointer(pointer)? {
            serde_json::Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.text())
    }
}

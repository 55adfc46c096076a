use std::collections::HashMap;

use bytes::Bytes;

/// The one protobuf message that travels in either direction of both calls.
///
/// `nacos_grpc_service.proto` has no package; the field numbers are its own.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Payload {
    #[prost(message, optional, tag = "2")]
    pub(crate) metadata: Option<PayloadMetadata>,
    #[prost(message, optional, tag = "3")]
    pub(crate) body: Option<Any>,
}

/// Names the type of the body and carries the request's headers.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PayloadMetadata {
    #[prost(string, tag = "3")]
    pub(crate) kind: String,
    #[prost(string, tag = "8")]
    pub(crate) client_ip: String,
    #[prost(map = "string, string", tag = "7")]
    pub(crate) headers: HashMap<String, String>,
}

/// `google.protobuf.Any`, whose value is JSON text and whose type URL is always empty.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Any {
    #[prost(string, tag = "1")]
    pub(crate) type_url: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) value: Bytes,
}

impl Payload {
    /// A payload of type `kind` whose body is the JSON text `json`.
    pub(crate) fn new(kind: &str, json: impl Into<Bytes>) -> Self {
        Self {
            metadata: Some(PayloadMetadata {
                kind: kind.to_owned(),
                ..Default::default()
            }),
            body: Some(Any {
                type_url: String::new(),
                value: json.into(),
            }),
        }
    }

    /// The type of the body (a Java simple class name), empty if the payload has none.
    pub(crate) fn kind(&self) -> &str {
        self.metadata.as_ref().map_or("", |metadata| &metadata.kind)
    }

    /// The JSON text, empty if the payload has no body.
    pub(crate) fn json(&self) -> &[u8] {
        self.body.as_ref().map_or(&[], |body| &body.value)
    }
}

use crate::model::ServiceName;

/// A message from a server that could not be read. Nothing changed by it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} cannot be read: {what}", named(kind))]
pub(crate) struct DecodeError {
    kind: String,
    what: String,
    service: Option<ServiceName>,
}

/// The kind of a message, which may have none.
fn named(kind: &str) -> &str {
    if kind.is_empty() {
        return "a message of no type";
    }
    kind
}

impl DecodeError {
    pub(super) fn new(kind: &str, what: impl ToString) -> Self {
        Self {
            kind: kind.to_owned(),
            what: what.to_string(),
            service: None,
        }
    }

    pub(super) fn about(mut self, service: Option<ServiceName>) -> Self {
        self.service = service;
        self
    }

    /// The service that the message was about, as far as its ruins tell.
    pub(crate) const fn service(&self) -> Option<&ServiceName> {
        self.service.as_ref()
    }
}

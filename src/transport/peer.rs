use crate::{
    model::Address,
    transport::{
        error::{Error, ErrorKind, Evidence},
        form::Named,
    },
};

/// Who is called: an instance, and how it is addressed.
pub(super) struct Peer {
    pub(super) instance: Address,
    pub(super) named: Named,
    pub(super) secure: bool,
}

impl Peer {
    pub(super) fn error(
        &self,
        kind: ErrorKind,
        evidence: Evidence,
        text: impl Into<String>,
    ) -> Error {
        Error::new(&self.instance, kind, evidence, text)
    }
}

use std::fmt;

use crate::{directory::Generation, model::Address};

/// What a balancer knows an instance by: its address, and which presence of it.
///
/// An instance that left and came back is another key, so a balancer can never take one for the
/// other.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub(super) Inner);

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Inner {
    Instance(Address, Generation),
    /// The service that answers while there is no instance to call.
    Sentinel,
}

impl Key {
    pub(super) const fn instance(address: Address, generation: Generation) -> Self {
        Self(Inner::Instance(address, generation))
    }

    pub(super) const SENTINEL: Self = Self(Inner::Sentinel);

    /// The instance's address; `None` for the service that answers with an error at once while no
    /// instance can be called.
    pub const fn address(&self) -> Option<&Address> {
        match &self.0 {
            Inner::Instance(address, _) => Some(address),
            Inner::Sentinel => None,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Inner::Instance(address, _) => address.fmt(f),
            Inner::Sentinel => f.write_str("(no instance)"),
        }
    }
}

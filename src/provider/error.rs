use std::{io, sync::Arc};

use crate::{
    client::RequestError,
    model::{Address, InvalidName, ServiceKey},
};

/// Why a provider is not online. It goes on trying unless it is told to leave.
///
/// Example: [a provider](crate::provider)
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OnlineError {
    /// The service's name breaks Nacos's rules. Nothing is tried again.
    #[error(transparent)]
    InvalidName(InvalidName),
    /// The builder was given no instance. Nothing is tried again.
    #[error("there is no instance to register: give one with `.instance(..)`")]
    NoInstance,
    /// A path that no request can have was given to the builder. Nothing is tried again.
    #[error("{0:?} is no path that can be asked over HTTP")]
    InvalidPath(Box<str>),
    /// Nobody accepts connections at the address that is to be registered.
    #[error(
        "nothing answers at {address}, which is what callers will be given ({error}); is it listened on, and is it the address that others see? `check_address(false)` registers it unseen"
    )]
    Unreachable {
        /// The address.
        address: Address,
        /// What connecting to it met.
        error: Arc<io::Error>,
    },
    /// Another provider in this process provides the service with the same client, which registers
    /// one instance, or one batch, of a service.
    #[error(
        "another provider of this process registers {address} in {service} with the same client: give it both instances, or a client of its own"
    )]
    AlreadyProvided {
        /// The service.
        service: ServiceKey,
        /// The other provider's address.
        address: Address,
    },
    /// The registry did not take it, or did not answer in time.
    #[error(transparent)]
    Registry(RequestError),
    /// It goes offline, or is offline.
    #[error("the provider goes offline, or is offline")]
    Leaving,
    /// The runtime that the provider lived on is gone.
    #[error("the tokio runtime that this provider lived on is gone; build a new one")]
    RuntimeGone,
}

impl OnlineError {
    /// Whether the registry said no: nothing is registered that was not before.
    pub(super) const fn is_refusal(&self) -> bool {
        use RequestError as E;
        matches!(
            self,
            Self::AlreadyProvided { .. }
                | Self::Registry(
                    E::Refused { .. }
                        | E::Denied { .. }
                        | E::NoPort(_)
                        | E::Uncallable { .. }
                        | E::NoOwnAddress { .. }
                        | E::AlreadyRegistered(_)
                        | E::NotEphemeral(_)
                )
        )
    }

    /// Whether the provider goes on trying.
    pub const fn is_tried_again(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::AlreadyProvided { .. } | Self::Registry(_)
        )
    }
}

//! How a client says who it is: a user who logs in, or keys that sign.

use std::time::Duration;

use super::{
    auth::Token,
    login::{Login, LoginError, Target},
    secret::Secret,
};
#[cfg(feature = "ram")]
use super::{
    ram::RamCredentials,
    ram_source::{Ram, Source},
};

/// As the options have it.
#[derive(Clone, Debug)]
pub(super) enum Identity {
    User(String, Secret),
    #[cfg(feature = "ram")]
    Ram(Source),
}

/// How to come by what naming requests carry.
#[derive(Debug)]
pub(super) enum Credentials {
    User(Login),
    #[cfg(feature = "ram")]
    Ram(Ram),
}

impl Credentials {
    /// How long [`at`](Self::at) may take.
    pub(super) const fn timeout(&self) -> Duration {
        match self {
            Self::User(login) => login.timeout,
            #[cfg(feature = "ram")]
            Self::Ram(ram) => ram.timeout,
        }
    }

    /// Whether requests are to be signed one by one.
    pub(super) const fn signs(&self) -> bool {
        match self {
            Self::User(_) => false,
            #[cfg(feature = "ram")]
            Self::Ram(_) => true,
        }
    }

    /// A login at `target`, or what takes its place.
    ///
    /// Cancel-safe: dropping the future ends it.
    pub(super) async fn at(&self, target: Target) -> Result<Token, LoginError> {
        match self {
            Self::User(login) => login.at(target).await,
            #[cfg(feature = "ram")]
            Self::Ram(ram) => ram.credentials().await,
        }
    }
}

#[cfg(feature = "ram")]
impl Identity {
    pub(super) const fn of_ram(credentials: RamCredentials) -> Self {
        Self::Ram(Source::Fixed(credentials))
    }

    /// What is wrong with it before any server sees it.
    pub(super) fn objection(&self) -> Option<&'static str> {
        match self {
            Self::Ram(Source::Fixed(credentials)) => credentials.objection(),
            Self::User(..) | Self::Ram(Source::Provider(_)) => None,
        }
    }
}

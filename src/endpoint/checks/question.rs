use std::{fmt, sync::Arc};

use futures_util::future::BoxFuture;
use http::uri::PathAndQuery;

use crate::model::Instance;

/// How health checks by HTTP and gRPC reach instances: dialled, and with TLS, as a
/// [`Transport`](crate::transport::Transport) does.
///
/// [`MakeEndpoint::asker`](crate::endpoint::MakeEndpoint::asker) hands it on, for a maker of your own around
/// [`MakeTransport`](crate::transport::MakeTransport).
#[derive(Clone)]
pub struct Asker(Arc<dyn Asks>);

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// For this path, by GET.
    Http(PathAndQuery),
    /// How this service is, by `grpc.health.v1`; all of it if that is empty.
    Grpc(Arc<str>),
}

/// Why an instance did not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It says so itself.
    Said(Arc<str>),
    /// It did not say anything that could be understood, or not in time.
    Silent(Arc<str>),
}

/// What comes of asking.
pub(crate) type Asking = BoxFuture<'static, Result<(), Failure>>;

/// Who asks: over connections of their own.
pub(crate) trait Asks: Send + Sync {
    /// Whom and how: who says the same of an instance asks the same. Addresses in memory count only while
    /// this is held.
    fn identity(&self, instance: &Instance, question: &Question) -> String;

    /// Asks. Takes as long as it takes, reads and keeps no more than a bounded part of the answer, and leaves
    /// nothing behind when it is dropped.
    fn ask(&self, instance: &Instance, question: &Question) -> Asking;
}

impl Asker {
    pub(crate) fn of(asks: impl Asks + 'static) -> Self {
        Self(Arc::new(asks))
    }

    pub(crate) fn identity(&self, instance: &Instance, question: &Question) -> String {
        self.0.identity(instance, question)
    }

    pub(crate) fn ask(&self, instance: &Instance, question: &Question) -> Asking {
        self.0.ask(instance, question)
    }
}

impl Failure {
    pub(crate) fn said(reason: impl fmt::Display) -> Self {
        Self::Said(short(&reason.to_string()))
    }

    pub(crate) fn silent(reason: impl fmt::Display) -> Self {
        Self::Silent(short(&reason.to_string()))
    }

    pub(crate) fn into_reason(self) -> Arc<str> {
        match self {
            Self::Said(reason) | Self::Silent(reason) => reason,
        }
    }
}

/// Part of it may be the instance's own words, and it is kept, logged and shown.
fn short(reason: &str) -> Arc<str> {
    match reason.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &reason[..end]).into(),
        None => reason.into(),
    }
}

const LONGEST: usize = 300;

impl fmt::Debug for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asker").finish_non_exhaustive()
    }
}

//! What the task of a provider waits for, as futures: questions to itself and requests to the registry.

use std::{future::Future, pin::Pin, sync::Arc};

use super::{
    error::OnlineError,
    inner::Inner,
    ready,
    registration::{self, Listed},
    sequence::Deregistered,
};
use crate::client::{ConnectionState, RequestError};

/// What came of it.
pub(super) enum Done {
    Ready(Result<(), String>),
    Checked(Result<(), OnlineError>),
    /// Which version of what is wanted.
    Registered(Result<u64, OnlineError>),
    Deregistered(Deregistered, Option<String>),
    Updated(Result<u64, RequestError>),
}

pub(super) type Work = Pin<Box<dyn Future<Output = Done> + Send>>;

/// Whether it is ready.
pub(super) fn ask(inner: Arc<Inner>) -> Work {
    Box::pin(async move {
        let Some(probe) = inner.probe.clone() else {
            return Done::Ready(Ok(()));
        };
        let found = match probe.path() {
            Some(_) => inner.shared.names.find(&inner.nacos).await,
            None => Ok(&[][..]),
        };
        Done::Ready(match found {
            Ok(addresses) => probe.ask(addresses.to_vec()).await,
            Err(error) => Err(error.to_string()),
        })
    })
}

/// Whether its address answers.
pub(super) fn check(inner: Arc<Inner>) -> Work {
    Box::pin(async move {
        let found = inner.shared.names.find(&inner.nacos).await;
        Done::Checked(match found {
            Ok(addresses) => ready::check(addresses.to_vec()).await,
            Err(error) => Err(OnlineError::Registry(error)),
        })
    })
}

pub(super) fn register(inner: Arc<Inner>) -> Work {
    Box::pin(async move {
        let names = &inner.shared.names;
        let found = names.find(&inner.nacos).await;
        let done = match found {
            Ok(_) => inner.wanted.register(&inner.nacos, names.services()).await,
            Err(error) => Err(error),
        };
        Done::Registered(done.map_err(OnlineError::Registry))
    })
}

/// A registration that nobody need be asked for.
pub(super) fn refused(error: OnlineError) -> Work {
    Box::pin(async { Done::Registered(Err(error)) })
}

/// What is registered is brought to what is wanted.
pub(super) fn update(inner: Arc<Inner>) -> Work {
    Box::pin(async move {
        let names = &inner.shared.names;
        Done::Updated(inner.wanted.register(&inner.nacos, names.services()).await)
    })
}

/// `listed`: what the registry knows; `None` if what is registered is somebody else's.
pub(super) fn deregister(inner: Arc<Inner>, listed: Option<Listed>) -> Work {
    Box::pin(async move {
        let Some(listed) = listed else {
            return Done::Deregistered(Deregistered::Nothing, None);
        };
        let names = &inner.shared.names;
        let (how, why) = registration::deregister(&inner.nacos, names.services()).await;
        let connected = matches!(inner.nacos.state(), ConnectionState::Connected { .. });
        let (how, unheard) = listed.after(how, connected);
        let why = why.or_else(|| unheard.map(str::to_owned));
        Done::Deregistered(how, why)
    })
}

pub(super) async fn working(work: &mut Option<Work>) -> Done {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

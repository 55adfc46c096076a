//! Where RAM credentials come from: for ever the same, or a provider that runs beside the client's
//! own task.

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use tokio::{runtime::Handle, task::JoinHandle, time::timeout};

use super::{
    auth::Token,
    login::LoginError,
    ram::{RamCredentials, Signer},
};

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Found = Pin<Box<dyn Future<Output = Result<RamCredentials, Failure>> + Send>>;

/// Where credentials come from: for ever the same, or asked for anew.
#[derive(Clone)]
pub(super) enum Source {
    Fixed(RamCredentials),
    Provider(Arc<dyn Fn() -> Found + Send + Sync>),
}

/// How a client comes by its credentials, and what it signs for.
#[derive(Debug)]
pub(super) struct Ram {
    pub(super) source: Source,
    /// Signs as version 4 for this region; else as version 1.
    pub(super) region: Option<Arc<str>>,
    /// For one call of the provider.
    pub(super) timeout: Duration,
    /// The runtime of whoever built the client, for what the provider does. None outside of one.
    pub(super) runtime: Option<Handle>,
}

/// Ends the provider's work when nobody waits for it any longer.
struct Asked(JoinHandle<Result<RamCredentials, Failure>>);

impl Source {
    pub(super) fn provider<F, Found, E>(provider: F) -> Self
    where
        F: Fn() -> Found + Send + Sync + 'static,
        Found: Future<Output = Result<RamCredentials, E>> + Send + 'static,
        E: Into<Failure>,
    {
        Self::Provider(Arc::new(move || {
            let found = provider();
            Box::pin(async move { found.await.map_err(Into::into) })
        }))
    }
}

impl Ram {
    /// The credentials of now, as what a login brings.
    ///
    /// Cancel-safe: dropping the future ends what the provider does.
    pub(super) async fn credentials(&self) -> Result<Token, LoginError> {
        let (credentials, ttl) = match &self.source {
            Source::Fixed(credentials) => (credentials.clone(), Duration::MAX),
            Source::Provider(provider) => {
                let provider = Arc::clone(provider);
                let found = Asked::begin(self.runtime.as_ref(), async move { provider().await });
                let credentials = match timeout(self.timeout, found.outcome()).await {
                    Ok(found) => found?,
                    Err(_) => return Err(unknown(format!("no answer within {:?}", self.timeout))),
                };
                let ttl = credentials.expires_in().unwrap_or_default();
                (credentials, ttl)
            }
        };
        if let Some(what) = credentials.objection() {
            return Err(unknown(what));
        }
        let region = self.region.clone();
        let signer = Signer::new(credentials, region);
        Ok(Token::of_ram(signer, ttl))
    }
}

impl Asked {
    /// Runs it beside the client's own task, which runs no code of others.
    fn begin(
        runtime: Option<&Handle>,
        work: impl Future<Output = Result<RamCredentials, Failure>> + Send + 'static,
    ) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "ends with whoever waits for it, on the client's own runtime if there is no other"
        )]
        Self(match runtime {
            Some(runtime) => runtime.spawn(work),
            None => tokio::spawn(work),
        })
    }

    async fn outcome(mut self) -> Result<RamCredentials, LoginError> {
        match (&mut self.0).await {
            Ok(Ok(credentials)) => Ok(credentials),
            Ok(Err(error)) => Err(unknown(error)),
            Err(error) if error.is_panic() => Err(unknown("the provider panicked")),
            Err(_) => Err(unknown("the runtime that it runs on is gone")),
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn unknown(reason: impl fmt::Display) -> LoginError {
    LoginError::NoCredentials {
        reason: reason.to_string(),
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(credentials) => credentials.fmt(f),
            Self::Provider(_) => f.write_str("a provider of RAM credentials"),
        }
    }
}

#[cfg(test)]
#[path = "ram_source_tests.rs"]
mod tests;

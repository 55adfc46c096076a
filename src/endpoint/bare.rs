use std::{fmt, sync::Arc};

use tower::{BoxError, Service, load::completion::TrackCompletion};

use crate::endpoint::{
    admission::InFlight,
    call::Call,
    error::CallError,
    pick::Any,
    rules::{Judge, Recover},
    shared::Shared,
};

/// The call engine with nothing around it: any open instance, no policy. For the crate's own
/// stress and allocation tests; not part of the interface.
pub struct Bare<S, R, C, V> {
    shared: Arc<Shared<S, R, C, V>>,
}

impl<S, R, C, V> Bare<S, R, C, V> {
    pub(crate) const fn new(shared: Arc<Shared<S, R, C, V>>) -> Self {
        Self { shared }
    }

    /// One call.
    pub fn call<Req>(
        &self,
        request: Req,
    ) -> impl Future<Output = Result<C::Output, CallError>> + use<S, R, C, V, Req>
    where
        S: Service<Req> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        R: Recover<Req, S::Error>,
        C: TrackCompletion<InFlight, S::Response>,
        V: Judge<S::Response, S::Error>,
    {
        Call::new(Any(Arc::clone(&self.shared)), request)
    }

    /// Calls that are in flight, entering and waiting, over all endpoints.
    pub fn counts(&self) -> [u64; 3] {
        self.shared.set().counts()
    }
}

impl<S, R, C, V> Clone for Bare<S, R, C, V> {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.shared))
    }
}

impl<S, R, C, V> fmt::Debug for Bare<S, R, C, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bare").field(&self.shared).finish()
    }
}

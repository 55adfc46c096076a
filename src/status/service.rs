use std::{
    convert::Infallible,
    fmt,
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower::Service;

use super::{body::StatusBody, clock::Moment, observe::Observe, respond::respond, shared::Shared};
use crate::client::Client;

/// The status page, as a tower service of HTTP requests; see [the module](crate::status).
///
/// `Clone`, and clones share everything. Never fails, always ready, and reads no request's body. Keeps no
/// client, balancer or subscription alive. It looks for what happens from when it is made, on
/// the runtime that it is made or first asked on, until the last clone is dropped: make it early.
#[derive(Clone)]
pub struct StatusPage {
    shared: Arc<Shared>,
}

impl StatusPage {
    /// A page of the services of `nacos`. Other clients, and who picks, are added by [`with`](Self::with).
    pub fn new(nacos: &Client) -> Self {
        Self::empty().with(nacos)
    }

    pub(super) fn empty() -> Self {
        Self {
            shared: Shared::new(),
        }
    }

    /// Shows this as well: an [`http::Client`](crate::http::Client), a
    /// [`grpc::Channel`](crate::grpc::Channel), a [`Balance`](crate::Balance), another registry's
    /// [`Client`]. For all clones, and as long as it lives; the same twice is shown once.
    #[must_use = "dropping the last `StatusPage` ends it"]
    pub fn with(self, what: &impl Observe) -> Self {
        self.shared.add(what.source().0, Moment::now());
        self.shared.keep_looking();
        self
    }

    /// How many readers of the event stream there may be at once; those above get 503, and their pages
    /// ask every 10 s instead. Default 64: each holds a connection, and each change has each of them ask for its
    /// page.
    #[must_use = "dropping the last `StatusPage` ends it"]
    pub fn max_streams(self, most: usize) -> Self {
        self.shared.set_most_streams(most);
        self
    }

    /// The path that it is mounted at, for servers that leave it in requests (axum's `nest_service` takes it
    /// away). Default: the root. Anything else answers 404.
    #[must_use = "dropping the last `StatusPage` ends it"]
    pub fn mounted_at(self, path: &str) -> Self {
        self.shared.mount_at(path);
        self
    }

    /// Ends all event streams, and lets none begin: they are connections that never end by themselves, and a
    /// server that shuts down waits for its connections. Pages are still answered.
    pub fn close(&self) {
        self.shared.close();
    }

    #[cfg(test)]
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl<B> Service<Request<B>> for StatusPage {
    type Response = Response<StatusBody>;
    type Error = Infallible;
    type Future = Ready<Result<Response<StatusBody>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.shared.keep_looking(); // what looked may have gone with its runtime
        let (head, _) = request.into_parts();
        ready(Ok(respond(&self.shared, &head)))
    }
}

impl fmt::Debug for StatusPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatusPage")
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}

const fn _assert_shareable<T: Clone + Send + Sync + fmt::Debug + 'static>() {}
const _: () = _assert_shareable::<StatusPage>();

use std::{fmt, mem, sync::Arc};

use ::http::{Request, Uri, uri::PathAndQuery};

use crate::{
    balance::{InExtensions, Policy},
    http::{
        balanced::HttpBalance,
        deadline::Deadline,
        each::Each,
        error::Error,
        future::ResponseFuture,
        name::{Asked, BadAddress},
        pool::Pool,
        services::Busy,
    },
    traces::CallSpan,
    transport::Body,
};

/// The instances of one service, by our transport.
pub(super) type Balanced<P> = HttpBalance<P, InExtensions>;

/// Whom a request is sent to.
pub(super) enum Target<P: Policy> {
    /// The service that it names.
    Named(Arc<Pool<Balanced<P>>>),
    /// This one, whatever it names.
    Service(Arc<Balanced<P>>, Each),
}

impl<P: Policy> Target<P> {
    pub(super) fn request(&self, request: Request<Body>) -> ResponseFuture<P> {
        match self {
            Self::Named(pool) => to_named(pool, request),
            Self::Service(balance, each) => to_service(balance, each, request),
        }
    }
}

/// Sends a request to the service that its address or its extensions name.
pub(super) fn to_named<P: Policy>(
    pool: &Pool<Balanced<P>>,
    mut request: Request<Body>,
) -> ResponseFuture<P> {
    let mut address = mem::take(request.uri_mut()).into_parts();
    *request.uri_mut() = origin(address.path_and_query.take());
    let asked = Asked::of(request.extensions());
    let sent = asked.named(&address).map_err(Error::address);
    let each = &pool.each;
    let traced = each.traces.is_some().then(|| request.method().clone());
    let sent = sent.and_then(|named| pool.with(named, |held| send(held, each, request)));
    sent.unwrap_or_else(|error| {
        if let Some(method) = traced {
            CallSpan::http_failed(&method, error.kind());
        }
        ResponseFuture::failed(error)
    })
}

/// Sends a request to this service, whatever service its address or its extensions name.
pub(super) fn to_service<P: Policy>(
    balance: &Balanced<P>,
    each: &Each,
    mut request: Request<Body>,
) -> ResponseFuture<P> {
    let mut address = mem::take(request.uri_mut()).into_parts();
    if address.scheme.is_none() && address.authority.is_some() {
        return ResponseFuture::failed(Error::address(BadAddress::Path));
    }
    *request.uri_mut() = origin(address.path_and_query.take());
    send(balance, each, request)
}

/// Sends a request whose address is a path.
fn send<P: Policy>(
    balance: &Balanced<P>,
    each: &Each,
    mut request: Request<Body>,
) -> ResponseFuture<P> {
    let deadline = each.deadline(&request);
    let span = each.span(balance.subscription().key(), &mut request);
    let until = deadline.map(Deadline::instant);
    ResponseFuture::new(balance.start_until(request, until), deadline, span)
}

/// The path and query of an address, which is what an instance is asked for.
pub(super) fn origin(path: Option<PathAndQuery>) -> Uri {
    match path {
        Some(path) if path.as_str().starts_with('/') => path.into(),
        // An address may have a query and no path.
        Some(path) if path.as_str().starts_with('?') => {
            let path = PathAndQuery::from_maybe_shared(format!("/{}", path.as_str()));
            path.map_or_else(|_| Uri::default(), Uri::from)
        }
        _ => Uri::default(), // "/"
    }
}

impl<P: Policy> Busy for Balanced<P> {
    fn is_busy(&self) -> bool {
        self.is_in_use()
    }
}

impl<P: Policy> Clone for Target<P> {
    fn clone(&self) -> Self {
        match self {
            Self::Named(pool) => Self::Named(Arc::clone(pool)),
            Self::Service(balance, each) => Self::Service(Arc::clone(balance), each.clone()),
        }
    }
}

impl<P: Policy> fmt::Debug for Target<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(pool) => pool.fmt(f),
            Self::Service(balance, _) => balance.subscription().key().fmt(f),
        }
    }
}

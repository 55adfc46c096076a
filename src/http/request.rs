use std::{fmt, future::IntoFuture, time::Duration};

use ::http::{
    Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version,
};

use crate::{
    balance::{Hints, P2c, Policy},
    http::{deadline::Deadline, error::Error, future::ResponseFuture, target::Target},
    transport::{Body, ResponseBody},
};

/// A request that is being written. Await it, or [`send`](Self::send) it, for its response.
///
/// What no request can have (a header with a line break, say) is an error of the response's future.
///
/// Example: [calls](crate::http)
#[must_use = "a request is sent when it is awaited"]
pub struct RequestBuilder<P: Policy = P2c> {
    target: Target<P>,
    request: Result<Request<Body>, Error>,
    timeout: Option<Duration>,
}

impl<P: Policy> RequestBuilder<P> {
    pub(super) fn new(target: Target<P>, method: Method, uri: Result<Uri, Error>) -> Self {
        let request = uri.map(|uri| {
            let mut request = Request::new(Body::empty());
            *request.method_mut() = method;
            *request.uri_mut() = uri;
            request
        });
        Self {
            target,
            request,
            timeout: None,
        }
    }

    /// Adds a header.
    pub fn header<K, V>(self, name: K, value: V) -> Self
    where
        K: TryInto<HeaderName, Error: Into<::http::Error>>,
        V: TryInto<HeaderValue, Error: Into<::http::Error>>,
    {
        self.with(|request| {
            let name = name.try_into().map_err(|e| Error::request(e.into()))?;
            let value = value.try_into().map_err(|e| Error::request(e.into()))?;
            request.headers_mut().append(name, value);
            Ok(())
        })
    }

    /// Adds all of these headers.
    pub fn headers(self, headers: HeaderMap) -> Self {
        self.with(|request| {
            request.headers_mut().extend(headers);
            Ok(())
        })
    }

    /// Sets the body: a text, bytes, `()`, or [`Body::new`] of a stream.
    pub fn body(self, body: impl Into<Body>) -> Self {
        self.with(|request| {
            *request.body_mut() = body.into();
            Ok(())
        })
    }

    /// Sets the HTTP version that the request is written in, where the instance lets us choose.
    pub fn version(self, version: Version) -> Self {
        self.with(|request| {
            *request.version_mut() = version;
            Ok(())
        })
    }

    /// Sets how long it may take until the response's head, from when it is sent. See [`Deadline`]
    /// for what that covers.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets the moment by which its response's head has to be there. See [`Deadline`].
    pub fn deadline(self, deadline: Deadline) -> Self {
        self.extension(deadline)
    }

    /// Sets what it asks of the pick: a key to stick to, a cluster, metadata, instances to leave
    /// out.
    pub fn hints(self, hints: Hints) -> Self {
        self.extension(hints)
    }

    /// Adds an extension, of those that the client and its layers understand.
    pub fn extension<T: Clone + Send + Sync + 'static>(self, extension: T) -> Self {
        self.with(|request| {
            request.extensions_mut().insert(extension);
            Ok(())
        })
    }

    /// Adds all of these extensions, a server's own request's say.
    pub fn extensions(self, extensions: Extensions) -> Self {
        self.with(|request| {
            request.extensions_mut().extend(extensions);
            Ok(())
        })
    }

    /// Sends it.
    pub fn send(self) -> ResponseFuture<P> {
        let mut request = match self.request {
            Ok(request) => request,
            Err(error) => return ResponseFuture::failed(error),
        };
        if let Some(timeout) = self.timeout {
            request.extensions_mut().insert(Deadline::within(timeout));
        }
        self.target.request(request)
    }

    fn with(mut self, change: impl FnOnce(&mut Request<Body>) -> Result<(), Error>) -> Self {
        if let Ok(request) = &mut self.request
            && let Err(error) = change(request)
        {
            self.request = Err(error);
        }
        self
    }
}

impl<P: Policy> IntoFuture for RequestBuilder<P> {
    type Output = Result<Response<ResponseBody>, Error>;
    type IntoFuture = ResponseFuture<P>;

    fn into_future(self) -> ResponseFuture<P> {
        self.send()
    }
}

impl<P: Policy> fmt::Debug for RequestBuilder<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("RequestBuilder");
        match &self.request {
            Ok(request) => shown.field("method", request.method()),
            Err(error) => shown.field("error", error),
        };
        shown
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

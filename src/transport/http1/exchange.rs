use std::{mem, sync::Arc, time::Duration};

use http::{Extensions, Method, Request, Response};
use hyper::body::Incoming;
use tokio::time::timeout;

use crate::transport::{
    attempt::{Back, Failed, is_sent_once_more, may_be_sent_once_more},
    body::request::{Body, Kind},
    error::{Error, ErrorKind, Evidence},
    form::{self, Former},
    http1::{
        connection::Http1Connection,
        failure,
        pool::{Http1Pool, Lease},
    },
    peer::Peer,
};

/// What of a request hyper keeps, for another try; its headers are with the connection.
struct Copy {
    method: Method,
    body: Body,
    extensions: Extensions,
    /// How often the connection had given bytes before.
    reads: u64,
}

/// Sends the request and waits for the response's headers.
pub(in crate::transport) async fn exchange(
    pool: &Arc<Http1Pool>,
    mut connection: Http1Connection,
    mut request: Request<Body>,
) -> Result<(Response<Incoming>, Lease), Failed> {
    let fresh = mem::replace(&mut connection.fresh, false);
    let once_more = pool.options.once_more && !fresh && may_be_sent_once_more(&request);
    let copy = once_more.then(|| Copy::of(&mut request, &mut connection));
    let former = form::for_http1(&mut request, &pool.peer.named);
    let sending = connection.sender.try_send_request(request);
    let sent = match pool.options.header_timeout {
        None => sending.await,
        Some(within) => match timeout(within, sending).await {
            Ok(sent) => sent,
            Err(_) => return Err(Failed::Error(late(&pool.peer, within))),
        },
    };
    let mut failure = match sent {
        Ok(response) => {
            connection.heed(response.headers());
            let pool = Arc::clone(pool);
            return Ok((response, Lease { connection, pool }));
        }
        Err(failure) => failure,
    };
    if let Some(mut request) = failure.take_message() {
        former.restore(&mut request);
        if let Some(copy) = copy {
            *request.extensions_mut() = copy.extensions;
        }
        let why = if fresh {
            "it closed the connection before it took the request"
        } else {
            "its connection closed before it took the request"
        };
        return Err(Failed::Back(Box::new(Back {
            request,
            evidence: Evidence::Unsent,
            fresh,
            why: why.to_owned(),
        })));
    }
    let error = failure.into_error();
    if let Some(copy) = copy
        && copy.reads == connection.reads()
        && failure::is_lost(&error)
    {
        return Err(Failed::Back(Box::new(Back {
            request: copy.restore(&mut connection, former),
            evidence: Evidence::Unknown,
            fresh: false,
            why: format!("a kept connection was lost with the request on its way ({error})"),
        })));
    }
    let max = pool.options.max_header_size;
    Err(Failed::Error(failure::explain(&pool.peer, max, error)))
}

impl Copy {
    fn of(request: &mut Request<Body>, connection: &mut Http1Connection) -> Self {
        connection.copy(request.headers());
        let body = match &request.body().0 {
            Kind::Full(bytes) => bytes.clone().into(),
            _ => Body::empty(),
        };
        Self {
            method: request.method().clone(),
            body,
            // Not copied: nobody below looks at them.
            extensions: mem::take(request.extensions_mut()),
            reads: connection.reads(),
        }
    }

    fn restore(self, connection: &mut Http1Connection, former: Former) -> Request<Body> {
        let mut request = Request::new(self.body);
        *request.method_mut() = self.method;
        *request.headers_mut() = mem::take(&mut connection.headers);
        *request.extensions_mut() = self.extensions;
        former.restore(&mut request);
        is_sent_once_more(&mut request);
        request
    }
}

fn late(peer: &Peer, within: Duration) -> Error {
    let text = format!("no response headers within {within:?} (header_timeout)");
    let error = peer.error(ErrorKind::Timeout, Evidence::Unknown, text);
    error.timing_out()
}

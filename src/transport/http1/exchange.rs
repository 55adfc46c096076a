use std::{mem, sync::Arc, time::Duration};

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::time::timeout;

use crate::transport::{
    attempt::{
        Back, Failed, Past, is_sent_once_more, lost, may_be_sent_once_more, misdirected,
        was_sent_before,
    },
    body::request::{Body, Kind},
    error::{Error, ErrorKind, Evidence},
    form,
    http1::{
        connection::Http1Connection,
        failure,
        pool::{Http1Pool, Lease},
    },
    peer::Peer,
};

/// Sends the request and waits for the response's headers.
pub(in crate::transport) async fn exchange(
    pool: &Arc<Http1Pool>,
    mut connection: Box<Http1Connection>,
    mut request: Request<Body>,
) -> Result<(Response<Incoming>, Lease), Failed> {
    let fresh = mem::replace(&mut connection.fresh, false);
    let once_more = pool.options.once_more && !fresh && may_be_sent_once_more(&request);
    let reads = connection.reads();
    let there = !matches!(request.body().0, Kind::Stream(_));
    let tells = pool.peer.named.tells(request.headers());
    let copied = once_more || tells && there;
    let before = was_sent_before(request.extensions());
    if copied {
        connection.copy(&request);
    }
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
            if tells && response.status() == StatusCode::MISDIRECTED_REQUEST {
                let kept = if copied {
                    let mut request = connection.copied();
                    former.restore(&mut request);
                    Ok(request)
                } else {
                    Err("a stream is not kept over HTTP/1 to send it again")
                };
                return Err(misdirected(&pool.peer, kept));
            }
            if copied {
                connection.forget();
            }
            let pool = Arc::clone(pool);
            return Ok((response, Lease { connection, pool }));
        }
        Err(failure) => failure,
    };
    if let Some(mut request) = failure.take_message() {
        former.restore(&mut request);
        let why = if fresh {
            "it closed the connection before it took the request"
        } else {
            "its connection closed before it took the request"
        };
        return Err(Failed::Back(Box::new(Back {
            request,
            evidence: Evidence::Unsent,
            connection: if fresh { Past::Fresh } else { Past::Answered },
            why: why.to_owned(),
        })));
    }
    let error = failure.into_error();
    if once_more && reads == connection.reads() && failure::is_lost(&error) {
        let mut request = connection.copied();
        former.restore(&mut request);
        is_sent_once_more(&mut request);
        return Err(Failed::Back(Box::new(Back {
            request,
            evidence: Evidence::Unknown,
            connection: Past::Answered,
            why: format!("{} ({error})", lost(before)),
        })));
    }
    let max = pool.options.max_header_size;
    Err(Failed::Error(failure::explain(
        &pool.peer, max, before, error,
    )))
}

fn late(peer: &Peer, within: Duration) -> Error {
    let text = format!("no response headers within {within:?} (header_timeout)");
    let error = peer.error(ErrorKind::Timeout, Evidence::Unknown, text);
    error.timing_out()
}

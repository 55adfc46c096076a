use std::sync::Arc;

use http::{Request, Response};
use tokio::sync::OwnedSemaphorePermit;

use crate::transport::{
    attempt::{Back, Failed, Past},
    body::{request::Body, response::ResponseBody},
    connections::{Connections, Found, Mode},
    error::{Error, ErrorKind, Evidence},
    history::is_doubtful,
    http1::{self, connection::Http1Connection, pool::NoConnection},
    http2::{self, pool::Place},
    route::Route,
};

/// One call: finds a connection, and another one where the first did not take it.
pub(super) async fn call(
    connections: Arc<Connections>,
    mut request: Request<Body>,
    permit: Option<OwnedSemaphorePermit>,
    mut place: Option<Place>,
) -> Result<Response<ResponseBody>, Error> {
    // Polled for the first time after the last handle went: nobody can evict it any more.
    let orphan = connections.is_retired();
    let doubtful = is_doubtful(request.extensions());
    let route = connections.route(&request);
    let mut renewed = 0;
    // Whether the request is on its way a second time, though the first may have been processed.
    let mut once_more = false;
    loop {
        // What has to wait is boxed: most calls need it not, and are the smaller for it.
        let came = if connections.mode() == Mode::Http1 {
            place = None;
            let connection = match http1_connection(&connections, once_more) {
                Some(connection) => Ok(Some(connection)),
                None if once_more => Box::pin(connections.new_http1(orphan)).await,
                None => Box::pin(connections.http1(orphan)).await,
            };
            match connection {
                Ok(Some(connection)) => {
                    goes_out(route.as_ref());
                    let exchange =
                        http1::exchange::exchange(&connections.http1, connection, request);
                    let answered = exchange.await;
                    answered.map(|(r, lease)| r.map(|body| ResponseBody::http1(body, lease)))
                }
                Ok(None) => continue, // it came to HTTP/2
                Err(none) => return Err(not_connected(&connections, &none, once_more, request)),
            }
        } else {
            let had = place.take().filter(|place| !place.connection().is_closed());
            let found = match had.or_else(|| connections.http2.try_acquire()) {
                Some(place) => Ok(Found::Place(place)),
                None => {
                    let elsewhere = connections.balanced && !once_more;
                    Box::pin(connections.http2(orphan, elsewhere)).await
                }
            };
            match found {
                Ok(Found::Place(place)) => {
                    goes_out(route.as_ref());
                    let answered = http2::exchange::exchange(place, request).await;
                    answered.map(|(r, held)| r.map(|body| ResponseBody::http2(body, held)))
                }
                Ok(Found::Other) => continue, // it came to HTTP/1
                Ok(Found::Full) => return Err(full(&connections, request)),
                Err(none) => return Err(not_connected(&connections, &none, once_more, request)),
            }
        };
        let back = match came {
            Ok(mut response) => {
                if let Some(route) = &route {
                    route.answered(&connections.peer.instance);
                }
                response.body_mut().hold(permit);
                return Ok(response);
            }
            Err(Failed::Error(error)) => {
                came_back(route.as_ref(), error.evidence());
                let error = match once_more {
                    true => error.of_the_second_time(),
                    false => error,
                }
                .doubting(doubtful);
                return Err(error);
            }
            Err(Failed::Back(back)) => *back,
        };
        came_back(route.as_ref(), back.evidence);
        // A connection that had lain idle and closed says nothing about the instance: another
        // one to it is as good as another instance.
        let retired = connections.is_retired() && !orphan;
        let most = match back.connection {
            Past::Answered | Past::Shared => MOST_RENEWALS,
            Past::Fresh => 0,
        };
        if retired || renewed >= most {
            return Err(given_up(&connections, back, once_more));
        }
        renewed += 1;
        once_more |= back.evidence == Evidence::Unknown;
        request = back.request;
    }
}

fn goes_out(route: Option<&Route>) {
    if let Some(route) = route {
        route.goes_out();
    }
}

/// What no connection took was not sent.
fn came_back(route: Option<&Route>, evidence: Evidence) {
    if let (Some(route), Evidence::Unsent) = (route, evidence) {
        route.did_not_go_out();
    }
}

/// One that lies idle, unless the request was lost on such a one.
fn http1_connection(connections: &Connections, once_more: bool) -> Option<Box<Http1Connection>> {
    if once_more {
        return None;
    }
    connections.http1.take()
}

/// There are as many connections as there may be, and others have all places on them.
fn full(connections: &Connections, request: Request<Body>) -> Error {
    let text = "as many streams as it takes are open on as many connections as there may be to it \
                (max_connections)";
    let peer = &connections.peer;
    peer.error(ErrorKind::Unsent, Evidence::Unsent, text)
        .full_with(request)
}

/// No connection took the request.
fn given_up(connections: &Connections, back: Back, once_more: bool) -> Error {
    let (kind, evidence) = match back.evidence {
        Evidence::Refused => (ErrorKind::Refused, Evidence::Refused),
        Evidence::Unknown => (ErrorKind::Lost, Evidence::Unknown),
        Evidence::Unsent => (ErrorKind::Unsent, Evidence::Unsent),
    };
    let error = if once_more || evidence == Evidence::Unknown {
        let error = connections
            .peer
            .error(ErrorKind::Lost, Evidence::Unknown, back.why);
        let error = if once_more && evidence == Evidence::Unknown {
            error.of_the_second_time()
        } else {
            error
        };
        error.retried_with(back.request)
    } else {
        let error = connections.peer.error(kind, evidence, back.why);
        error.with_request(Some(back.request))
    };
    if back.connection != Past::Answered || evidence == Evidence::Unknown {
        error.losing()
    } else {
        error
    }
}

/// There is no connection: row (a), unless the request is on its way a second time.
fn not_connected(
    connections: &Connections,
    none: &NoConnection,
    once_more: bool,
    request: Request<Body>,
) -> Error {
    let dial = &none.error;
    let evidence = if once_more {
        Evidence::Unknown
    } else {
        Evidence::Unsent
    };
    let kind = match () {
        () if dial.is_retirement() => ErrorKind::Unsent,
        () if dial.is_tls() => ErrorKind::Tls,
        () => ErrorKind::Connect,
    };
    let text = match none.others_served {
        true => format!("it serves others and takes no more connections: {dial}"),
        false => dial.to_string(),
    };
    let error = connections.peer.error(kind, evidence, text);
    let error = if dial.is_late() {
        error.timing_out()
    } else {
        error
    };
    let error = if dial.is_retirement() || none.others_served {
        error
    } else {
        error.ejecting()
    };
    if once_more {
        error.of_the_second_time().retried_with(request)
    } else {
        error.with_request(Some(request))
    }
}

/// How often one call turns to another connection of the same instance. Idle ones that close at
/// once under a burst are few, and what others send may end some before they answer anybody; more means
/// something else, and other instances.
const MOST_RENEWALS: u32 = 16;

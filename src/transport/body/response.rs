use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::RecvStream;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    endpoint::{InFlight, Verdict},
    transport::{
        error::{Error, ErrorKind, Evidence},
        http1::pool::Lease,
        http2::exchange::Held,
        peer::Peer,
    },
};

/// The body of an instance's response.
///
/// Until its end, or until it is dropped, the call counts as in flight and keeps its place on its
/// connection. Dropped before its end it closes an HTTP/1 connection and resets an HTTP/2 stream.
///
/// Example: [reading one](crate::http::ResponseExt)
pub struct ResponseBody {
    kind: Kind,
    /// What ends with the body.
    with: With,
}

#[derive(Default)]
struct With {
    permit: Option<OwnedSemaphorePermit>,
    in_flight: Option<InFlight>,
}

enum Kind {
    Http1(Incoming, Lease),
    Http2(RecvStream, Held),
    /// No instance's.
    Own(Bytes),
    Ended,
}

/// The body of a response that no instance gave: what is answered from a cache, say, while there is none
/// ([`Balance::on_no_instance`](crate::Balance::on_no_instance)).
impl From<Bytes> for ResponseBody {
    fn from(bytes: Bytes) -> Self {
        Self {
            kind: match bytes.is_empty() {
                true => Kind::Ended,
                false => Kind::Own(bytes),
            },
            with: With::default(),
        }
    }
}

impl ResponseBody {
    pub(in crate::transport) fn http1(incoming: Incoming, lease: Lease) -> Self {
        let mut body = Self {
            kind: Kind::Http1(incoming, lease),
            with: With::default(),
        };
        body.end_if_over();
        body
    }

    pub(in crate::transport) fn http2(stream: RecvStream, held: Held) -> Self {
        let mut body = Self {
            kind: Kind::Http2(stream, held),
            with: With::default(),
        };
        body.end_if_over();
        body
    }

    /// Keeps the call's place among those that the instance may have.
    pub(in crate::transport) fn hold(&mut self, permit: Option<OwnedSemaphorePermit>) {
        if !matches!(self.kind, Kind::Ended) {
            self.with.permit = permit;
        }
    }

    /// Keeps the call counted.
    pub(in crate::transport) fn track(&mut self, in_flight: InFlight) {
        if !matches!(self.kind, Kind::Ended) {
            self.with.in_flight = Some(in_flight);
        }
    }

    fn end_if_over(&mut self) {
        if self.kind.is_over() {
            self.end();
        }
    }

    /// All of it came.
    fn end(&mut self) {
        match std::mem::replace(&mut self.kind, Kind::Ended) {
            Kind::Http1(_, lease) => lease.give_back(),
            Kind::Http2(_, held) => held.end(),
            Kind::Own(_) | Kind::Ended => {}
        }
        self.with = With::default();
    }

    /// It broke off: with its connection that counts like any call that was lost.
    fn fail(&mut self, error: &Error) {
        if let Verdict::Lost(reason) = error.verdict()
            && let Some(in_flight) = self.with.in_flight.take()
        {
            in_flight.lost(&reason);
        }
        self.kind = Kind::Ended;
        self.with = With::default();
    }
}

impl Kind {
    fn is_over(&self) -> bool {
        match self {
            Self::Http1(incoming, _) => incoming.is_end_stream(),
            Self::Http2(stream, _) => stream.is_end_stream(),
            Self::Own(bytes) => bytes.is_empty(),
            Self::Ended => true,
        }
    }

    fn peer(&self) -> Option<&Peer> {
        match self {
            Self::Http1(_, lease) => Some(&lease.pool.peer),
            Self::Http2(_, held) => Some(&held.place().pool().peer),
            Self::Own(_) | Self::Ended => None,
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self {
            Self::Http1(incoming, lease) => {
                let frame = ready!(Pin::new(incoming).poll_frame(cx));
                let broken = |e: hyper::Error| broken(&lease.pool.peer, e.is_timeout(), e).losing();
                Poll::Ready(frame.map(|f| f.map_err(broken)))
            }
            Self::Http2(stream, held) => {
                let mut data = ready!(stream.poll_data(cx));
                while let Some(Ok(empty)) = &data
                    && empty.is_empty()
                {
                    data = ready!(stream.poll_data(cx)); // how some peers say that it ends
                }
                let error = match data {
                    Some(Ok(data)) => {
                        let _ = stream.flow_control().release_capacity(data.len());
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                    Some(Err(error)) => error,
                    None => match ready!(stream.poll_trailers(cx)) {
                        Ok(trailers) => {
                            return Poll::Ready(trailers.map(|t| Ok(Frame::trailers(t))));
                        }
                        Err(error) => error,
                    },
                };
                // A complete response, before which the peer lost interest in the request (RFC
                // 9113, 8.1).
                if error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR) {
                    return Poll::Ready(None);
                }
                let place = held.place();
                // A complete response too, after which the connection failed.
                let id = stream.stream_id().as_u32();
                if error.is_io() && place.connection().told().has_ended(id) {
                    return Poll::Ready(None);
                }
                let silent = place.connection().silence().is_some();
                // A stream that is reset says nothing of its connection.
                let lost = !error.is_reset();
                let broken = broken(&place.pool().peer, silent, error);
                Poll::Ready(Some(Err(if lost { broken.losing() } else { broken })))
            }
            Self::Own(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Ended => Poll::Ready(None),
        }
    }
}

fn cut(peer: &Peer) -> Error {
    let text = "the response was cut: the instance left the registry, and the time to end was over (abort_in_flight_after)";
    peer.error(ErrorKind::Lost, Evidence::Unknown, text)
}

fn broken(
    peer: &Peer,
    silent: bool,
    error: impl std::error::Error + Send + Sync + 'static,
) -> Error {
    let text = format!("the response broke off ({error})");
    let broken = peer.error(ErrorKind::Lost, Evidence::Unknown, text);
    let broken = broken.because(error);
    if silent { broken.timing_out() } else { broken }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        let polled = match this.kind.poll_frame(cx) {
            Poll::Ready(polled) => polled,
            Poll::Pending => {
                let Some(in_flight) = &mut this.with.in_flight else {
                    return Poll::Pending;
                };
                ready!(in_flight.poll_abort(cx));
                this.kind.peer().map(|peer| Err(cut(peer)))
            }
        };
        match &polled {
            None => this.end(),
            Some(Ok(_)) => this.end_if_over(),
            Some(Err(error)) => this.fail(error),
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.kind.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Http1(incoming, _) => incoming.size_hint(),
            Kind::Http2(..) => SizeHint::default(),
            Kind::Own(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Ended => SizeHint::with_exact(0),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.kind, Kind::Ended) {
            Kind::Http1(incoming, lease) => {
                lease.give_up();
                drop(incoming);
            }
            other => drop(other),
        }
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody")
            .field("ended", &self.kind.is_over())
            .finish_non_exhaustive()
    }
}

use std::{
    any::Any,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use tower::BoxError;

/// A request's body: empty, bytes that are there, or a stream. One type for all calls of a
/// connection pool.
///
/// A request that was provably not processed moves to another instance with its body. Empty bodies
/// and bytes move as they are, at no cost. A stream over HTTP/1 moves only untouched, which is all
/// that can happen there; over HTTP/2 what it yielded is kept, by reference, up to 64 KiB and only
/// until response headers arrive, and the stream goes on from where it was. What yielded more is
/// not sent again: that call fails with an error that
/// [`is_unprocessed`](crate::transport::Error::is_unprocessed). With
/// [`Retry`](crate::transport::Retry) the same is kept of an idempotent request over HTTP/1 too, for when it is lost.
///
/// ```
/// use bytes::Bytes;
/// use http_body::{Body as _, Frame};
/// use http_body_util::StreamBody;
/// use tower_nacos::http::Body;
///
/// let text = Body::from("a pen");
/// assert_eq!(text.size_hint().exact(), Some(5));
///
/// let parts = ["a ", "pen"].map(|part| Ok::<_, std::io::Error>(Frame::data(Bytes::from(part))));
/// let stream = Body::new(StreamBody::new(futures_util::stream::iter(parts)));
/// assert_eq!(stream.size_hint().exact(), None);
/// ```
#[derive(Default)]
pub struct Body(pub(in crate::transport) Kind);

#[derive(Default)]
pub(in crate::transport) enum Kind {
    #[default]
    Empty,
    Full(Bytes),
    Stream(Stream),
}

/// A body whose bytes are still to come.
pub(in crate::transport) type Stream =
    Pin<Box<dyn HttpBody<Data = Bytes, Error = BoxError> + Send>>;

impl Body {
    /// No body.
    pub const fn empty() -> Self {
        Self(Kind::Empty)
    }

    /// A stream. Costs an allocation; a [`Body`] is taken as it is.
    pub fn new<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let mut given = Some(body);
        if let Some(same) = (&mut given as &mut dyn Any).downcast_mut::<Option<Self>>() {
            return same.take().unwrap_or_default();
        }
        match given {
            Some(body) if body.is_end_stream() => Self::empty(),
            Some(body) => Self(Kind::Stream(Box::pin(body.map_err(Into::into)))),
            None => Self::empty(),
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Kind::Empty => Poll::Ready(None),
            Kind::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.0 = Kind::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Kind::Stream(stream) => stream.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Full(bytes) => bytes.is_empty(),
            Kind::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Stream(stream) => stream.size_hint(),
        }
    }
}

impl From<()> for Body {
    fn from((): ()) -> Self {
        Self::empty()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() {
            Self::empty()
        } else {
            Self(Kind::Full(bytes))
        }
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl From<&'static [u8]> for Body {
    fn from(bytes: &'static [u8]) -> Self {
        Bytes::from_static(bytes).into()
    }
}

impl From<tonic::body::Body> for Body {
    fn from(body: tonic::body::Body) -> Self {
        Self::new(body)
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Empty => f.write_str("Body(empty)"),
            Kind::Full(bytes) => write!(f, "Body({} bytes)", bytes.len()),
            Kind::Stream(_) => f.write_str("Body(stream)"),
        }
    }
}

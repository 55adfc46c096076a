//! Reading a response whole.

use std::{
    error::Error as StdError,
    fmt,
    future::Future,
    mem,
    sync::{Mutex, PoisonError},
};

use ::http::{Response, StatusCode};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;

use crate::transport::{self, ResponseBody};

/// What is usually done with a [`Client`](super::Client)'s response.
///
/// There is no time limit on a body: put `tokio::time::timeout` around what may not take long. Dropped
/// before its end, the call is given up as any other.
///
/// ```
/// # async fn example() -> Result<(), tower::BoxError> {
/// # use axum::{Router, routing::get};
/// # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// # let provider = listener.local_addr()?;
/// # let app = Router::new().route("/v1/items/{id}", get(async || r#"{"name":"a pen"}"#));
/// # tokio::spawn(async move { axum::serve(listener, app).await });
/// # let registry = tower_nacos::testing::Registry::start().await?;
/// # registry.register("orders", &provider.into());
/// # let nacos = tower_nacos::Client::connect(&*registry.addr()).await?;
/// use tower_nacos::http::{self, ResponseExt};
///
/// #[derive(serde::Deserialize)]
/// struct Item { name: String }
///
/// let http = http::Client::new(&nacos);
/// let response = http.get("nacos://orders/v1/items/7").await?;
/// let item: Item = response.error_for_status()?.json().await?;
/// assert_eq!(item.name, "a pen");
/// # Ok(())
/// # }
/// # tokio::runtime::Runtime::new().unwrap().block_on(example()).unwrap();
/// ```
pub trait ResponseExt: Sized + sealed::Sealed {
    /// The body, if it has at most `most` bytes. More are not read, and not kept.
    fn bytes_within(self, most: usize) -> impl Future<Output = Result<Bytes, ReadError>> + Send;

    /// The body. An instance that sends without end is not to fill this process's memory, so that
    /// [`MOST_BYTES`] is the end of it; what is larger is read piece by piece
    /// (`http_body_util::BodyExt::frame`), or by [`bytes_within`](Self::bytes_within).
    fn bytes(self) -> impl Future<Output = Result<Bytes, ReadError>> + Send {
        self.bytes_within(MOST_BYTES)
    }

    /// The body as UTF-8, whatever its `content-type` says. What is not is an error.
    fn text(self) -> impl Future<Output = Result<String, ReadError>> + Send {
        let bytes = self.bytes();
        async {
            let text = String::from_utf8(bytes.await?.into());
            text.map_err(|error| ReadError(Kind::Text(error.utf8_error().valid_up_to())))
        }
    }

    /// The body as JSON, whatever its `content-type` says.
    fn json<T: DeserializeOwned>(self) -> impl Future<Output = Result<T, ReadError>> + Send {
        let bytes = self.bytes();
        async {
            let bytes = bytes.await?;
            serde_json::from_slice(&bytes).map_err(|error| ReadError(Kind::Json(error)))
        }
    }

    /// An error in place of a response that says 4xx or 5xx. (Redirects are not followed: 3xx is a
    /// response.)
    fn error_for_status(self) -> Result<Self, StatusError>;
}

/// As much as [`ResponseExt::bytes`], `text` and `json` read: 64 MiB.
///
/// Example: [reading a response](crate::http::ResponseExt)
pub const MOST_BYTES: usize = 64 << 20;

/// Why a response's body could not be read as it was wanted.
///
/// Displays in one line with its cause, as [`Error`](super::Error) does. The instance had answered: what
/// the request asked for may be done.
///
/// Example: [reading a response](crate::http::ResponseExt)
#[derive(Debug)]
pub struct ReadError(Kind);

#[derive(Debug)]
enum Kind {
    Body(transport::Error),
    TooLong(usize),
    /// So many bytes of it were UTF-8.
    Text(usize),
    Json(serde_json::Error),
}

/// A response that says 4xx or 5xx. Holds it.
///
/// Example: [reading a response](crate::http::ResponseExt)
pub struct StatusError {
    status: StatusCode,
    /// In a mutex only because a body need not be `Sync`, as errors have to be.
    response: Box<Mutex<Response<ResponseBody>>>,
}

impl ReadError {
    /// Whether the connection failed, or the peer cut the response, before its end.
    pub const fn is_body(&self) -> bool {
        matches!(self.0, Kind::Body(_))
    }

    /// Whether it is longer than it may be.
    pub const fn is_too_long(&self) -> bool {
        matches!(self.0, Kind::TooLong(_))
    }

    /// The error behind it, for programs: what it says is said.
    pub fn cause(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.0 {
            Kind::Body(error) => Some(error),
            Kind::Json(error) => Some(error),
            Kind::TooLong(_) | Kind::Text(_) => None,
        }
    }

    /// Whether it is not the text or the JSON that it was read as.
    pub const fn is_decode(&self) -> bool {
        matches!(self.0, Kind::Text(_) | Kind::Json(_))
    }
}

impl StatusError {
    /// The status.
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// The response, with its body, which often says more.
    pub fn into_response(self) -> Response<ResponseBody> {
        let response = self.response.into_inner();
        response.unwrap_or_else(PoisonError::into_inner)
    }
}

impl ResponseExt for Response<ResponseBody> {
    async fn bytes_within(self, most: usize) -> Result<Bytes, ReadError> {
        let mut body = self.into_body();
        let mut first = Bytes::new();
        // In one piece: each of many small ones would cost more than its bytes.
        let mut rest = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| ReadError(Kind::Body(error)))?;
            let Ok(data) = frame.into_data() else {
                continue; // trailers
            };
            if data.len() > most - first.len() - rest.len() {
                return Err(ReadError(Kind::TooLong(most)));
            }
            if first.is_empty() && rest.is_empty() {
                first = data; // often the only one, and not copied
            } else {
                rest.extend_from_slice(&mem::take(&mut first));
                rest.extend_from_slice(&data);
            }
        }
        Ok(if rest.is_empty() {
            first
        } else {
            rest.freeze()
        })
    }

    fn error_for_status(self) -> Result<Self, StatusError> {
        let status = self.status();
        if status.is_client_error() || status.is_server_error() {
            let response = Box::new(Mutex::new(self));
            return Err(StatusError { status, response });
        }
        Ok(self)
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Body(error) => write!(f, "the response broke off: {error}"),
            Kind::TooLong(most) => write!(
                f,
                "the response's body is longer than the {most} bytes that it may have: read it piece by \
                 piece, or allow more with bytes_within"
            ),
            Kind::Text(valid) => write!(f, "the response is no UTF-8 from byte {valid} on"),
            Kind::Json(error) => {
                write!(f, "the response is not the JSON that was expected: {error}")
            }
        }
    }
}

impl StdError for ReadError {}

impl fmt::Display for StatusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the response says {}", self.status)
    }
}

impl fmt::Debug for StatusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StatusError").field(&self.status).finish()
    }
}

impl StdError for StatusError {}

mod sealed {
    use super::{Response, ResponseBody};

    pub trait Sealed: Send {}
    impl Sealed for Response<ResponseBody> {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::assert_said_once;

    #[test]
    fn what_is_wrong_with_json_is_said_once() {
        let json = serde_json::from_str::<u32>("[1]").unwrap_err();
        let words = json.to_string();
        let error = ReadError(Kind::Json(json));
        assert_said_once(&error, &[&words]);
        assert!(error.cause().is_some());
    }
}

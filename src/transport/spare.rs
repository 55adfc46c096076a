//! What is kept of a request that may be sent again, and how that looks.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, header::CONTENT_TYPE};

use crate::{
    endpoint::Keep,
    retry::Retry,
    transport::{
        attempt::is_sent_once_more,
        body::{
            request::{Body, Kind},
            tape::Tape,
        },
        error::Error,
    },
};

/// Put into a request's extensions it says that the request may be processed twice, whatever its
/// method. gRPC's is POST: a call of a client that tonic generated has it in the extensions of its
/// [`tonic::Request`].
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Idempotent;

/// What is kept of a request to send it again.
struct Spare {
    head: Request<()>,
    body: Kept,
    /// That tells which try it is.
    header: Option<HeaderName>,
}

enum Kept {
    Empty,
    Full(Bytes),
    Stream(Arc<Tape>),
}

/// What to send the request again with, if it may be. It is told which try it is, if that is wanted.
pub(super) fn keep(
    request: &mut Request<Body>,
    retry: &Retry,
) -> Option<Box<dyn Keep<Request<Body>, Error>>> {
    if let Some(header) = retry.header() {
        number(request, header, 1);
    }
    let marked = request.extensions().get::<Idempotent>().is_some();
    if !marked && !retry.takes_every_request() && !request.method().is_idempotent() {
        return None;
    }
    let body = match std::mem::take(&mut request.body_mut().0) {
        Kind::Empty => Kept::Empty,
        Kind::Full(bytes) => {
            *request.body_mut() = bytes.clone().into();
            Kept::Full(bytes)
        }
        Kind::Stream(stream) => {
            let tape = Tape::new(stream);
            *request.body_mut() = tape.play().unwrap_or_default(); // nothing was sent of it
            Kept::Stream(tape)
        }
    };
    let header = retry.header().cloned();
    let head = copy(request);
    Some(Box::new(Spare { head, body, header }))
}

impl Keep<Request<Body>, Error> for Spare {
    fn can_again(&mut self) -> Result<(), &'static str> {
        match &self.body {
            Kept::Empty | Kept::Full(_) => Ok(()),
            Kept::Stream(tape) => tape.can_play(),
        }
    }

    fn again(&mut self, attempt: u32) -> Option<Request<Body>> {
        let body = match &self.body {
            Kept::Empty => Body::empty(),
            Kept::Full(bytes) => bytes.clone().into(),
            Kept::Stream(tape) => tape.play().ok()?,
        };
        Some(self.head(attempt).map(|()| body))
    }

    fn beside(&mut self, attempt: u32) -> Option<Request<Body>> {
        let body = match &self.body {
            Kept::Empty => Body::empty(),
            Kept::Full(bytes) => bytes.clone().into(),
            // Its playback is the first's.
            Kept::Stream(tape) => tape.whole()?.into(),
        };
        Some(self.head(attempt).map(|()| body))
    }

    fn moves(&mut self, request: &Request<Body>) {
        // How often it was refused, and whether it was lost: both hold for the call.
        self.head.extensions_mut().clone_from(request.extensions());
    }

    fn explain(&self, error: &mut Error, why: &str) {
        error.says(&format!("; it is not sent again (Retry), since {why}"));
    }
}

impl Spare {
    /// As this try has it.
    fn head(&mut self, attempt: u32) -> Request<()> {
        if let Some(header) = &self.header {
            number(&mut self.head, header, attempt);
        }
        if is_grpc(&self.head) {
            number(
                &mut self.head,
                &PREVIOUS_ATTEMPTS,
                attempt.saturating_sub(1),
            );
        }
        // It counts its tries here, and the first may have been processed.
        is_sent_once_more(&mut self.head);
        copy(&self.head)
    }
}

impl Drop for Spare {
    /// It will not be sent again.
    fn drop(&mut self) {
        if let Kept::Stream(tape) = &self.body {
            tape.settle();
        }
    }
}

/// The head of it.
fn copy<B>(request: &Request<B>) -> Request<()> {
    let mut head = Request::new(());
    head.method_mut().clone_from(request.method());
    head.uri_mut().clone_from(request.uri());
    *head.version_mut() = request.version();
    head.headers_mut().clone_from(request.headers());
    head.extensions_mut().clone_from(request.extensions());
    head
}

fn number<B>(request: &mut Request<B>, header: &HeaderName, number: u32) {
    request
        .headers_mut()
        .insert(header.clone(), HeaderValue::from(number));
}

fn is_grpc<B>(request: &Request<B>) -> bool {
    let kind = request.headers().get(CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// gRPC A6: how many tries there were before this one.
const PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");

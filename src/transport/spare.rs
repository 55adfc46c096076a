//! What is kept of a request that may be sent again, and how that looks.

use std::{cell::RefCell, sync::Arc};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request};

use crate::{
    endpoint::Keep,
    retry::Retry,
    transport::{
        attempt::is_sent_once_more,
        body::{
            gather::gather,
            request::{Body, Kind},
            tape::Tape,
        },
        error::Error,
        form::is_grpc,
        head::Head,
        idempotent::Idempotent,
    },
};

/// What is kept of a request to send it again.
#[derive(Default)]
struct Spare {
    head: Head,
    body: Kept,
    /// That tells which try it is.
    header: Option<HeaderName>,
}

#[derive(Default)]
enum Kept {
    #[default]
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
    if !request.method().is_idempotent() && !retry.takes_every_request() && !is_marked(request) {
        return None;
    }
    let mut kind = std::mem::take(&mut request.body_mut().0);
    if let Kind::Stream(stream) = kind {
        kind = match is_grpc(request.headers()) {
            true => gather(stream).map_or_else(Kind::Stream, Kind::Full),
            false => Kind::Stream(stream),
        };
    }
    let body = match kind {
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
    let spare = LET_GO.try_with(|spares| spares.borrow_mut().pop());
    let mut spare = spare.ok().flatten().unwrap_or_default();
    spare.head.copy(request);
    spare.body = body;
    spare.header = retry.header().cloned();
    Some(spare)
}

fn is_marked<B>(request: &Request<B>) -> bool {
    request.extensions().get::<Idempotent>().is_some()
}

/// What is lent is the box, too.
type Spares = Vec<Box<Spare>>;

thread_local! {
    /// Of calls that have ended on this thread: most requests have about as many headers as the one before.
    static LET_GO: RefCell<Spares> = const { RefCell::new(Vec::new()) };
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
        Some(self.request(attempt, body))
    }

    fn beside(&mut self, attempt: u32) -> Option<Request<Body>> {
        let body = match &self.body {
            Kept::Empty => Body::empty(),
            Kept::Full(bytes) => bytes.clone().into(),
            // Its playback is the first's.
            Kept::Stream(tape) => tape.whole()?.into(),
        };
        Some(self.request(attempt, body))
    }

    fn moves(&mut self, request: &Request<Body>) {
        // How often it was refused, and whether it was lost: both hold for the call.
        self.head.extensions.copy(request.extensions());
    }

    fn let_go(mut self: Box<Self>) {
        self.settle();
        self.body = Kept::Empty;
        if self.head.forget() {
            let _ = LET_GO.try_with(|spares| {
                let mut spares = spares.borrow_mut();
                if spares.len() < MOST_SPARES {
                    spares.push(self);
                }
            });
        }
    }

    fn explain(&self, error: &mut Error, why: &str) {
        error.says(&format!("; it is not sent again (Retry), since {why}"));
    }
}

impl Spare {
    /// As this try has it.
    fn request(&self, attempt: u32, body: Body) -> Request<Body> {
        let mut request = self.head.request(body);
        if let Some(header) = &self.header {
            number(&mut request, header, attempt);
        }
        if is_grpc(request.headers()) {
            let before = attempt.saturating_sub(1);
            number(&mut request, &PREVIOUS_ATTEMPTS, before);
        }
        // It counts its tries here, and the first may have been processed.
        is_sent_once_more(&mut request);
        request
    }

    /// It will not be sent again.
    fn settle(&self) {
        if let Kept::Stream(tape) = &self.body {
            tape.settle();
        }
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        self.settle();
    }
}

fn number<B>(request: &mut Request<B>, header: &HeaderName, number: u32) {
    request
        .headers_mut()
        .insert(header.clone(), HeaderValue::from(number));
}

/// How many a thread keeps for calls to come.
const MOST_SPARES: usize = 64;
/// gRPC A6: how many tries there were before this one.
const PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");

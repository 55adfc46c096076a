use std::{future::poll_fn, sync::Arc, task::Poll};

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::{Request, Response, StatusCode};
use http_body::Body as _;

use crate::transport::{
    attempt::{Failed, may_be_sent_once_more, misdirected},
    body::{
        gather::gather,
        recording::Recording,
        request::{Body, Kind},
    },
    error::{ErrorKind, Evidence},
    form,
    http2::{
        failure::{Ended, Sent, not_opened},
        pool::Place,
        upload::{AbortOnDrop, Upload},
    },
    spawn::spawn,
};

/// Sends the request and waits for the response's headers.
pub(in crate::transport) async fn exchange(
    place: Place,
    request: Request<Body>,
) -> Result<(Response<RecvStream>, Held), Failed> {
    let once_more = place.pool().options.once_more
        && place.connection().has_answered()
        && may_be_sent_once_more(&request);
    let (parts, body) = request.into_parts();
    let peer = &place.pool().peer;
    let tells = peer.named.tells(&parts.headers);
    let head = match form::for_http2(&parts, &body, &peer.named, peer.secure) {
        Ok(head) => head,
        Err(why) => {
            return Err(Failed::Error(peer.error(
                ErrorKind::Request,
                Evidence::Unsent,
                format!("the request cannot be sent: {why}"),
            )));
        }
    };
    let ends = body.is_end_stream();
    let writes = place.connection().writes();
    let mut send = place.connection().sender();
    place.connection().beginning();
    let (response, mut stream) = match send.send_request(head, ends) {
        Ok(opened) => opened,
        Err(error) => {
            let request = Request::from_parts(parts, body);
            return Err(not_opened(&place, error, request));
        }
    };
    drop(send);
    let id = stream.stream_id().as_u32();
    if id > LAST_STREAM {
        place.pool().retire(place.connection()); // its ids run out; the next call takes another
    }
    let mut held = Held::Own(place);
    let sent = match body.0 {
        _ if ends => Sent::Empty,
        Kind::Empty => Sent::Empty,
        Kind::Full(bytes) => full(&mut stream, bytes),
        // A unary call's message is all there, and ends with its frame.
        Kind::Stream(body) => match gather(body) {
            Ok(bytes) => full(&mut stream, bytes),
            Err(body) => {
                let recording = Arc::new(Recording::new(body));
                let mut upload = Upload::new(Arc::clone(&recording), stream);
                // Many bodies are all there: then no task is needed.
                let done = poll_fn(|cx| Poll::Ready(upload.poll(cx))).await;
                if done.is_pending() {
                    held = held.share(|with| {
                        let task = spawn(async move {
                            upload.await;
                            drop(with);
                        });
                        AbortOnDrop::new(task.abort_handle())
                    });
                }
                Sent::Stream(recording)
            }
        },
    };
    match response.await {
        Ok(response) => {
            if tells && response.status() == StatusCode::MISDIRECTED_REQUEST {
                held.place().connection().answered();
                let body = sent.take_back();
                let kept = body.map(|body| Request::from_parts(parts, body));
                let kept = kept.ok_or("more of its body was sent than is kept to send it again");
                let failed = misdirected(&held.place().pool().peer, kept);
                drop(held);
                return Err(failed);
            }
            if let Sent::Stream(recording) = &sent {
                recording.settle();
            }
            held.place().connection().answered();
            Ok((response, held))
        }
        Err(error) => {
            let unwritten = held.place().connection().writes() == writes;
            let ended = Ended {
                error,
                stream: id,
                unwritten,
                once_more,
            };
            let failed = ended.explain(held.place(), parts, sent);
            drop(held); // not before: an upload that is given up looks like one that failed
            Err(failed)
        }
    }
}

/// A place on a connection, perhaps shared with the task that still sends the request's body.
pub(in crate::transport) enum Held {
    Own(Place),
    /// With what ends that task when this is dropped.
    Shared(Arc<Place>, AbortOnDrop),
}

impl Held {
    /// Shares it with a task that ends when this is dropped, unless it [`end`](Self::end)ed.
    fn share(self, task: impl FnOnce(Arc<Place>) -> AbortOnDrop) -> Self {
        let place = match self {
            Self::Own(place) => Arc::new(place),
            Self::Shared(place, _) => place,
        };
        let task = task(Arc::clone(&place));
        Self::Shared(place, task)
    }

    /// All of the response came: what is still sent may go on.
    pub(in crate::transport) fn end(self) {
        if let Self::Shared(_, uploading) = self {
            uploading.disarm();
        }
    }

    pub(in crate::transport) fn place(&self) -> &Place {
        match self {
            Self::Own(place) => place,
            Self::Shared(place, _) => place,
        }
    }
}

/// What the peer's window has no room for waits inside of h2, by reference. If the stream is closed already, the
/// response says why.
fn full(stream: &mut SendStream<Bytes>, bytes: Bytes) -> Sent {
    let _ = stream.send_data(bytes.clone(), true);
    Sent::Full(bytes)
}

/// Streams have odd ids below 2^31; the last million is left.
const LAST_STREAM: u32 = (1 << 31) - (1 << 20);

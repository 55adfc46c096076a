//! A stream that is remembered as it goes, so that it can go on elsewhere.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tower::BoxError;

use crate::transport::body::request::{Body, Kind, Stream};

/// A stream that is being sent, and what it yielded so far. Shared by the task that sends it and
/// the call that may have to take it back.
pub(in crate::transport) struct Recording(Mutex<State>);

struct State {
    /// `None` once it was taken back.
    rest: Option<Stream>,
    frames: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
    kept: usize,
    keeping: Keeping,
    /// What the stream itself failed with.
    failure: Option<BoxError>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Keeping {
    Yes,
    /// More than is kept was yielded.
    TooMuch,
    /// There is nothing to keep it for.
    No,
}

/// What was yielded before, and then the rest.
struct Resumed {
    frames: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
    rest: Stream,
}

impl Recording {
    pub(in crate::transport) fn new(stream: Stream) -> Self {
        Self(Mutex::new(State {
            rest: Some(stream),
            frames: VecDeque::new(),
            trailers: None,
            kept: 0,
            keeping: Keeping::Yes,
            failure: None,
        }))
    }

    /// The next frame. An error is kept for the call, and told here only as such.
    pub(in crate::transport) fn poll_frame(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ()>>> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let Some(rest) = &mut state.rest else {
            return Poll::Ready(Some(Err(())));
        };
        Poll::Ready(match ready!(rest.as_mut().poll_frame(cx)) {
            None => None,
            Some(Ok(frame)) => {
                state.keep(&frame);
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                state.failure = Some(error);
                Some(Err(()))
            }
        })
    }

    pub(in crate::transport) fn is_end_stream(&self) -> bool {
        self.lock()
            .rest
            .as_ref()
            .is_none_or(|rest| rest.is_end_stream())
    }

    /// Response headers came: it will not be sent again.
    pub(in crate::transport) fn settle(&self) {
        let mut state = self.lock();
        state.keeping = Keeping::No;
        state.forget();
    }

    /// Nobody sends it any more, though it has not ended.
    pub(in crate::transport) fn give_up(&self) {
        let mut state = self.lock();
        let why = || "it panicked, or the runtime that sent it has ended".into();
        state.failure.get_or_insert_with(why);
    }

    /// What the stream failed with, if it did.
    pub(in crate::transport) fn failure(&self) -> Option<BoxError> {
        self.lock().failure.take()
    }

    /// The body as it was before it was sent. None, and nothing has changed, if it failed, or too much
    /// of it was yielded to be kept.
    pub(in crate::transport) fn take_back(&self) -> Option<Body> {
        let mut state = self.lock();
        if state.keeping != Keeping::Yes || state.failure.is_some() {
            return None;
        }
        let rest = state.rest.take()?;
        let frames = std::mem::take(&mut state.frames);
        let trailers = state.trailers.take();
        if frames.is_empty() && trailers.is_none() {
            return Some(Body(Kind::Stream(rest)));
        }
        Some(Body(Kind::Stream(Box::pin(Resumed {
            frames,
            trailers,
            rest,
        }))))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn keep(&mut self, frame: &Frame<Bytes>) {
        if self.keeping != Keeping::Yes {
            return;
        }
        if let Some(data) = frame.data_ref() {
            self.kept += data.len();
            if self.kept > MOST_KEPT || self.frames.len() == MOST_FRAMES {
                self.keeping = Keeping::TooMuch;
                self.forget();
            } else {
                self.frames.push_back(data.clone());
            }
        } else if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
        }
    }

    fn forget(&mut self) {
        self.frames = VecDeque::new();
        self.trailers = None;
    }
}

impl HttpBody for Resumed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(data) = self.frames.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let Some(trailers) = self.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        self.rest.as_mut().poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.trailers.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let kept: u64 = self.frames.iter().map(|data| data.len() as u64).sum();
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(kept));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(kept));
        }
        hint
    }
}

/// How much of a body is kept, in bytes: what most requests are below, and little beside what a
/// connection's own buffers take.
pub(in crate::transport) const MOST_KEPT: usize = 64 * 1024;
/// And in how many pieces: a piece keeps alive whatever buffer it is a part of.
pub(in crate::transport) const MOST_FRAMES: usize = 256;

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use http_body_util::BodyExt;

    use super::*;

    struct Pieces(VecDeque<Result<Bytes, BoxError>>);

    impl HttpBody for Pieces {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            let next = self.0.pop_front();
            Poll::Ready(next.map(|piece| piece.map(Frame::data)))
        }
    }

    fn recording(pieces: impl IntoIterator<Item = &'static str>) -> Recording {
        let pieces = pieces
            .into_iter()
            .map(|p| Ok(Bytes::from_static(p.as_bytes())));
        Recording::new(Box::pin(Pieces(pieces.collect())))
    }

    fn step(recording: &Recording) -> Poll<Option<Result<Frame<Bytes>, ()>>> {
        recording.poll_frame(&mut Context::from_waker(Waker::noop()))
    }

    #[tokio::test]
    async fn what_was_yielded_comes_again_and_then_the_rest() {
        for yielded in 0..=4 {
            let recording = recording(["a", "b", "c"]);
            for _ in 0..yielded {
                let _ = step(&recording);
            }
            let body = recording.take_back().unwrap();
            assert!(matches!(step(&recording), Poll::Ready(Some(Err(())))));
            let bytes = body.collect().await.unwrap().to_bytes();
            assert_eq!(bytes, "abc", "after {yielded} pieces");
        }
    }

    #[test]
    fn a_body_is_given_up_beyond_64_kib() {
        static PIECE: [u8; 32 * 1024] = [b'x'; 32 * 1024];
        let pieces = || {
            let piece = || Ok(Bytes::from_static(&PIECE));
            Recording::new(Box::pin(Pieces((0..3).map(|_| piece()).collect())))
        };
        let kept = pieces();
        let _ = (step(&kept), step(&kept));
        assert!(kept.take_back().is_some());
        let lost = pieces();
        let _ = (step(&lost), step(&lost), step(&lost));
        assert!(lost.take_back().is_none());
        let settled = pieces();
        let _ = step(&settled);
        settled.settle();
        assert!(settled.take_back().is_none());
    }

    #[test]
    fn a_body_is_given_up_beyond_256_pieces() {
        for (pieces, kept) in [(256, true), (257, false)] {
            let recording = recording(std::iter::repeat_n("x", pieces + 1));
            for _ in 0..pieces {
                let _ = step(&recording);
            }
            assert_eq!(recording.take_back().is_some(), kept, "{pieces} pieces");
        }
    }

    #[test]
    fn the_streams_own_failure_is_kept_for_the_call() {
        let recording = Recording::new(Box::pin(Pieces([Err("no disk".into())].into())));
        assert!(matches!(step(&recording), Poll::Ready(Some(Err(())))));
        // Nobody is sent what came before as if it were all.
        assert!(recording.take_back().is_none());
        assert_eq!(recording.failure().unwrap().to_string(), "no disk");
    }
}

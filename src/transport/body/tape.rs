//! A stream that can be played from its beginning, for a request that is sent again.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tower::BoxError;

use crate::transport::body::{
    recording::{MOST_FRAMES, MOST_KEPT},
    request::{Body, Kind, Stream},
};

/// A stream and what it yielded so far, up to 64 KiB. One [`Playback`] at a time sends it: the
/// newest.
pub(in crate::transport) struct Tape {
    state: Mutex<State>,
    /// What the stream said of its size: each attempt is to look like the first.
    size: SizeHint,
}

struct State {
    /// `None` while it is polled, and for good if it panicked then.
    rest: Option<Stream>,
    ended: bool,
    frames: Vec<Bytes>,
    trailers: Option<HeaderMap>,
    bytes: usize,
    keeping: Keeping,
    /// Which playback may go on.
    turn: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Keeping {
    Yes,
    /// More than is kept was yielded.
    TooMuch,
    /// There is nothing to keep it for.
    No,
    /// The stream failed. What it says after that, its end even, is not to be taken for the body's.
    Failed,
}

/// The body of one attempt.
struct Playback {
    tape: Arc<Tape>,
    turn: u32,
    /// How many of the frames it has yielded.
    next: usize,
    trailed: bool,
}

impl Tape {
    pub(in crate::transport) fn new(stream: Stream) -> Arc<Self> {
        let size = stream.size_hint();
        let state = Mutex::new(State {
            rest: Some(stream),
            ended: false,
            frames: Vec::new(),
            trailers: None,
            bytes: 0,
            keeping: Keeping::Yes,
            turn: 0,
        });
        Arc::new(Self { state, size })
    }

    /// Whether there is one to play from its beginning.
    ///
    /// # Errors
    ///
    /// Why it cannot be repeated.
    pub(in crate::transport) fn can_play(&self) -> Result<(), &'static str> {
        self.lock().can_play()
    }

    /// The body from its beginning. Whoever sent it before cannot go on.
    ///
    /// # Errors
    ///
    /// Why it cannot be repeated.
    pub(in crate::transport) fn play(self: &Arc<Self>) -> Result<Body, &'static str> {
        let mut state = self.lock();
        state.can_play()?;
        state.turn = state.turn.wrapping_add(1);
        let playback = Playback {
            tape: Arc::clone(self),
            turn: state.turn,
            next: 0,
            trailed: false,
        };
        Ok(Body(Kind::Stream(Box::pin(playback))))
    }

    /// All of it in one piece, if all of it was yielded and is kept, and there are no trailers.
    pub(in crate::transport) fn whole(&self) -> Option<Bytes> {
        let state = self.lock();
        let rest = state.rest.as_ref();
        let ended = state.ended || rest.is_some_and(|rest| rest.is_end_stream());
        if !ended || state.keeping != Keeping::Yes || state.trailers.is_some() {
            return None;
        }
        Some(match &state.frames[..] {
            [one] => one.clone(),
            several => several.concat().into(),
        })
    }

    /// Response headers came: it will not be sent again.
    pub(in crate::transport) fn settle(&self) {
        let mut state = self.lock();
        if state.keeping == Keeping::Yes {
            state.keeping = Keeping::No;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    const fn can_play(&self) -> Result<(), &'static str> {
        if self.rest.is_none() {
            return Err("its body panicked");
        }
        match self.keeping {
            Keeping::Yes => Ok(()),
            Keeping::TooMuch => Err("more of its body was sent than the 64 KiB that are kept"),
            Keeping::No => Err("its response had begun"),
            Keeping::Failed => Err("its body failed"),
        }
    }

    fn keep(&mut self, frame: &Frame<Bytes>) {
        if self.keeping != Keeping::Yes {
            return;
        }
        if let Some(data) = frame.data_ref() {
            self.bytes += data.len();
            if self.bytes > MOST_KEPT || self.frames.len() == MOST_FRAMES {
                self.keeping = Keeping::TooMuch;
            } else {
                self.frames.push(data.clone());
            }
        } else if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
        }
    }
}

impl Playback {
    /// What was yielded before, as far as it is kept and this has not played it yet.
    fn replayed(&mut self, state: &State) -> Option<Frame<Bytes>> {
        if let Some(data) = state.frames.get(self.next) {
            self.next += 1;
            return Some(Frame::data(data.clone()));
        }
        if !self.trailed
            && let Some(trailers) = &state.trailers
        {
            self.trailed = true;
            return Some(Frame::trailers(trailers.clone()));
        }
        None
    }
}

impl HttpBody for Playback {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let tape = Arc::clone(&self.tape);
        let mut guard = tape.lock();
        let state = &mut *guard;
        if state.turn != self.turn {
            return Poll::Ready(Some(Err("the request was sent elsewhere".into())));
        }
        if let Some(frame) = self.replayed(state) {
            return Poll::Ready(Some(Ok(frame)));
        }
        if state.ended {
            return Poll::Ready(None);
        }
        let Some(mut rest) = state.rest.take() else {
            return Poll::Ready(Some(Err("the request's body panicked".into())));
        };
        let polled = rest.as_mut().poll_frame(cx);
        state.rest = Some(rest);
        let polled = ready!(polled);
        match &polled {
            None => state.ended = true,
            Some(Ok(frame)) => {
                state.keep(frame);
                // What is kept is what this has played.
                self.next = state.frames.len();
                self.trailed |= frame.is_trailers();
            }
            Some(Err(_)) => state.keeping = Keeping::Failed,
        }
        if state.keeping != Keeping::Yes {
            state.frames = Vec::new();
            state.trailers = None;
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        let state = self.tape.lock();
        let played = self.next >= state.frames.len() && (self.trailed || state.trailers.is_none());
        let rest = state.rest.as_ref();
        played && (state.ended || rest.is_none_or(|rest| rest.is_end_stream()))
    }

    fn size_hint(&self) -> SizeHint {
        if self.next == 0 && !self.trailed {
            return self.tape.size;
        }
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use futures_util::FutureExt;
    use http_body_util::BodyExt;

    use super::*;

    /// Panics when it is polled after its end.
    struct Pieces(Option<VecDeque<Result<Frame<Bytes>, BoxError>>>);

    impl HttpBody for Pieces {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            let next = self.0.as_mut().expect("polled after its end").pop_front();
            if next.is_none() {
                self.0 = None;
            }
            Poll::Ready(next)
        }
    }

    fn tape(pieces: impl IntoIterator<Item = Bytes>) -> Arc<Tape> {
        let data = pieces.into_iter().map(|piece| Ok(Frame::data(piece)));
        let trailers =
            [("sum", "3")].map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let trailers = Ok(Frame::trailers(trailers.into_iter().collect()));
        let all = data.chain([trailers]).collect();
        Tape::new(Box::pin(Pieces(Some(all))))
    }

    fn letters() -> Arc<Tape> {
        tape(["a", "b", "c"].map(Bytes::from_static_str))
    }

    trait FromStaticStr {
        fn from_static_str(text: &'static str) -> Self;
    }

    impl FromStaticStr for Bytes {
        fn from_static_str(text: &'static str) -> Self {
            Self::from_static(text.as_bytes())
        }
    }

    fn step(body: &mut Body) -> Option<Result<Frame<Bytes>, BoxError>> {
        body.frame().now_or_never().expect("all is there")
    }

    #[tokio::test]
    async fn each_playback_is_the_whole_body_however_far_the_one_before_came() {
        let tape = letters();
        for yielded in [0, 1, 2, 3, 4, 5, 2, 5] {
            let mut before = tape.play().unwrap();
            for _ in 0..yielded {
                let _ = step(&mut before);
            }
            let all = tape.play().unwrap();
            assert!(step(&mut before).unwrap().is_err(), "it goes on elsewhere");
            let all = all.collect().await.unwrap();
            assert_eq!(all.trailers().unwrap()["sum"], "3");
            assert_eq!(all.to_bytes(), "abc", "after {yielded} pieces");
        }
    }

    #[test]
    fn its_end_and_its_size_are_told() {
        let tape = letters();
        let mut body = tape.play().unwrap();
        let _ = (step(&mut body), step(&mut body));
        drop(body);
        let mut again = tape.play().unwrap();
        assert_eq!(again.size_hint().exact(), None, "as the first time");
        for _ in 0..4 {
            assert!(!again.is_end_stream());
            assert!(step(&mut again).unwrap().is_ok());
        }
        assert!(step(&mut again).is_none() && again.is_end_stream());
    }

    #[tokio::test]
    async fn beyond_64_kib_it_goes_on_and_cannot_be_repeated() {
        let piece = Bytes::from(vec![b'x'; 32 * 1024]);
        for (pieces, repeats) in [(2, true), (3, false)] {
            let tape = tape(vec![piece.clone(); pieces]);
            let sent = tape.play().unwrap().collect().await.unwrap().to_bytes();
            assert_eq!(sent.len(), pieces * 32 * 1024);
            assert_eq!(tape.play().is_ok(), repeats, "{pieces}");
        }
        let many = tape(vec![Bytes::from_static(b"x"); 257]);
        assert_eq!(
            many.play()
                .unwrap()
                .collect()
                .await
                .unwrap()
                .to_bytes()
                .len(),
            257
        );
        assert_eq!(
            many.play().unwrap_err(),
            "more of its body was sent than the 64 KiB that are kept"
        );
    }

    #[tokio::test]
    async fn once_settled_it_goes_on_and_nothing_is_kept() {
        let tape = letters();
        let mut body = tape.play().unwrap();
        let _ = step(&mut body);
        tape.settle();
        assert_eq!(body.collect().await.unwrap().to_bytes(), "bc");
        assert!(tape.play().is_err());
    }

    #[test]
    fn a_failure_and_a_panic_of_its_own_are_not_repeated() {
        let failing = [Err("no disk".into())].into();
        let tape = Tape::new(Box::pin(Pieces(Some(failing))));
        let failed = step(&mut tape.play().unwrap()).unwrap().unwrap_err();
        assert_eq!(failed.to_string(), "no disk");
        assert_eq!(tape.play().unwrap_err(), "its body failed");
        // Half of it and an end is no body.
        let half = Ok(Frame::data(Bytes::from_static(b"half")));
        let cut = [half, Err("no disk".into())].into();
        let tape = Tape::new(Box::pin(Pieces(Some(cut))));
        let mut body = tape.play().unwrap();
        assert!(step(&mut body).unwrap().is_ok() && step(&mut body).unwrap().is_err());
        assert!(step(&mut body).is_none(), "as many streams do");
        assert_eq!(tape.play().unwrap_err(), "its body failed");
        assert_eq!(tape.whole(), None);
        let panicking = Tape::new(Box::pin(Pieces(None)));
        let mut body = panicking.play().unwrap();
        let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| step(&mut body)));
        assert!(polled.is_err());
        assert!(step(&mut body).unwrap().is_err());
        assert_eq!(panicking.play().unwrap_err(), "its body panicked");
    }
}

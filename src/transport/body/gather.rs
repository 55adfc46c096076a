//! A unary call's body, which is one piece and there already: as bytes it is sent with its end in one frame, and again
//! for nothing.

use std::{
    any::Any,
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tower::BoxError;

use crate::transport::body::{recording::MOST_KEPT, request::Stream};

/// What a stream said when it was looked at, and then the rest.
struct Begun {
    said: VecDeque<Said>,
    /// As it was before that, until something of it is taken.
    size: Option<SizeHint>,
    rest: Stream,
}

enum Said {
    Piece(Option<Result<Frame<Bytes>, BoxError>>),
    Panicked(Box<dyn Any + Send>),
}

/// All of the stream, if that is one piece, not larger than what is kept of any; if not, the stream as it was.
/// Whoever polls that finds what was found here, be it a panic.
pub(in crate::transport) fn gather(mut stream: Stream) -> Result<Bytes, Stream> {
    let size = stream.size_hint();
    let first = match look(&mut stream) {
        // Nobody was woken for this: who sends it polls it again.
        None => return Err(stream),
        Some(Said::Piece(Some(Ok(first)))) if is_small(&first) => first,
        Some(said) => return Err(begun([said], size, stream)),
    };
    let again = |first| Said::Piece(Some(Ok(first)));
    if stream.is_end_stream() {
        // As its senders do: it need not bear to be polled once more.
        return first
            .into_data()
            .map_err(|first| begun([again(first)], size, stream));
    }
    match look(&mut stream) {
        None => Err(begun([again(first)], size, stream)),
        Some(Said::Piece(None)) => match first.into_data() {
            Ok(all) => Ok(all),
            Err(first) => Err(begun([again(first), Said::Piece(None)], size, stream)),
        },
        Some(said) => Err(begun([again(first), said], size, stream)),
    }
}

fn is_small(frame: &Frame<Bytes>) -> bool {
    frame.data_ref().is_some_and(|data| data.len() <= MOST_KEPT)
}

/// What it says next, if it says anything yet.
fn look(stream: &mut Stream) -> Option<Said> {
    let mut cx = Context::from_waker(Waker::noop());
    let poll = AssertUnwindSafe(|| stream.as_mut().poll_frame(&mut cx));
    match catch_unwind(poll) {
        Ok(Poll::Pending) => None,
        Ok(Poll::Ready(piece)) => Some(Said::Piece(piece)),
        Err(panic) => Some(Said::Panicked(panic)),
    }
}

fn begun<const N: usize>(said: [Said; N], size: SizeHint, rest: Stream) -> Stream {
    let (said, size) = (said.into(), Some(size));
    Box::pin(Begun { said, size, rest })
}

impl HttpBody for Begun {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.size = None;
        match self.said.pop_front() {
            Some(Said::Piece(piece)) => Poll::Ready(piece),
            Some(Said::Panicked(panic)) => resume_unwind(panic),
            None => self.rest.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.said.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match (self.size, self.said.is_empty()) {
            (Some(size), _) => size,
            (None, true) => self.rest.size_hint(),
            (None, false) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::{StreamExt, stream};
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    type Frames = Vec<Frame<Bytes>>;

    fn of(frames: Frames) -> Stream {
        let all = stream::iter(frames.into_iter().map(Ok::<_, BoxError>));
        Box::pin(StreamBody::new(all))
    }

    fn data(text: &'static str) -> Frame<Bytes> {
        Frame::data(Bytes::from_static(text.as_bytes()))
    }

    #[tokio::test]
    async fn one_piece_is_bytes_and_all_else_is_what_it_was() {
        assert_eq!(gather(of(vec![data("one")])).ok().unwrap(), "one");
        let large = vec![0; MOST_KEPT + 1];
        let trailers = || Frame::trailers([].into_iter().collect());
        let others: [(Frames, usize); 5] = [
            (vec![], 0),
            (vec![data("one"), data("two")], 6),
            (vec![data("one"), trailers()], 3),
            (vec![trailers()], 0),
            (vec![Frame::data(large.into())], MOST_KEPT + 1),
        ];
        for (at, (frames, len)) in others.into_iter().enumerate() {
            let count = frames.len();
            let mut same = gather(of(frames)).err().unwrap();
            let (mut seen, mut bytes) = (0, 0);
            while let Some(frame) = same.frame().await {
                seen += 1;
                bytes += frame.unwrap().data_ref().map_or(0, Bytes::len);
            }
            assert_eq!((seen, bytes), (count, len), "{at}");
        }
    }

    /// Six bytes in pieces of three, that says how many are left, and panics when it is polled behind its end.
    struct Sized(Vec<&'static str>);

    impl HttpBody for Sized {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            Poll::Ready(Some(Ok(data(self.0.pop().expect("a piece")))))
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_empty()
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(3 * self.0.len() as u64)
        }
    }

    #[tokio::test]
    async fn a_body_says_how_much_is_left_however_it_was_looked_at() {
        assert_eq!(gather(Box::pin(Sized(vec!["one"]))).ok().unwrap(), "one");
        let mut two = gather(Box::pin(Sized(vec!["two", "one"]))).err().unwrap();
        assert_eq!(two.size_hint().exact(), Some(6));
        for _ in 0..2 {
            two.frame().await.unwrap().unwrap();
            // What is sent again is told apart from what is left: no byte may count twice.
            assert!(two.size_hint().lower() <= 3, "{:?}", two.size_hint());
            assert_ne!(two.size_hint().exact(), Some(6));
        }
        assert_eq!(two.size_hint().exact(), Some(0));
        assert!(two.is_end_stream());
    }

    #[tokio::test]
    async fn what_is_not_there_yet_comes_later() {
        let (tx, rx) = tokio::sync::mpsc::unbounded_channel::<Frame<Bytes>>();
        let rx = stream::unfold(rx, async |mut rx| Some((rx.recv().await?, rx)));
        let body = StreamBody::new(rx.map(Ok::<_, Infallible>));
        let stream: Stream = Box::pin(body.map_err(Into::into));
        let later = gather(stream).err().unwrap();
        tx.send(data("la")).unwrap();
        let later = gather(later).err().unwrap(); // there may be more
        tx.send(data("ter")).unwrap();
        drop(tx);
        assert_eq!(later.collect().await.unwrap().to_bytes(), "later");
    }

    #[tokio::test]
    async fn failures_and_panics_wait_for_who_sends_it() {
        let fails = stream::iter([Ok(data("one")), Err(BoxError::from("no disk"))]);
        let mut stream = gather(Box::pin(StreamBody::new(fails))).err().unwrap();
        assert!(stream.frame().await.unwrap().is_ok());
        let failed = stream.frame().await.unwrap().unwrap_err();
        assert_eq!(failed.to_string(), "no disk");

        let panics = stream::poll_fn(|_| -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            panic!("on purpose")
        });
        let mut stream = gather(Box::pin(StreamBody::new(panics))).err().unwrap();
        let polled = AssertUnwindSafe(stream.frame());
        let panicked = futures_util::FutureExt::catch_unwind(polled).await;
        assert_eq!(
            *panicked.err().unwrap().downcast_ref::<&str>().unwrap(),
            "on purpose"
        );
    }
}

//! Clients that ping too often are told so and left, as grpc-java's `KeepAliveEnforcer` does.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::core::now;

/// One more is too many.
const STRIKES: u32 = 2;
const PREFACE: usize = 24;
const HEAD: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PING: u8 = 6;
const ACK: u8 = 1;
/// On stream 0, type 7: last stream, ENHANCE_YOUR_CALM, and why.
const GOODBYE: &[u8] =
    b"\x00\x00\x16\x07\x00\x00\x00\x00\x00\x7f\xff\xff\xff\x00\x00\x00\x0btoo_many_pings";

/// The server's side of an HTTP/2 connection.
pub(super) struct Enforced<T> {
    io: T,
    read: Frames,
    written: Frames,
    pings: Pings,
    /// What is left of the goodbye, once that is due.
    goodbye: Option<&'static [u8]>,
}

/// Where one direction of a connection stands.
struct Frames {
    /// Bytes to pass by before the next head.
    skip: usize,
    head: Vec<u8>,
}

/// How often a client may ping.
#[derive(Debug)]
struct Pings {
    every: Duration,
    last: Option<Instant>,
    strikes: u32,
}

impl<T> Enforced<T> {
    /// A ping may follow another after `every`, or after something was answered.
    pub(super) fn new(io: T, every: Duration) -> Self {
        Self {
            io,
            read: Frames::after(PREFACE),
            written: Frames::after(0),
            pings: Pings {
                every,
                last: None,
                strikes: 0,
            },
            goodbye: None,
        }
    }
}

impl<T: AsyncWrite + Unpin> Enforced<T> {
    /// Says goodbye; the end of what can be read follows.
    fn poll_leave(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.goodbye.filter(|rest| !rest.is_empty()) {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Ok(()));
            }
            self.goodbye = Some(&rest[written..]);
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Enforced<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.goodbye.is_some() {
            return this.poll_leave(cx);
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        let mut enough = false;
        let (read, pings) = (&mut this.read, &mut this.pings);
        read.pass(&buf.filled()[before..], |kind, flags| {
            enough |= kind == PING && flags & ACK == 0 && !pings.may(now());
        });
        if !enough {
            return Poll::Ready(Ok(()));
        }
        buf.set_filled(before);
        // Within a frame nothing can be said.
        let whole = this.written.is_between();
        this.goodbye = Some(if whole { GOODBYE } else { &[] });
        this.poll_leave(cx)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Enforced<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.goodbye.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let written = ready!(Pin::new(&mut this.io).poll_write(cx, buf))?;
        let pings = &mut this.pings;
        this.written.pass(&buf[..written], |kind, _| {
            if matches!(kind, DATA | HEADERS) {
                pings.forget();
            }
        });
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = bufs.iter().find(|buf| !buf.is_empty());
        self.poll_write(cx, first.map_or(&[], |buf| buf))
    }
}

impl Frames {
    const fn after(skip: usize) -> Self {
        Self {
            skip,
            head: Vec::new(),
        }
    }

    fn pass(&mut self, mut bytes: &[u8], mut frame: impl FnMut(u8, u8)) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            let taken = (HEAD - self.head.len()).min(bytes.len());
            self.head.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.head.len() == HEAD {
                self.skip = self.head[..3]
                    .iter()
                    .fold(0, |length, byte| length << 8 | usize::from(*byte));
                frame(self.head[3], self.head[4]);
                self.head.clear();
            }
        }
    }

    fn is_between(&self) -> bool {
        self.skip == 0 && self.head.is_empty()
    }
}

impl Pings {
    fn may(&mut self, now: Instant) -> bool {
        let early = self
            .last
            .is_some_and(|last| now.saturating_duration_since(last) < self.every);
        if early {
            self.strikes += 1;
        } else {
            self.last = Some(now);
        }
        self.strikes <= STRIKES
    }

    const fn forget(&mut self) {
        self.last = None;
        self.strikes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_told_however_they_are_cut() {
        let mut bytes = vec![b'x'; PREFACE];
        bytes.extend(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"); // SETTINGS
        bytes.extend(b"\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678"); // PING
        bytes.extend(b"\x00\x00\x08\x06\x01\x00\x00\x00\x0012345678"); // its ACK
        for cut in 1..bytes.len() {
            let mut frames = Frames::after(PREFACE);
            let mut seen = Vec::new();
            for part in bytes.chunks(cut) {
                frames.pass(part, |kind, flags| seen.push((kind, flags)));
            }
            assert_eq!(seen, [(4, 0), (PING, 0), (PING, ACK)], "{cut}");
            assert!(frames.is_between());
        }
    }

    #[test]
    fn three_pings_that_come_too_early_are_too_many_and_an_answer_forgives() {
        let mut pings = Pings {
            every: Duration::from_secs(300),
            last: None,
            strikes: 0,
        };
        let start = now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!([0, 10, 20].map(|s| pings.may(at(s))).iter().all(|may| *may));
        pings.forget();
        assert!(
            [30, 40, 50]
                .map(|s| pings.may(at(s)))
                .iter()
                .all(|may| *may)
        );
        assert!(!pings.may(at(60)));
        pings.forget();
        assert!(
            (1..100).all(|n| pings.may(at(300 * n + 60))),
            "as often as one may"
        );
    }
}

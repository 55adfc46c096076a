//! Which frames a peer sends, by their heads alone: `h2` does not tell.

/// Follows a peer's frames through what is read, whatever pieces that comes in.
#[derive(Default)]
pub(in crate::transport) struct Frames {
    head: [u8; HEAD],
    /// How much of the head is there.
    have: usize,
    /// How much of the payload is to come.
    rest: usize,
    /// The stream that ends with this frame.
    ending: Option<u32>,
    /// How much of a GOAWAY's last stream id is there, and that.
    leaving: Option<(usize, [u8; 4])>,
}

/// What a frame tells of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transport) enum Told {
    /// A head, or trailers, began.
    Head(u32),
    /// Its last frame is there as a whole.
    End(u32),
    /// The connection is to end; this was the last stream that was taken.
    Last(u32),
}

impl Frames {
    /// Whether HEADERS, CONTINUATION or DATA began in these bytes: what a peer says of its own
    /// accord. The others are acknowledgements, credit and the connection's own matters.
    ///
    /// `tell` is told what they say of streams.
    pub(in crate::transport) fn scan(
        &mut self,
        mut bytes: &[u8],
        mut tell: impl FnMut(Told),
    ) -> bool {
        let mut said = false;
        loop {
            let skipped = self.rest.min(bytes.len());
            if let Some(last) = self.leave(&bytes[..skipped]) {
                tell(Told::Last(last));
            }
            self.rest -= skipped;
            bytes = &bytes[skipped..];
            if self.rest == 0
                && let Some(stream) = self.ending.take()
            {
                tell(Told::End(stream));
            }
            if bytes.is_empty() {
                return said;
            }
            let taken = bytes.len().min(HEAD - self.have);
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have < HEAD {
                return said;
            }
            self.have = 0;
            let [a, b, c, kind, flags, stream @ ..] = self.head;
            self.rest = u32::from_be_bytes([0, a, b, c]) as usize;
            said |= matches!(kind, DATA | HEADERS | CONTINUATION);
            if kind == HEADERS {
                tell(Told::Head(stream_id(stream)));
            }
            self.leaving = (kind == GOAWAY).then_some((0, [0; 4]));
            // Of a head in several frames it is not followed up to its end.
            let whole = kind == DATA || kind == HEADERS && flags & END_HEADERS != 0;
            if whole && flags & END_STREAM != 0 {
                self.ending = Some(stream_id(stream));
            }
        }
    }

    /// More of a GOAWAY's payload: its last stream id, once that is there.
    fn leave(&mut self, payload: &[u8]) -> Option<u32> {
        let (have, id) = self.leaving.as_mut()?;
        for byte in payload.iter().take(id.len() - *have) {
            id[*have] = *byte;
            *have += 1;
        }
        let id = (*have == id.len()).then(|| stream_id(*id))?;
        self.leaving = None;
        Some(id)
    }
}

const HEAD: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// The first bit is reserved, and says nothing (RFC 9113, 4.1).
const fn stream_id(bytes: [u8; 4]) -> u32 {
    u32::from_be_bytes(bytes) & !(1 << 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, length: usize) -> Vec<u8> {
        flagged(kind, 0, 1, length)
    }

    fn flagged(kind: u8, flags: u8, stream: u8, length: usize) -> Vec<u8> {
        let size = (length as u32).to_be_bytes();
        let mut frame = vec![size[1], size[2], size[3], kind, flags, 0, 0, 0, stream];
        // A payload that looks like heads of DATA.
        frame.extend(std::iter::repeat_n(0, length));
        frame
    }

    #[test]
    fn only_headers_and_data_count_however_the_bytes_are_cut() {
        for (kinds, expected) in [
            (&[4, 6, 8, 7, 3][..], 0),
            (&[6, 0, 6], 1),
            (&[1, 9, 8], 2),
            (&[6, 6, 1], 1),
        ] {
            let bytes: Vec<u8> = kinds.iter().flat_map(|kind| frame(*kind, 40)).collect();
            for piece in 1..=bytes.len() {
                let mut frames = Frames::default();
                let said = bytes
                    .chunks(piece)
                    .filter(|piece| frames.scan(piece, |_| {}))
                    .count();
                assert!(said <= expected, "{kinds:?} in pieces of {piece}");
                assert_eq!(said > 0, expected > 0, "{kinds:?} in pieces of {piece}");
                assert_eq!((frames.have, frames.rest), (0, 0));
            }
        }
    }
    #[test]
    fn a_stream_has_ended_when_its_last_frame_is_there_as_a_whole() {
        let bytes = [
            flagged(HEADERS, END_STREAM | END_HEADERS, 1, 5),
            flagged(HEADERS, END_HEADERS, 3, 5),
            flagged(DATA, END_STREAM, 3, 0),
            flagged(HEADERS, END_STREAM, 5, 5), // goes on
            flagged(6, 1, 0, 8),
            flagged(DATA, END_STREAM, 7, 30),
        ]
        .concat();
        for piece in 1..=bytes.len() {
            let (mut frames, mut told) = (Frames::default(), Vec::new());
            for (at, piece) in bytes.chunks(piece).enumerate() {
                frames.scan(piece, |what| told.push((at, what)));
            }
            let (last, before) = told.split_last().unwrap();
            let before: Vec<_> = before.iter().map(|(_, what)| *what).collect();
            let expected = [
                Told::Head(1),
                Told::End(1),
                Told::Head(3),
                Told::End(3),
                Told::Head(5),
            ];
            assert_eq!(before, expected, "in pieces of {piece}");
            let chunks = bytes.chunks(piece).count();
            assert_eq!(*last, (chunks - 1, Told::End(7)), "in pieces of {piece}");
        }
    }

    #[test]
    fn a_goaway_tells_which_stream_was_the_last() {
        let mut goaway = flagged(GOAWAY, 0, 0, 8);
        goaway[HEAD..HEAD + 4].copy_from_slice(&[0x80, 0, 1, 7]); // with the reserved bit
        goaway.extend(flagged(DATA, 0, 9, 12));
        for piece in 1..=goaway.len() {
            let (mut frames, mut told) = (Frames::default(), Vec::new());
            for piece in goaway.chunks(piece) {
                frames.scan(piece, |what| told.push(what));
            }
            assert_eq!(told, [Told::Last(263)], "in pieces of {piece}");
        }
    }
}

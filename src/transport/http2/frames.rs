//! Which frames a peer sends, by their heads alone: `h2` does not tell.

/// Follows a peer's frames through what is read, whatever pieces that comes in.
#[derive(Default)]
pub(in crate::transport) struct Frames {
    head: [u8; HEAD],
    /// How much of the head is there.
    have: usize,
    /// How much of the payload is to come.
    rest: usize,
}

impl Frames {
    /// Whether HEADERS, CONTINUATION or DATA began in these bytes: what a peer says of its own
    /// accord. The others are acknowledgements, credit and the connection's own matters.
    pub(in crate::transport) fn scan(&mut self, mut bytes: &[u8]) -> bool {
        let mut said = false;
        loop {
            let skipped = self.rest.min(bytes.len());
            self.rest -= skipped;
            bytes = &bytes[skipped..];
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
            let [a, b, c, kind, ..] = self.head;
            self.rest = u32::from_be_bytes([0, a, b, c]) as usize;
            said |= matches!(kind, DATA | HEADERS | CONTINUATION);
        }
    }
}

const HEAD: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, length: usize) -> Vec<u8> {
        let size = (length as u32).to_be_bytes();
        let mut frame = vec![size[1], size[2], size[3], kind, 0, 0, 0, 0, 1];
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
                    .filter(|piece| frames.scan(piece))
                    .count();
                assert!(said <= expected, "{kinds:?} in pieces of {piece}");
                assert_eq!(said > 0, expected > 0, "{kinds:?} in pieces of {piece}");
                assert_eq!((frames.have, frames.rest), (0, 0));
            }
        }
    }
}

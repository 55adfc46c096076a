//! FNV-1a of 128 bits (Fowler, Noll, Vo): the sum that a file carries, and what its name is told
//! apart by. Each step is a bijection of the state, so a change of any one byte shows for certain.
//! It guards against accidents; who may write to the folder may write whatever he likes.

const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

/// The sum of what `parts` hold, one after the other.
pub(super) fn checksum<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u128 {
    let bytes = parts.into_iter().flatten();
    bytes.fold(OFFSET, |sum, byte| {
        (sum ^ u128::from(*byte)).wrapping_mul(PRIME)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The published values of FNV-1a.
    #[test]
    fn sums_are_those_of_the_paper() {
        let of = |text: &str| checksum([text.as_bytes()]);
        assert_eq!(of(""), OFFSET);
        assert_eq!(of("a"), 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
        assert_eq!(of("foobar"), 0x343e_1662_793c_64bf_6f0d_3597_ba44_6f18);
    }
}

//! What a gate remembers of a secret.

use std::fmt;

use subtle::ConstantTimeEq;

/// The first half of a SHA-256 under a gate's own key: of 2¹²⁸ guesses one would meet it, and whether it does shows only
/// by asking the gate. `==` is for keys of maps; what is presented is compared by [`is`](Self::is).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Tag([u64; 2]);

impl Tag {
    /// Where nothing is tagged.
    pub(crate) const NONE: Self = Self([0; 2]);

    /// The tag of a hash's final state.
    #[inline(always)]
    pub(crate) fn of_state([a, b, c, d, ..]: [u32; 8]) -> Self {
        let word = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
        Self([word(a, b), word(c, d)])
    }

    #[cfg(test)]
    pub(crate) const fn words(&self) -> [u64; 2] {
        self.0
    }

    /// In constant time. By words, which costs a tenth of what it does by bytes.
    #[inline(always)]
    pub(crate) fn is(&self, other: &Self) -> bool {
        let differing = self.0.iter().zip(&other.0).fold(0, |all, (one, two)| all | (one ^ two));
        differing.ct_eq(&0).into()
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[tag]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_that_differ_in_one_bit_anywhere_are_others() {
        let tag = Tag([1, 2]);
        assert!(tag.is(&tag.clone()));
        for bit in 0..128 {
            let mut other = tag;
            other.0[bit / 64] ^= 1 << (bit % 64);
            assert!(!tag.is(&other), "bit {bit}");
        }
    }
}

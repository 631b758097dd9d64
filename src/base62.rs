//! Random and checksum text over the alphabet `0-9A-Za-z`.
//!
//! Base62 survives a double click, a URL and every shell without quoting, which is why token text uses it.

use std::fmt;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The operating system gave no random bytes.
#[derive(Debug)]
pub struct RandomError(getrandom::Error);

impl fmt::Display for RandomError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the operating system's random source failed")
    }
}

impl std::error::Error for RandomError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

/// Fills `bytes` from the operating system's CSPRNG.
pub(crate) fn random_bytes(bytes: &mut [u8]) -> Result<(), RandomError> {
    getrandom::fill(bytes).map_err(RandomError)
}

/// `N` independent, uniformly distributed base62 digits.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], RandomError> {
    let mut text = [0_u8; N];
    let mut written = 0;
    let mut pool = [0_u8; 64];
    while written < N {
        random_bytes(&mut pool)?;
        // Six bits name 64 values; the two beyond the alphabet are drawn again, so no digit is favoured.
        let digits = pool.iter().filter_map(|byte| ALPHABET.get(usize::from(byte & 63)));
        for (slot, digit) in text.iter_mut().skip(written).zip(digits) {
            *slot = *digit;
            written += 1;
        }
    }
    zeroize::Zeroize::zeroize(&mut pool);
    Ok(text)
}

/// `value` as exactly six digits, most significant first. 62⁶ > 2³², so every `u32` fits.
pub(crate) fn encode_u32(mut value: u32) -> [u8; 6] {
    let mut text = [b'0'; 6];
    for slot in text.iter_mut().rev() {
        // The remainder of a division by 62 is always an index into the alphabet.
        *slot = ALPHABET.get((value % 62) as usize).copied().unwrap_or(b'0');
        value /= 62;
    }
    text
}

/// Whether `text` is [`encode_u32`] of `value`. Where it is not, the last digit mostly tells.
pub(crate) fn encodes_u32(text: &[u8; 6], mut value: u32) -> bool {
    text.iter().rev().all(|digit| {
        let expected = ALPHABET.get((value % 62) as usize);
        value /= 62;
        expected == Some(digit)
    })
}

/// The first `N` bytes of `digest` as base62 digits; near enough to uniform for a public id.
pub(crate) fn from_digest<const N: usize>(digest: &[u8; 32]) -> [u8; N] {
    let mut text = [b'0'; N];
    for (slot, byte) in text.iter_mut().zip(digest) {
        *slot = ALPHABET.get(usize::from(byte % 62)).copied().unwrap_or(b'0');
    }
    text
}

/// Whether every byte is a base62 digit.
pub(crate) fn is_base62(bytes: &[u8]) -> bool {
    // Without a branch for each byte: the compiler looks at sixteen at a time.
    bytes.iter().fold(true, |all, byte| all & byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_digits_hold_every_u32() {
        assert_eq!(&encode_u32(0), b"000000");
        assert_eq!(&encode_u32(61), b"00000z");
        assert_eq!(&encode_u32(62), b"000010");
        assert_eq!(&encode_u32(u32::MAX), b"4gfFC3");
    }

    #[test]
    fn six_digits_encode_one_value() {
        for value in [0, 1, 61, 62, 0x1234_5678, u32::MAX] {
            let text = encode_u32(value);
            assert!(encodes_u32(&text, value));
            assert!(!encodes_u32(&text, value ^ 1) && !encodes_u32(&text, value ^ (1 << 31)));
            for at in 0..6 {
                let mut other = text;
                other[at] = if other[at] == b'0' { b'1' } else { b'0' };
                assert!(!encodes_u32(&other, value), "{value} {at}");
            }
        }
    }

    #[test]
    fn random_text_uses_the_whole_alphabet_and_nothing_else() {
        let text = random::<4096>().unwrap();
        assert!(is_base62(&text));
        for digit in ALPHABET {
            assert!(text.contains(digit), "{} never drawn", char::from(*digit));
        }
    }

    #[test]
    fn text_outside_the_alphabet_is_told() {
        assert!(is_base62(b"09AZaz"));
        for other in ["-", "_", " ", "é", "\0"] {
            assert!(!is_base62(other.as_bytes()), "{other:?}");
        }
    }
}

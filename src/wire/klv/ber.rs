//! BER lengths and BER-OID tags (SMPTE ST 336; MISB ST 0107): bytes enter, numbers leave, and back. Never trusts a
//! length: what points behind the end is refused before anything is made of it.

/// Why a tag or a length could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BerError {
    /// The bytes end in its middle.
    Truncated,
    /// It needs more than 64 bits (lengths) or 32 bits (tags), or is the indefinite form, which KLV forbids.
    TooLarge,
}

/// Reads a BER length; short form, long form and non-minimal long form.
///
/// # Errors
/// [`BerError`] when it is cut off or too large.
pub fn read_length(bytes: &[u8]) -> Result<(u64, &[u8]), BerError> {
    let (&first, rest) = bytes.split_first().ok_or(BerError::Truncated)?;
    if first < 0x80 {
        return Ok((u64::from(first), rest));
    }
    let count = usize::from(first & 0x7f);
    // 0x80 is the indefinite form, 0xff is reserved (ISO/IEC 8825-1, 8.1.3)
    if count == 0 || count == 0x7f {
        return Err(BerError::TooLarge);
    }
    let (digits, rest) = rest.split_at_checked(count).ok_or(BerError::Truncated)?;
    let digits = significant(digits);
    if digits.len() > 8 {
        return Err(BerError::TooLarge);
    }
    Ok((digits.iter().fold(0, |sum, &b| sum << 8 | u64::from(b)), rest))
}

/// Reads a BER-OID number: seven bits in each byte, the high bit says that more follow.
///
/// # Errors
/// [`BerError`] when it is cut off or needs more than 64 bits.
pub fn read_oid(bytes: &[u8]) -> Result<(u64, &[u8]), BerError> {
    let mut value: u64 = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if value >> 57 != 0 {
            return Err(BerError::TooLarge);
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte < 0x80 {
            return Ok((value, bytes.get(at + 1..).unwrap_or_default()));
        }
    }
    Err(BerError::Truncated)
}

/// Reads a length and what it counts.
///
/// # Errors
/// [`BerError`] when either is cut off.
pub fn read_counted(bytes: &[u8]) -> Result<(&[u8], &[u8]), BerError> {
    let (length, rest) = read_length(bytes)?;
    let length = usize::try_from(length).map_err(|_| BerError::TooLarge)?;
    rest.split_at_checked(length).ok_or(BerError::Truncated)
}

/// Writes a length in its shortest form.
pub fn write_length(length: u64, out: &mut Vec<u8>) {
    if length < 0x80 {
        out.push(length as u8);
        return;
    }
    let digits = length.to_be_bytes();
    let digits = significant(&digits);
    out.push(0x80 | digits.len() as u8);
    out.extend_from_slice(digits);
}

/// Writes a BER-OID number in its shortest form.
pub fn write_oid(value: u64, out: &mut Vec<u8>) {
    let groups = (64 - value.leading_zeros()).div_ceil(7).max(1);
    for group in (0..groups).rev() {
        let more = if group > 0 { 0x80 } else { 0 };
        out.push(more | (value >> (7 * group) & 0x7f) as u8);
    }
}

/// The digits without leading zeros.
fn significant(digits: &[u8]) -> &[u8] {
    digits.iter().position(|&b| b != 0).map_or(&[], |at| &digits[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_in_every_form() {
        assert_eq!(read_length(&[0x7f, 9]), Ok((127, &[9][..])));
        assert_eq!(read_length(&[0x81, 0x91]), Ok((145, &[][..])));
        assert_eq!(read_length(&[0x83, 0, 0, 5]), Ok((5, &[][..])));
        assert_eq!(read_length(&[0x8a, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]), Ok((1 << 56, &[][..])));
        assert_eq!(read_length(&[0x80]), Err(BerError::TooLarge));
        assert_eq!(read_length(&[0xff]), Err(BerError::TooLarge));
        assert_eq!(read_length(&[0x89, 1, 0, 0, 0, 0, 0, 0, 0, 0]), Err(BerError::TooLarge));
        assert_eq!(read_length(&[0x82, 1]), Err(BerError::Truncated));
        assert_eq!(read_length(&[]), Err(BerError::Truncated));
    }

    #[test]
    fn a_length_bomb_is_no_slice() {
        assert_eq!(
            read_counted(&[0x88, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
            Err(BerError::Truncated)
        );
    }

    #[test]
    fn oids_are_read_in_every_length() {
        assert_eq!(read_oid(&[0x7f, 1]), Ok((127, &[1][..])));
        assert_eq!(read_oid(&[0x81, 0x0f]), Ok((143, &[][..])));
        assert_eq!(read_oid(&[0x81]), Err(BerError::Truncated));
        assert_eq!(read_oid(&[0xff; 12]), Err(BerError::TooLarge));
    }

    #[test]
    fn what_is_written_is_read_again() {
        for value in [0, 1, 127, 128, 143, 255, 256, 16_383, 16_384, 1 << 35, u64::MAX >> 1, u64::MAX] {
            let mut out = Vec::new();
            write_length(value, &mut out);
            assert_eq!(read_length(&out), Ok((value, &[][..])));
            out.clear();
            write_oid(value, &mut out);
            assert_eq!(read_oid(&out), Ok((value, &[][..])), "{value} as {out:x?}");
        }
    }
}

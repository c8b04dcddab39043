//! Snappy's block format, read only: what remote write compresses with. Output is bounded by what the caller allows,
//! whatever the input claims.

/// Input that is no snappy block, or too much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SnappyError {
    /// It breaks off, points outside of itself, or does not have the length it claims.
    #[error("the body is no snappy block")]
    Malformed,
    /// It is longer than allowed.
    #[error("the body is longer than {0} bytes when it is unpacked")]
    TooLong(usize),
}

/// Unpacks one block of at most `bytes_most`.
pub(crate) fn unpack(packed: &[u8], bytes_most: usize) -> Result<Vec<u8>, SnappyError> {
    let mut input = Input(packed);
    let claimed = usize::try_from(input.varint()?).map_err(|_| SnappyError::Malformed)?;
    if claimed > bytes_most {
        return Err(SnappyError::TooLong(bytes_most));
    }
    // A claim alone reserves nothing: what is really there decides.
    let mut output = Vec::with_capacity(claimed.min(packed.len().saturating_mul(4)));
    while !input.0.is_empty() {
        element(&mut input, &mut output, claimed)?;
    }
    if output.len() != claimed {
        return Err(SnappyError::Malformed);
    }
    Ok(output)
}

/// A run of new bytes, or a copy of bytes that were there before.
fn element(
    input: &mut Input<'_>,
    output: &mut Vec<u8>,
    length_most: usize,
) -> Result<(), SnappyError> {
    let tag = input.little_endian(1)?;
    let upper = tag >> 2;
    let (length, offset) = match tag & 3 {
        0 => {
            let length = match upper {
                0..=59 => upper + 1,
                // 60 to 63: the length follows in one to four bytes.
                _ => input.little_endian(upper - 59)? + 1,
            };
            let new = input.take(length)?;
            if output.len() + new.len() > length_most {
                return Err(SnappyError::Malformed);
            }
            output.extend_from_slice(new);
            return Ok(());
        }
        1 => (
            (upper & 7) + 4,
            ((upper >> 3) << 8) | input.little_endian(1)?,
        ),
        2 => (upper + 1, input.little_endian(2)?),
        _ => (upper + 1, input.little_endian(4)?),
    };
    let from = output.len().checked_sub(offset).filter(|_| offset > 0);
    let from = from.ok_or(SnappyError::Malformed)?;
    if output.len() + length > length_most {
        return Err(SnappyError::Malformed);
    }
    // A copy may reach into what it writes itself.
    for index in from..from + length {
        output.push(output[index]);
    }
    Ok(())
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], SnappyError> {
        let split = self.0.split_at_checked(length);
        let (taken, rest) = split.ok_or(SnappyError::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn little_endian(&mut self, bytes: usize) -> Result<usize, SnappyError> {
        let bytes = self.take(bytes)?.iter().rev();
        Ok(bytes.fold(0, |number, byte| (number << 8) | usize::from(*byte)))
    }

    /// At most 32 bits, as the format has it.
    fn varint(&mut self) -> Result<u32, SnappyError> {
        let mut number = 0_u64;
        for shift in (0..35).step_by(7) {
            let byte = self.little_endian(1)? as u64;
            number |= (byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(number).map_err(|_| SnappyError::Malformed);
            }
        }
        Err(SnappyError::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::writing::pack;
    use super::*;

    const MOST: usize = 1 << 16;

    #[test]
    fn runs_and_copies_of_each_width_are_read() {
        // "abcd", then a copy of 4 at offset 4 with a one-byte offset, two bytes, four bytes.
        let one = [8, 0x0c, b'a', b'b', b'c', b'd', 0b0000_0001, 4];
        assert_eq!(unpack(&one, MOST).unwrap(), b"abcdabcd");
        let two = [8, 0x0c, b'a', b'b', b'c', b'd', (3 << 2) | 2, 4, 0];
        assert_eq!(unpack(&two, MOST).unwrap(), b"abcdabcd");
        let four = [8, 0x0c, b'a', b'b', b'c', b'd', (3 << 2) | 3, 4, 0, 0, 0];
        assert_eq!(unpack(&four, MOST).unwrap(), b"abcdabcd");
        // A copy that overlaps what it writes repeats it.
        let repeated = [7, 0x00, b'x', (5 << 2) | 2, 1, 0];
        assert_eq!(unpack(&repeated, MOST).unwrap(), b"xxxxxxx");
        // A length of its own in the next byte.
        let mut long = vec![70, 60 << 2, 69];
        long.extend([b'z'; 70]);
        assert_eq!(unpack(&long, MOST).unwrap(), [b'z'; 70]);
    }

    #[test]
    fn what_claims_or_becomes_too_much_is_refused() {
        assert_eq!(
            unpack(&[0xff, 0xff, 0xff, 0xff, 0x0f], MOST).unwrap_err(),
            SnappyError::TooLong(MOST)
        );
        // Claims one byte, copies sixty.
        let bomb = [1, 0x00, b'x', (59 << 2) | 2, 1, 0];
        assert_eq!(unpack(&bomb, MOST).unwrap_err(), SnappyError::Malformed);
        for broken in [&[][..], &[5], &[4, 0x0c, b'a'], &[4, 0x01, 9], &[0x80; 6]] {
            assert_eq!(unpack(broken, MOST).unwrap_err(), SnappyError::Malformed);
        }
    }

    proptest! {
        #[test]
        fn what_was_packed_is_read_back(plain in prop::collection::vec(any::<u8>(), 0..2_000)) {
            prop_assert_eq!(unpack(&pack(&plain), MOST).unwrap(), plain);
        }

        #[test]
        fn any_input_ends_within_its_bounds(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(plain) = unpack(&bytes, 1_000) {
                prop_assert!(plain.len() <= 1_000);
            }
        }
    }
}

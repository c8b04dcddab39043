//! Protobuf's wire format, as far as log groups need it. Reading is bounded by its input and never panics.

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The bytes end inside a field.
    #[error("the message ends inside a field")]
    Truncated,
    /// A number of more than 64 bits.
    #[error("a number is longer than 64 bits")]
    Overlong,
    /// A kind of field that this format does not have.
    #[error("field {field} has wire type {kind}, which is not known")]
    Kind {
        /// The field's number.
        field: u32,
        /// The wire type.
        kind: u8,
    },
    /// A text that is no UTF-8.
    #[error("field {field} is not UTF-8")]
    Text {
        /// The field's number.
        field: u32,
    },
    /// A mandatory field is absent.
    #[error("mandatory field {field} of {message} is missing")]
    Missing {
        /// The message's name.
        message: &'static str,
        /// The field's name.
        field: &'static str,
    },
}

/// A field's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
    Fixed64,
}

impl<'a> Value<'a> {
    pub(super) fn text(self, field: u32) -> Result<&'a str, WireError> {
        match self {
            Self::Bytes(bytes) => std::str::from_utf8(bytes).map_err(|_| WireError::Text { field }),
            _ => Err(WireError::Kind { field, kind: 0 }),
        }
    }
}

/// The fields of a message, one after the other.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    /// The next field with its number.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, WireError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.number()?;
        let field = u32::try_from(tag >> 3).map_err(|_| WireError::Overlong)?;
        let value = match tag & 7 {
            0 => Value::Number(self.number()?),
            1 => {
                self.take(8)?;
                Value::Fixed64
            }
            2 => {
                let length = usize::try_from(self.number()?).map_err(|_| WireError::Truncated)?;
                Value::Bytes(self.take(length)?)
            }
            5 => {
                let bytes = self.take(4)?;
                Value::Fixed32(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            }
            kind => {
                let kind = kind.to_le_bytes()[0];
                return Err(WireError::Kind { field, kind });
            }
        };
        Ok(Some((field, value)))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        if length > self.0.len() {
            return Err(WireError::Truncated);
        }
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u64, WireError> {
        let mut number = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.take(1)?[0];
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(WireError::Overlong);
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(WireError::Overlong)
    }
}

pub(super) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

pub(super) fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_number(out, u64::from(field) << 3 | 2);
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(super) fn put_tagged_number(out: &mut Vec<u8>, field: u32, number: u64) {
    put_number(out, u64::from(field) << 3);
    put_number(out, number);
}

pub(super) fn put_fixed32(out: &mut Vec<u8>, field: u32, number: u32) {
    put_number(out, u64::from(field) << 3 | 5);
    out.extend_from_slice(&number.to_le_bytes());
}

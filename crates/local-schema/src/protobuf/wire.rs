//! The wire format: tags, varints, length-delimited bytes.

use super::ProtobufError;

/// One field's value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wire<'b> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'b [u8]),
    Fixed32,
}

/// Reads the fields of one message.
pub(super) struct Reader<'b, 'n> {
    rest: &'b [u8],
    message: &'n str,
}

impl<'b, 'n> Reader<'b, 'n> {
    pub(super) fn new(bytes: &'b [u8], message: &'n str) -> Self {
        Self {
            rest: bytes,
            message,
        }
    }

    /// The next field, `None` at the end.
    pub(super) fn field(&mut self) -> Result<Option<(u64, Wire<'b>)>, ProtobufError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let (number, kind) = (tag >> 3, tag & 7);
        if number == 0 {
            return Err(self.refuse(format!("illegal tag 0 (wire type {kind})")));
        }
        let wire = match kind {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = self.varint()?;
                let length = usize::try_from(length).map_err(|_| self.end())?;
                Wire::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Wire::Fixed32
            }
            other => return Err(self.refuse(format!("wiretype {other} is not supported"))),
        };
        Ok(Some((number, wire)))
    }

    pub(super) fn varint(&mut self) -> Result<u64, ProtobufError> {
        let mut value: u64 = 0;
        for shift in (0..64).step_by(7) {
            let Some((byte, rest)) = self.rest.split_first() else {
                return Err(self.end());
            };
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.refuse("integer overflow".to_string()))
    }

    pub(super) fn is_done(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn text(&self, bytes: &[u8]) -> Result<String, ProtobufError> {
        std::str::from_utf8(bytes)
            .map(str::to_string)
            .map_err(|_| self.refuse("invalid UTF-8".to_string()))
    }

    fn take(&mut self, length: usize) -> Result<&'b [u8], ProtobufError> {
        if self.rest.len() < length {
            return Err(self.end());
        }
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ProtobufError> {
        let bytes = self.take(N)?;
        bytes.try_into().map_err(|_| self.end())
    }

    fn end(&self) -> ProtobufError {
        self.refuse("unexpected EOF".to_string())
    }

    pub(super) fn refuse(&self, reason: String) -> ProtobufError {
        let short = self.message.rsplit('.').next().unwrap_or_default();
        ProtobufError::Wire {
            message: short.to_string(),
            reason,
        }
    }
}

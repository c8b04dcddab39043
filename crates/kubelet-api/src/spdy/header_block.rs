//! Header blocks: name and value pairs, compressed with one zlib stream per direction for the connection's life.

use bytes::{Buf, BufMut, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use super::dictionary::{CHECKSUM, DICTIONARY};
use super::frame::ProtocolError;
use super::{HEADER_BLOCK_BYTES_MAX, HEADERS_MAX};

/// Names (lower case) and values, in the order of the block.
pub type Headers = Vec<(String, String)>;

/// Output is taken from zlib in pieces of this size.
const PIECE_BYTES: usize = 4 * 1024;

/// Reads the blocks of one direction, in order.
pub(crate) struct HeaderReader {
    zlib: Decompress,
}

impl HeaderReader {
    pub(crate) fn new() -> Self {
        Self {
            zlib: Decompress::new(true),
        }
    }

    /// After an error the stream of blocks cannot be read any further.
    pub(crate) fn read(&mut self, compressed: &[u8]) -> Result<Headers, ProtocolError> {
        let block = self.decompress(compressed)?;
        parse(&block)
    }

    fn decompress(&mut self, mut input: &[u8]) -> Result<Vec<u8>, ProtocolError> {
        let mut block = Vec::new();
        let mut piece = [0; PIECE_BYTES];
        loop {
            let (before_in, before_out) = (self.zlib.total_in(), self.zlib.total_out());
            let result = self
                .zlib
                .decompress(input, &mut piece, FlushDecompress::Sync);
            // Both are at most the lengths of the slices given.
            let read = (self.zlib.total_in() - before_in) as usize;
            let written = (self.zlib.total_out() - before_out) as usize;
            input = input.get(read..).unwrap_or_default();
            block.extend_from_slice(&piece[..written]);
            if block.len() > HEADER_BLOCK_BYTES_MAX {
                return Err(ProtocolError::HeadersTooLong);
            }
            match result {
                Ok(flate2::Status::StreamEnd) => return Err(ProtocolError::Compression),
                Ok(_) if input.is_empty() && written < piece.len() => return Ok(block),
                Ok(_) if read == 0 && written == 0 => return Err(ProtocolError::Compression),
                Ok(_) => {}
                Err(error) if error.needs_dictionary() == Some(CHECKSUM) => {
                    self.zlib
                        .set_dictionary(&DICTIONARY)
                        .map_err(|_| ProtocolError::Compression)?;
                }
                Err(_) => return Err(ProtocolError::Compression),
            }
        }
    }
}

fn parse(mut block: &[u8]) -> Result<Headers, ProtocolError> {
    let count = number(&mut block)?;
    if count > HEADERS_MAX {
        return Err(ProtocolError::HeadersTooLong);
    }
    let mut headers = Headers::new();
    for _ in 0..count {
        let name = text(&mut block)?;
        if name.is_empty() {
            return Err(ProtocolError::Headers);
        }
        headers.push((name.to_ascii_lowercase(), text(&mut block)?));
    }
    if block.is_empty() {
        Ok(headers)
    } else {
        Err(ProtocolError::Headers)
    }
}

fn number(block: &mut &[u8]) -> Result<usize, ProtocolError> {
    let number = block.try_get_u32().map_err(|_| ProtocolError::Headers)?;
    usize::try_from(number).map_err(|_| ProtocolError::Headers)
}

fn text(block: &mut &[u8]) -> Result<String, ProtocolError> {
    let length = number(block)?;
    let bytes = block.get(..length).ok_or(ProtocolError::Headers)?;
    let text = std::str::from_utf8(bytes).map_err(|_| ProtocolError::Headers)?;
    let text = text.to_string();
    block.advance(length);
    Ok(text)
}

/// Writes the blocks of one direction, in order.
pub(crate) struct HeaderWriter {
    zlib: Compress,
    begun: bool,
}

impl HeaderWriter {
    pub(crate) fn new() -> Self {
        Self {
            zlib: Compress::new(Compression::fast(), true),
            begun: false,
        }
    }

    pub(crate) fn write(
        &mut self,
        headers: &[(String, String)],
        output: &mut BytesMut,
    ) -> Result<(), ProtocolError> {
        if !self.begun {
            self.zlib
                .set_dictionary(&DICTIONARY)
                .map_err(|_| ProtocolError::Compression)?;
            self.begun = true;
        }
        let mut block = Vec::new();
        let length = |length: usize| u32::try_from(length).map_err(|_| ProtocolError::Headers);
        block.put_u32(length(headers.len())?);
        for (name, value) in headers {
            for text in [name, value] {
                block.put_u32(length(text.len())?);
                block.extend_from_slice(text.as_bytes());
            }
        }
        let mut input = block.as_slice();
        let mut piece = [0; PIECE_BYTES];
        loop {
            let (before_in, before_out) = (self.zlib.total_in(), self.zlib.total_out());
            self.zlib
                .compress(input, &mut piece, FlushCompress::Sync)
                .map_err(|_| ProtocolError::Compression)?;
            let read = (self.zlib.total_in() - before_in) as usize;
            let written = (self.zlib.total_out() - before_out) as usize;
            input = input.get(read..).unwrap_or_default();
            output.extend_from_slice(&piece[..written]);
            // A piece that is not full means that the flush is complete.
            if input.is_empty() && written < piece.len() {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> Headers {
        let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
        pairs.iter().map(owned).collect()
    }

    proptest! {
        #[test]
        fn blocks_come_back_in_order_through_one_stream(
            blocks in prop::collection::vec(prop::collection::vec(("[a-z]{1,12}", ".{0,40}"), 0..6), 1..8)
        ) {
            let (mut writer, mut reader) = (HeaderWriter::new(), HeaderReader::new());
            for block in blocks {
                let mut bytes = BytesMut::new();
                writer.write(&block, &mut bytes).unwrap();
                prop_assert_eq!(reader.read(&bytes).unwrap(), block);
            }
        }

        #[test]
        fn no_block_makes_the_reader_panic(blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..5)) {
            let mut reader = HeaderReader::new();
            // With a valid beginning the bytes reach further than the check of zlib's own header.
            let _ = reader.read(&[0x78, 0xf9, 0xe3, 0xc6, 0xa7, 0xc2]);
            for block in blocks {
                let _ = reader.read(&block);
            }
        }
    }

    #[test]
    fn a_block_that_grows_beyond_the_bound_is_refused() {
        let mut bytes = BytesMut::new();
        let long = headers(&[("name", &"a".repeat(HEADER_BLOCK_BYTES_MAX))]);
        HeaderWriter::new().write(&long, &mut bytes).unwrap();
        assert!(bytes.len() < 2_000, "it travels small: {}", bytes.len());
        assert_eq!(
            HeaderReader::new().read(&bytes),
            Err(ProtocolError::HeadersTooLong)
        );
    }

    #[test]
    fn lengths_beyond_the_block_are_refused_before_anything_is_allocated() {
        for block in [
            vec![0xff, 0xff, 0xff, 0xff],
            vec![0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff],
            vec![0, 0, 0, 1, 0, 0, 0, 1, b'a'],
            vec![0, 0, 0, 0, 1],
        ] {
            assert!(parse(&block).is_err(), "{block:?}");
        }
    }
}

//! How bodies are compressed: one raw LZ4 block without frame or length, or zlib. The size before compression always
//! travels beside it, so unpacking is bounded by what was announced.

use flate2::Compression;
use flate2::read::{ZlibDecoder, ZlibEncoder};
use std::io::Read;

/// The value of `x-log-compresstype`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressType {
    /// A raw LZ4 block, the default of the vendor's SDKs.
    Lz4,
    /// zlib.
    Deflate,
}

/// Why a body cannot be unpacked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompressionError {
    /// A type that we do not know.
    #[error("x-log-compresstype {0:?} is not supported; use lz4 or deflate")]
    Unknown(String),
    /// The bytes are none of this type.
    #[error("the body is not valid {0}")]
    Broken(&'static str),
    /// Another size than announced.
    #[error(
        "the body has another size than the {announced} bytes that x-log-bodyrawsize announces"
    )]
    Size {
        /// What was announced.
        announced: usize,
    },
}

impl CompressType {
    /// The header's value as a type; nothing when the body is not compressed.
    pub fn parse(text: &str) -> Result<Option<Self>, CompressionError> {
        match text.to_ascii_lowercase().as_str() {
            "" => Ok(None),
            "lz4" => Ok(Some(Self::Lz4)),
            "deflate" | "gzip" => Ok(Some(Self::Deflate)),
            _ => Err(CompressionError::Unknown(text.to_owned())),
        }
    }

    /// The header's value.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lz4 => "lz4",
            Self::Deflate => "deflate",
        }
    }

    /// Packs a body.
    pub fn compress(self, body: &[u8]) -> Vec<u8> {
        match self {
            Self::Lz4 => lz4_flex::block::compress(body),
            Self::Deflate => {
                let mut out = Vec::new();
                ZlibEncoder::new(body, Compression::fast())
                    .read_to_end(&mut out)
                    .expect("reading from memory does not fail");
                out
            }
        }
    }

    /// Unpacks a body of the announced size; never more than that is kept in memory.
    pub fn decompress(self, body: &[u8], announced: usize) -> Result<Vec<u8>, CompressionError> {
        let out = match self {
            Self::Lz4 => lz4_flex::block::decompress(body, announced)
                .map_err(|_| CompressionError::Broken("LZ4"))?,
            Self::Deflate => {
                let mut out = Vec::new();
                ZlibDecoder::new(body)
                    .take(announced as u64 + 1)
                    .read_to_end(&mut out)
                    .map_err(|_| CompressionError::Broken("zlib"))?;
                out
            }
        };
        if out.len() != announced {
            return Err(CompressionError::Size { announced });
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn unknown_types_and_wrong_sizes_are_told() {
        assert_eq!(CompressType::parse(""), Ok(None));
        assert!(
            CompressType::parse("zstd")
                .unwrap_err()
                .to_string()
                .contains("lz4 or deflate")
        );
        let packed = CompressType::Lz4.compress(b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
        assert!(CompressType::Lz4.decompress(&packed, 10).is_err());
        assert!(CompressType::Lz4.decompress(&packed, 1_000).is_err());
        assert!(CompressType::Deflate.decompress(b"no zlib", 7).is_err());
    }

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(body in proptest::collection::vec(0u8..8, 0..600)) {
            for kind in [CompressType::Lz4, CompressType::Deflate] {
                let packed = kind.compress(&body);
                prop_assert_eq!(kind.decompress(&packed, body.len()).unwrap(), body.clone());
            }
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100), size in 0usize..10_000) {
            for kind in [CompressType::Lz4, CompressType::Deflate] {
                let _ = kind.decompress(&bytes, size);
            }
        }
    }
}

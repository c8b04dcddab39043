//! From flat text parameters back to a typed request.
//!
//! Numbers are read as decimals (`1`, `1.0` and `0.5` are all fine), booleans without regard to case. Indices are
//! bounded, gaps between them are closed up in order, and a value in the wrong shape is refused with the
//! parameter's full name.

mod deserializer;
mod tree;

use serde::de::DeserializeOwned;

pub use tree::{MAX_DEPTH, MAX_INDEX};

/// Why parameters do not make the request they are meant to be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParameterError {
    /// A value that cannot be what the parameter needs.
    #[error("parameter {name} must be {expected}")]
    Invalid {
        /// The full name, such as `Container.1.Cpu`.
        name: String,
        /// What it has to be, in words.
        expected: String,
    },
    /// One name given twice: the service could not know which one was meant.
    #[error("parameter {name} is given twice")]
    Duplicate {
        /// The full name.
        name: String,
    },
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("parameter {name} is nested deeper than {MAX_DEPTH} levels")]
    TooDeep {
        /// The beginning of the name.
        name: String,
    },
}

impl ParameterError {
    /// The full name of the parameter that is wrong.
    pub fn parameter(&self) -> &str {
        match self {
            Self::Invalid { name, .. } | Self::Duplicate { name } | Self::TooDeep { name } => name,
        }
    }

    /// Something is wrong with a parameter, in words.
    pub fn invalid(name: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::Invalid {
            name: name.into(),
            expected: expected.into(),
        }
    }
}

/// Reads a request from its parameters; unknown ones are ignored.
pub fn unflatten<'a, T: DeserializeOwned>(
    pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<T, ParameterError> {
    let root = tree::Node::from_pairs(pairs)?;
    T::deserialize(deserializer::NodeDeserializer::new(&root, String::new()))
        .map_err(|error| error.0)
}

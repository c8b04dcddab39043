//! elastic-core

//! elastic-node

//! local-network

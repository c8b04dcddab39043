//! local-gateway

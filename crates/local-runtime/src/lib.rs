//! local-runtime

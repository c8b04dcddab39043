//! local-apiserver

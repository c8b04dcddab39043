//! `custom.metrics.k8s.io` and `external.metrics.k8s.io`: paths in, metric values out.

pub(crate) mod access;
pub(crate) mod answer;
pub(crate) mod kinds;
pub(crate) mod objects;
pub(crate) mod path;
mod pushed;
pub(crate) mod shapes;
pub(crate) mod source;

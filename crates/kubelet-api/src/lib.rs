//! kubelet-api

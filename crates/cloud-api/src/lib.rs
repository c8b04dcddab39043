//! cloud-api

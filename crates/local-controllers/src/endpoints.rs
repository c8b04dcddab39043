//! The endpoints of services: EndpointSlices, and the older Endpoints objects beside them; slices for Endpoints that
//! a user wrote by hand. Refuses addresses other than IPv4.

mod controller;
pub mod legacy;
pub mod members;
pub mod mirror;
pub mod slices;

pub use controller::start;

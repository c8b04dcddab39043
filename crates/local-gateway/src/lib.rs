//! The way into a local cluster: watches services and their endpoints, keeps the cluster's service table up to date, and
//! balances every service of type LoadBalancer on a loopback address of its own, by connection or by HTTP request.
//!
//! It refuses to decide which pods belong to a service: that is what the endpoint slices say. Node ports are not served.

mod balancer;
mod dialer;
mod gateway;
mod http;
mod served;
mod status;
mod tables;

pub use balancer::{BalancerReport, Reports, wanted::SUBSTITUTE_PORTS_ANNOTATION};
pub use dialer::Dialer;
pub use gateway::{Gateway, GatewayConfig, GatewayError, run};
pub use http::{EndpointReport, FirstServed, HttpBalancer, HttpReport};
pub use served::FIRST_REQUEST_REASON;

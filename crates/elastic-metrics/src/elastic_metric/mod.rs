//! `ElasticMetric` objects: looked at one by one in their own rhythm, kept on a board that the API reads, told on the object.

mod board;
mod controller;
mod evaluate;
mod scrape;

pub(crate) use board::{Board, Entry};
pub(crate) use controller::{Settings, run};
pub(crate) use evaluate::Problem;
pub use scrape::service_endpoints;

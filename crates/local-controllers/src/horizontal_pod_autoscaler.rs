//! The HorizontalPodAutoscaler controller: looks at each autoscaler once a period through [`elastic_autoscaler`], writes
//! its status and records its events. Refuses to compute anything itself.

mod controller;

pub use controller::start;

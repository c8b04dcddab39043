//! elastic-metrics

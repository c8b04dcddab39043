//! How the controller behaves, and the zone that holds where none is named.

use std::sync::Arc;
use std::time::Duration;

use elastic_core::cron::time_zone;
use elastic_core::cron_horizontal_pod_autoscaler::DEFAULT_TIME_ZONE;

use super::JobCounts;
use crate::clock::{Clock, SystemClock};

/// How the controller behaves.
#[derive(Clone, Debug)]
pub struct CronHorizontalPodAutoscalerConfig {
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// IANA zone of schedules that name none.
    pub default_time_zone: String,
    /// Wait between two tries of a run.
    pub retry_interval: Duration,
    /// A run that has failed for longer is given up.
    pub retry_window: Duration,
    /// Longest time one run may take; shorter than its claim lasts.
    pub run_timeout: Duration,
    /// Objects that are worked on at the same time.
    pub passes_most: usize,
    /// How the jobs stand is counted here.
    pub counts: Arc<JobCounts>,
}

impl Default for CronHorizontalPodAutoscalerConfig {
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            default_time_zone: DEFAULT_TIME_ZONE.to_owned(),
            retry_interval: Duration::from_secs(3),
            retry_window: Duration::from_secs(10),
            run_timeout: Duration::from_secs(20),
            passes_most: 256,
            counts: Arc::default(),
        }
    }
}

impl CronHorizontalPodAutoscalerConfig {
    /// The same with the zone that `TZ` of the environment names; one that does not exist is told and not used.
    #[must_use]
    pub fn with_time_zone(mut self, name: Option<&str>) -> Self {
        let name = name.map(|name| name.trim().trim_start_matches(':'));
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return self;
        };
        match time_zone(name) {
            Ok(_) => self.default_time_zone = name.to_owned(),
            Err(error) => tracing::warn!(
                %error,
                used = self.default_time_zone,
                "schedules without a time zone do not follow TZ"
            ),
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_zone_comes_from_the_environment_when_it_exists() {
        let zone = |name| {
            let config = CronHorizontalPodAutoscalerConfig::default();
            config.with_time_zone(name).default_time_zone
        };
        assert_eq!(zone(Some("Asia/Shanghai")), "Asia/Shanghai");
        assert_eq!(zone(Some(":Europe/Berlin")), "Europe/Berlin");
        assert_eq!(zone(Some("")), "UTC");
        assert_eq!(zone(Some("CST-8")), "UTC");
        assert_eq!(zone(None), "UTC");
    }
}

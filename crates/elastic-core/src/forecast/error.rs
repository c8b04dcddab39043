//! How far forecasts were off.

/// Collects forecasts and what happened.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ErrorMeasure {
    off: f64,
    actual: f64,
    count: usize,
}

impl ErrorMeasure {
    /// One forecast and what happened.
    pub fn add(&mut self, forecast: f64, actual: f64) {
        self.off += (forecast - actual).abs();
        self.actual += actual.abs();
        self.count += 1;
    }

    /// How many forecasts.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The sum of all errors as a share of the sum of what happened (WAPE); `None` when nothing happened.
    pub fn wape(&self) -> Option<f64> {
        (self.actual > 0.0).then(|| self.off / self.actual)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_weighed_by_what_happened() {
        let mut measure = ErrorMeasure::default();
        assert_eq!(measure.wape(), None);
        measure.add(90.0, 100.0);
        measure.add(20.0, 0.0);
        assert_eq!(measure.wape(), Some(0.3));
        assert_eq!(measure.count(), 2);
    }
}

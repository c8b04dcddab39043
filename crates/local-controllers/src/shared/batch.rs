//! Many requests of one controller at once, a bounded number of them, and the first failure among them.

use std::future::Future;

use tokio::task::JoinSet;

use super::requests::ControllerError;

/// So many requests of one object are under way at once.
const REQUESTS_MAX: usize = 256;

/// Runs requests on all cores, a bounded number at once.
pub async fn each<T, F>(requests: impl Iterator<Item = F>, mut take: impl FnMut(T))
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let mut running = JoinSet::new();
    for request in requests {
        if running.len() >= REQUESTS_MAX
            && let Some(Ok(result)) = running.join_next().await
        {
            take(result);
        }
        running.spawn(request);
    }
    while let Some(result) = running.join_next().await {
        if let Ok(result) = result {
            take(result);
        }
    }
}

/// The failures of a batch.
pub struct Failures {
    total: usize,
    failed: usize,
    first: Option<ControllerError>,
}

impl Failures {
    /// None yet, of that many requests.
    pub fn new(total: usize) -> Self {
        Failures {
            total,
            failed: 0,
            first: None,
        }
    }

    /// One more.
    pub fn add(&mut self, error: ControllerError) {
        self.failed += 1;
        self.first.get_or_insert(error);
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// The first failure with the count of all.
    pub fn into_result(self) -> Result<(), ControllerError> {
        match self.first {
            None => Ok(()),
            Some(first) => Err(ControllerError::Batch {
                failed: self.failed,
                total: self.total,
                first: Box::new(first),
            }),
        }
    }
}

//! What befalls a request on its way, and at which one the process dies. All chance comes from one seed.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// SplitMix64: small, and the same everywhere.
pub struct Chance(pub u64);

impl Chance {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    pub fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }

    pub fn of<'t, T>(&mut self, choices: &'t [T]) -> Option<&'t T> {
        let count = u64::try_from(choices.len())
            .ok()
            .filter(|count| *count > 0)?;
        choices.get(usize::try_from(self.below(count)).ok()?)
    }
}

struct Inner {
    chance: Chance,
    moments: u64,
    dies_at: Option<u64>,
    dead: bool,
    /// One request in so many is lost, before or after its effect; zero for none.
    loses_one_in: u64,
    api_down: bool,
}

/// Shared by the ways to the API and to the cloud.
pub struct Fate(Mutex<Inner>);

enum Verdict {
    Pass(Duration),
    Lost(Duration),
    Dead,
}

impl Fate {
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(Inner {
            chance: Chance(seed ^ 0x5eed),
            moments: 0,
            dies_at: None,
            dead: false,
            loses_one_in: 0,
            api_down: false,
        }))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moments so far: each request has one before and one after its effect.
    pub fn moments(&self) -> u64 {
        self.inner().moments
    }

    /// The process dies at that moment.
    pub fn die_at(&self, moment: Option<u64>) {
        self.inner().dies_at = moment;
    }

    pub fn set_losses(&self, one_in: u64) {
        self.inner().loses_one_in = one_in;
    }

    pub fn set_api_down(&self, down: bool) {
        self.inner().api_down = down;
    }

    /// Whether the process is dead; the next one lives.
    pub fn bury(&self) -> bool {
        let mut inner = self.inner();
        if inner.dead {
            inner.dies_at = None;
        }
        std::mem::take(&mut inner.dead)
    }

    fn judge(&self, to_api: bool) -> Verdict {
        let mut inner = self.inner();
        inner.moments += 1;
        inner.dead |= inner.dies_at == Some(inner.moments);
        let took = Duration::from_millis(1 + inner.chance.below(15));
        let one_in = inner.loses_one_in;
        let lost = one_in > 0 && inner.chance.one_in(one_in);
        match (inner.dead, lost || (to_api && inner.api_down)) {
            (true, _) => Verdict::Dead,
            (false, true) => Verdict::Lost(took),
            (false, false) => Verdict::Pass(took),
        }
    }

    /// A moment of a request: it may take its time, be lost, or be the process's last, after which nothing has an effect.
    pub async fn moment(&self, to_api: bool) -> io::Result<()> {
        let lost = match self.judge(to_api) {
            Verdict::Pass(took) => {
                tokio::time::sleep(took).await;
                false
            }
            Verdict::Lost(took) => {
                tokio::time::sleep(took).await;
                true
            }
            Verdict::Dead => true,
        };
        if self.inner().dead {
            return std::future::pending().await;
        }
        if lost {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionReset,
                "lost on the way",
            ));
        }
        Ok(())
    }
}

//! Remembers the nonces of accepted signatures, so that none is accepted twice.
//!
//! A signature is good for fifteen minutes either side of the clock, so thirty minutes of memory are enough. The
//! memory is bounded; when it is full, calls are refused rather than replays let through.

use ring::digest;
use std::collections::{HashSet, VecDeque};

/// How long a nonce matters.
const MEMORY_SECONDS: i64 = 30 * 60;
/// Most nonces kept: some 250 calls a second, for all of the thirty minutes.
const MAX_NONCES: usize = 500_000;

/// What became of a nonce.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    New,
    Before,
    Full,
}

#[derive(Debug, Default)]
pub(super) struct Nonces {
    known: HashSet<u128>,
    /// In order of arrival: when, which.
    order: VecDeque<(i64, u128)>,
}

impl Nonces {
    /// Remembers a nonce of an access key.
    pub(super) fn remember(&mut self, access_key_id: &str, nonce: &str, now_second: i64) -> Seen {
        while self
            .order
            .front()
            .is_some_and(|(second, _)| now_second - second > MEMORY_SECONDS)
        {
            if let Some((_, old)) = self.order.pop_front() {
                self.known.remove(&old);
            }
        }
        let hash = digest::digest(
            &digest::SHA256,
            format!("{access_key_id}\n{nonce}").as_bytes(),
        );
        let hash = hash
            .as_ref()
            .iter()
            .take(16)
            .fold(0u128, |sum, byte| sum << 8 | u128::from(*byte));
        if self.known.contains(&hash) {
            return Seen::Before;
        }
        if self.known.len() >= MAX_NONCES {
            return Seen::Full;
        }
        self.known.insert(hash);
        self.order.push_back((now_second, hash));
        Seen::New
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_new_once_per_key_and_again_when_it_cannot_matter_any_more() {
        let mut nonces = Nonces::default();
        assert_eq!(nonces.remember("a", "n", 0), Seen::New);
        assert_eq!(nonces.remember("a", "n", MEMORY_SECONDS), Seen::Before);
        assert_eq!(nonces.remember("b", "n", MEMORY_SECONDS), Seen::New);
        assert_eq!(nonces.remember("a", "n", MEMORY_SECONDS + 1), Seen::New);
    }
}

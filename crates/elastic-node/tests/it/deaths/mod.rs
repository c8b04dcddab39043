//! The process dies: at every single moment of a pod's life, and at chance moments of histories in which everything else
//! goes wrong too. All that acts is the real code of the virtual node, from its tasks to its requests; the cloud is the
//! local cloud's own state, the API a small one in memory, and time passes only when the test says so.
//!
//! What leaves a process are its requests. A death at an await between two of them cannot be told from outside from the
//! death just before the second, so that the moments before and after the effect of every request are all deaths there are.
//!
//! `SPRINGTIDE_HISTORIES` plays more histories than the quick run of every build.

mod api;
mod fate;
mod histories;
mod lives;
mod pending;
mod world;

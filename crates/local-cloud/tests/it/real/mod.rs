//! The backend over real containers. Needs root and Debian's `busybox-static`.

mod life;
mod made;
mod restart;
mod services;
mod world;

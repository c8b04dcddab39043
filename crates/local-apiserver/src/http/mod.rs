//! HTTP: from a request to a verb of the registry, and from its answer to a response.

pub mod accept;
pub mod body;
pub mod client;
pub mod compress;
pub mod dispatch;
pub mod listen;
pub mod path;
pub mod pool;
pub mod render;
pub mod table;
pub mod tls;
pub mod transport;

pub use body::ResponseBody;

//! tool-load

//! elastic-controllers

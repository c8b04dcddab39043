//! local-controllers

//! Kinds that bound what others may take: budgets, quotas, limits, priorities, storage classes.

pub mod classes;
pub mod disruption;
pub mod limits;
pub mod quota;

//! ServiceAccounts.

use jiff::Timestamp;
use serde_json::Value;

use crate::print::{NAME, age, column, name};
use crate::rules::{Column, KindRules};
use crate::tree::list;

/// The rules of ServiceAccounts.
pub struct ServiceAccountRules;

impl KindRules for ServiceAccountRules {
    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[NAME, column("Secrets"), column("Age")];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![
            name(object),
            list(object, "secrets").len().into(),
            age(object, now),
        ]
    }
}

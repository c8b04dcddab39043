//! Aggregates that the service's SQL has and the engine has not. What the service estimates is counted exactly here.

use super::functions::{number, owned};
use rusqlite::functions::{Aggregate, Context, FunctionFlags};
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, Error, Result};
use std::collections::HashSet;

/// Most different values that one group remembers.
const MAX_REMEMBERED: usize = 5_000_000;

/// Registers all of them.
pub(super) fn register(connection: &Connection) -> Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    for arguments in [1, 2] {
        connection.create_aggregate_function("approx_distinct", arguments, flags, Distinct)?;
    }
    connection.create_aggregate_function("count_if", 1, flags, CountIf)?;
    connection.create_aggregate_function("approx_percentile", 2, flags, Percentile)?;
    for name in ["arbitrary", "any_value"] {
        connection.create_aggregate_function(name, 1, flags, Arbitrary)?;
    }
    for (name, greatest) in [("max_by", true), ("min_by", false)] {
        connection.create_aggregate_function(name, 2, flags, By { greatest })?;
    }
    let spreads = [
        ("stddev", true, true),
        ("stddev_samp", true, true),
        ("stddev_pop", false, true),
        ("variance", true, false),
        ("var_samp", true, false),
        ("var_pop", false, false),
    ];
    for (name, sample, root) in spreads {
        connection.create_aggregate_function(name, 1, flags, Spread { sample, root })?;
    }
    Ok(())
}

fn too_many() -> Error {
    Error::UserFunctionError(format!("more than {MAX_REMEMBERED} values in one group").into())
}

struct Distinct;

impl Aggregate<HashSet<Vec<u8>>, i64> for Distinct {
    fn init(&self, _: &mut Context<'_>) -> Result<HashSet<Vec<u8>>> {
        Ok(HashSet::new())
    }

    fn step(&self, context: &mut Context<'_>, seen: &mut HashSet<Vec<u8>>) -> Result<()> {
        let key = match context.get_raw(0) {
            ValueRef::Null => return Ok(()),
            ValueRef::Integer(number) => number.to_string().into_bytes(),
            ValueRef::Real(number) => format!("{number:?}").into_bytes(),
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.to_vec(),
        };
        if seen.len() >= MAX_REMEMBERED {
            return Err(too_many());
        }
        seen.insert(key);
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, seen: Option<HashSet<Vec<u8>>>) -> Result<i64> {
        Ok(i64::try_from(seen.unwrap_or_default().len()).unwrap_or(i64::MAX))
    }
}

struct CountIf;

impl Aggregate<i64, i64> for CountIf {
    fn init(&self, _: &mut Context<'_>) -> Result<i64> {
        Ok(0)
    }

    fn step(&self, context: &mut Context<'_>, count: &mut i64) -> Result<()> {
        *count += i64::from(number(context.get_raw(0)).is_some_and(|value| value != 0.0));
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, count: Option<i64>) -> Result<i64> {
        Ok(count.unwrap_or_default())
    }
}

/// Values and the wanted share.
struct Percentile;

impl Aggregate<(Vec<f64>, f64), Option<f64>> for Percentile {
    fn init(&self, _: &mut Context<'_>) -> Result<(Vec<f64>, f64)> {
        Ok((Vec::new(), 0.0))
    }

    fn step(&self, context: &mut Context<'_>, (values, share): &mut (Vec<f64>, f64)) -> Result<()> {
        let wanted = number(context.get_raw(1)).filter(|wanted| (0.0..=1.0).contains(wanted));
        *share = wanted.ok_or_else(|| {
            Error::UserFunctionError(
                "the percentage of approx_percentile must be from 0 to 1".into(),
            )
        })?;
        if values.len() >= MAX_REMEMBERED {
            return Err(too_many());
        }
        values.extend(number(context.get_raw(0)).filter(|value| !value.is_nan()));
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, known: Option<(Vec<f64>, f64)>) -> Result<Option<f64>> {
        let Some((mut values, share)) = known.filter(|(values, _)| !values.is_empty()) else {
            return Ok(None);
        };
        values.sort_unstable_by(f64::total_cmp);
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a bounded count"
        )]
        let rank = (values.len() as f64 * share).ceil() as usize;
        Ok(values.get(rank.saturating_sub(1)).copied())
    }
}

struct Arbitrary;

impl Aggregate<Value, Value> for Arbitrary {
    fn init(&self, _: &mut Context<'_>) -> Result<Value> {
        Ok(Value::Null)
    }

    fn step(&self, context: &mut Context<'_>, known: &mut Value) -> Result<()> {
        if *known == Value::Null {
            *known = owned(context.get_raw(0));
        }
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, known: Option<Value>) -> Result<Value> {
        Ok(known.unwrap_or(Value::Null))
    }
}

/// The first argument where the second is greatest or least.
struct By {
    greatest: bool,
}

impl Aggregate<Option<(f64, Value)>, Value> for By {
    fn init(&self, _: &mut Context<'_>) -> Result<Option<(f64, Value)>> {
        Ok(None)
    }

    fn step(&self, context: &mut Context<'_>, best: &mut Option<(f64, Value)>) -> Result<()> {
        let Some(this) = number(context.get_raw(1)) else {
            return Ok(());
        };
        let better = best.as_ref().is_none_or(|(known, _)| match self.greatest {
            true => this > *known,
            false => this < *known,
        });
        if better {
            *best = Some((this, owned(context.get_raw(0))));
        }
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, best: Option<Option<(f64, Value)>>) -> Result<Value> {
        Ok(best.flatten().map_or(Value::Null, |(_, value)| value))
    }
}

/// Count, mean and the sum of squared distances from it, as they grow.
#[derive(Clone, Copy, Default)]
struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

struct Spread {
    sample: bool,
    root: bool,
}

impl Aggregate<Moments, Option<f64>> for Spread {
    fn init(&self, _: &mut Context<'_>) -> Result<Moments> {
        Ok(Moments::default())
    }

    fn step(&self, context: &mut Context<'_>, moments: &mut Moments) -> Result<()> {
        if let Some(value) = number(context.get_raw(0)) {
            moments.count += 1.0;
            let distance = value - moments.mean;
            moments.mean += distance / moments.count;
            moments.squares += distance * (value - moments.mean);
        }
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, moments: Option<Moments>) -> Result<Option<f64>> {
        let moments = moments.unwrap_or_default();
        let over = moments.count - if self.sample { 1.0 } else { 0.0 };
        let variance = (over > 0.0).then(|| moments.squares / over);
        Ok(variance.map(|variance| if self.root { variance.sqrt() } else { variance }))
    }
}

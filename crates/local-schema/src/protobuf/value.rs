//! Messages into JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

use super::table::{self, Field, Kind, Message};
use super::wire::{Reader, Wire};
use super::{MAX_DEPTH, ProtobufError};

/// Reads a message's fields into an object.
pub(super) fn message(
    message: &'static Message,
    bytes: &[u8],
    object: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), ProtobufError> {
    let mut reader = Reader::new(bytes, &message.name);
    if depth > MAX_DEPTH {
        return Err(reader.refuse("nested too deeply".to_string()));
    }
    while let Some((number, wire)) = reader.field()? {
        let Some(field) = message.field(number) else {
            continue;
        };
        put(&reader, field, wire, object, depth)?;
    }
    Ok(())
}

fn put(
    reader: &Reader<'_, '_>,
    field: &'static Field,
    wire: Wire<'_>,
    object: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), ProtobufError> {
    match (&field.kind, wire) {
        (Kind::Message(index), Wire::Bytes(bytes)) if field.name.is_empty() => {
            message(table::message(*index), bytes, object, depth + 1)
        }
        (Kind::List(item), wire) => {
            let list = object
                .entry(field.name.to_string())
                .or_insert_with(|| Value::Array(Vec::new()));
            let Value::Array(list) = list else {
                return Ok(());
            };
            match (&**item, wire) {
                // Numbers may come packed.
                (Kind::Int32 | Kind::Int64 | Kind::Boolean, Wire::Bytes(bytes)) => {
                    let mut packed = Reader::new(bytes, "packed");
                    while !packed.is_done() {
                        let number = packed.varint()?;
                        list.push(single(reader, item, Wire::Varint(number), depth)?);
                    }
                }
                (item, wire) => list.push(single(reader, item, wire, depth)?),
            }
            Ok(())
        }
        (Kind::Map(value), Wire::Bytes(bytes)) => {
            let entries = object
                .entry(field.name.to_string())
                .or_insert_with(|| Value::Object(Map::new()));
            let Value::Object(entries) = entries else {
                return Ok(());
            };
            let (key, value) = entry(value, bytes, depth)?;
            entries.insert(key, value);
            Ok(())
        }
        (kind, wire) => {
            let value = single(reader, kind, wire, depth)?;
            // A message may come in parts; they merge.
            match (object.get_mut(&*field.name), value) {
                (Some(Value::Object(before)), Value::Object(value)) => before.extend(value),
                (_, value) => {
                    object.insert(field.name.to_string(), value);
                }
            }
            Ok(())
        }
    }
}

fn entry(
    kind: &'static Kind,
    bytes: &[u8],
    depth: usize,
) -> Result<(String, Value), ProtobufError> {
    let mut reader = Reader::new(bytes, "entry");
    let mut key = String::new();
    let mut value = None;
    while let Some((number, wire)) = reader.field()? {
        match (number, wire) {
            (1, Wire::Bytes(text)) => key = reader.text(text)?,
            (2, wire) => value = Some(single(&reader, kind, wire, depth)?),
            _ => {}
        }
    }
    let empty = match kind {
        Kind::Text | Kind::Bytes => Value::String(String::new()),
        _ => Value::Null,
    };
    Ok((key, value.unwrap_or(empty)))
}

fn single(
    reader: &Reader<'_, '_>,
    kind: &'static Kind,
    wire: Wire<'_>,
    depth: usize,
) -> Result<Value, ProtobufError> {
    let value = match (kind, wire) {
        (Kind::Text, Wire::Bytes(bytes)) => reader.text(bytes)?.into(),
        (Kind::Bytes, Wire::Bytes(bytes)) => STANDARD.encode(bytes).into(),
        (Kind::Boolean, Wire::Varint(number)) => (number != 0).into(),
        // Negative numbers are sign-extended to 64 bits; the wire's bits are the number's.
        (Kind::Int32, Wire::Varint(number)) => i64::from(number as u32 as i32).into(),
        (Kind::Int64, Wire::Varint(number)) => (number as i64).into(),
        (Kind::Double, Wire::Fixed64(bits)) => {
            serde_json::Number::from_f64(f64::from_bits(bits)).map_or(Value::Null, Value::Number)
        }
        (Kind::Message(index), Wire::Bytes(bytes)) => {
            let mut object = Map::new();
            message(table::message(*index), bytes, &mut object, depth + 1)?;
            Value::Object(object)
        }
        (kind, Wire::Bytes(bytes)) => special(kind, bytes, depth)?,
        (_, Wire::Varint(_) | Wire::Fixed64(_) | Wire::Fixed32) => {
            return Err(reader.refuse("wrong wireType for a field".to_string()));
        }
    };
    Ok(value)
}

/// The fields of a small message whose form in JSON is its own.
#[derive(Default)]
struct Parts<'b> {
    numbers: [u64; 4],
    bytes: [Option<&'b [u8]>; 4],
    repeated: Vec<&'b [u8]>,
    any: bool,
}

fn parts(bytes: &[u8]) -> Result<Parts<'_>, ProtobufError> {
    let mut reader = Reader::new(bytes, "value");
    let mut parts = Parts::default();
    while let Some((number, wire)) = reader.field()? {
        parts.any = true;
        let Some(slot) = usize::try_from(number).ok().filter(|slot| *slot < 4) else {
            continue;
        };
        match wire {
            Wire::Varint(value) => parts.numbers[slot] = value,
            Wire::Bytes(value) => {
                parts.bytes[slot] = Some(value);
                parts.repeated.push(value);
            }
            _ => {}
        }
    }
    Ok(parts)
}

fn special(kind: &'static Kind, bytes: &[u8], depth: usize) -> Result<Value, ProtobufError> {
    let parts = parts(bytes)?;
    let reader = Reader::new(&[], "value");
    let text =
        |slot: usize| parts.bytes[slot].map_or(Ok(String::new()), |bytes| reader.text(bytes));
    let schema = |bytes: &[u8]| -> Result<Value, ProtobufError> {
        let mut object = Map::new();
        if let Some(props) = table::json_schema() {
            message(props, bytes, &mut object, depth + 1)?;
        }
        Ok(Value::Object(object))
    };
    Ok(match kind {
        Kind::Time | Kind::MicroTime => time(&parts, *kind == Kind::MicroTime),
        Kind::Duration => duration(parts.numbers[1] as i64).into(),
        Kind::Quantity => text(1)?.into(),
        Kind::IntOrString if parts.numbers[1] == 0 => {
            i64::from(parts.numbers[2] as u32 as i32).into()
        }
        Kind::IntOrString => text(3)?.into(),
        Kind::Raw => match parts.bytes[1] {
            None | Some([]) => Value::Null,
            Some(raw) => serde_json::from_slice(raw)
                .map_err(|error| ProtobufError::Raw(error.to_string()))?,
        },
        Kind::Strings => {
            let list: Result<Vec<Value>, _> = parts
                .repeated
                .iter()
                .map(|item| reader.text(item).map(Value::from))
                .collect();
            Value::Array(list?)
        }
        Kind::SchemaOrBool => match parts.bytes[2] {
            Some(inner) => schema(inner)?,
            None => (parts.numbers[1] != 0).into(),
        },
        Kind::SchemaOrArray => {
            let list: Result<Vec<Value>, _> =
                parts.repeated.iter().map(|inner| schema(inner)).collect();
            match parts.bytes[2] {
                Some(_) => Value::Array(list?),
                None => list?.into_iter().next().unwrap_or(Value::Null),
            }
        }
        Kind::SchemaOrStrings => match parts.bytes[1] {
            Some(inner) => schema(inner)?,
            None => {
                let list: Result<Vec<Value>, _> = parts
                    .repeated
                    .iter()
                    .map(|item| reader.text(item).map(Value::from))
                    .collect();
                Value::Array(list?)
            }
        },
        _ => return Err(reader.refuse("wrong wireType for a field".to_string())),
    })
}

/// An empty message is the zero time, which JSON shows as null.
fn time(parts: &Parts<'_>, micro: bool) -> Value {
    if !parts.any {
        return Value::Null;
    }
    let nanos = if micro {
        parts.numbers[2] as u32 as i32
    } else {
        0
    };
    match Timestamp::new(parts.numbers[1] as i64, nanos) {
        // Go's zero time, year 1.
        Ok(moment) if moment.as_second() == -62_135_596_800 => Value::Null,
        Ok(moment) if micro => moment.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string().into(),
        Ok(moment) => moment.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into(),
        Err(_) => Value::Null,
    }
}

/// Go's duration text: `1h0m0s`, `1.5s`, `20ms`.
fn duration(nanos: i64) -> String {
    let span = SignedDuration::from_nanos(nanos);
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = span.unsigned_abs().as_nanos();
    let trim = |whole: u128, unit: u128, name: &str| {
        let fraction = format!("{:0width$}", whole % unit, width = unit.ilog10() as usize);
        let fraction = fraction.trim_end_matches('0');
        let dot = if unit == 1 || fraction.is_empty() {
            ""
        } else {
            "."
        };
        let fraction = if unit == 1 { "" } else { fraction };
        format!("{sign}{}{dot}{fraction}{name}", whole / unit)
    };
    match nanos {
        0 => "0s".to_string(),
        1..1_000 => trim(nanos, 1, "ns"),
        1_000..1_000_000 => trim(nanos, 1_000, "µs"),
        1_000_000..1_000_000_000 => trim(nanos, 1_000_000, "ms"),
        _ => {
            let seconds = nanos / 1_000_000_000;
            let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
            let rest = nanos - (seconds - seconds % 60) * 1_000_000_000;
            let rest = trim(rest, 1_000_000_000, "s");
            let rest = rest.trim_start_matches('-');
            match (hours, minutes) {
                (0, 0) => format!("{sign}{rest}"),
                (0, minutes) => format!("{sign}{minutes}m{rest}"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{rest}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_printed_as_go_prints_them() {
        for (nanos, text) in [
            (0, "0s"),
            (20_000_000, "20ms"),
            (1_500_000_000, "1.5s"),
            (3_600_000_000_000, "1h0m0s"),
            (90_000_000_000, "1m30s"),
            (-1_000, "-1µs"),
        ] {
            assert_eq!(duration(nanos), text);
        }
    }
}

//! The protobuf message of remote write, version 1: labels and samples of each series. Everything else in it is passed over.

use std::collections::BTreeMap;

/// Series of one message.
const MAX_SERIES: usize = 20_000;
/// Labels of one series.
const MAX_LABELS: usize = 64;
/// Names and values of one series together.
const MAX_LABEL_BYTES: usize = 8 * 1024;
const NAME: &str = "__name__";
/// The not-a-number that means the end of a series.
const ENDED: u64 = 0x7ff0_0000_0000_0002;

/// A series with its newest sample.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pushed {
    pub(crate) metric: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// Which of several senders of the same series this one is; empty when it does not say.
    pub(crate) replica: String,
    pub(crate) at_ms: i64,
    /// None when the sender says that the series has ended.
    pub(crate) value: Option<f64>,
}

/// A message that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MessageError {
    #[error("the body is no WriteRequest of remote write 1.0")]
    Malformed,
    #[error("a series has no label __name__")]
    NoName,
    #[error("series {0} has more than {MAX_LABELS} labels or {MAX_LABEL_BYTES} bytes of them")]
    Labels(String),
    #[error("more than {MAX_SERIES} series come at once; lower max_samples_per_send of the sender")]
    TooMany,
}

/// Reads a message. Series without samples (histograms) are left out.
pub(crate) fn read(message: &[u8]) -> Result<Vec<Pushed>, MessageError> {
    let mut series = Vec::new();
    for field in Fields(message) {
        if let (1, Field::Bytes(bytes)) = field? {
            if series.len() >= MAX_SERIES {
                return Err(MessageError::TooMany);
            }
            series.extend(one(bytes)?);
        }
    }
    Ok(series)
}

fn one(message: &[u8]) -> Result<Option<Pushed>, MessageError> {
    let (mut labels, mut newest) = (BTreeMap::new(), None);
    let mut bytes_of_labels = 0;
    for field in Fields(message) {
        match field? {
            (1, Field::Bytes(bytes)) => {
                let (name, value) = label(bytes)?;
                bytes_of_labels += name.len() + value.len();
                labels.insert(name, value);
                if labels.len() > MAX_LABELS || bytes_of_labels > MAX_LABEL_BYTES {
                    let name = labels.remove(NAME).unwrap_or_default();
                    return Err(MessageError::Labels(name));
                }
            }
            (2, Field::Bytes(bytes)) => {
                let (at_ms, value) = sample(bytes)?;
                if newest.is_none_or(|(known, _)| known <= at_ms) {
                    newest = Some((at_ms, value));
                }
            }
            _ => {}
        }
    }
    let Some((at_ms, value)) = newest else {
        return Ok(None);
    };
    let metric = labels.remove(NAME).filter(|name| !name.is_empty());
    Ok(Some(Pushed {
        metric: metric.ok_or(MessageError::NoName)?,
        labels,
        replica: String::new(),
        at_ms,
        value: (value.to_bits() != ENDED).then_some(value),
    }))
}

fn label(message: &[u8]) -> Result<(String, String), MessageError> {
    let (mut name, mut value) = (String::new(), String::new());
    for field in Fields(message) {
        let (number, field) = field?;
        if let (1 | 2, Field::Bytes(bytes)) = (number, field) {
            let text = std::str::from_utf8(bytes).map_err(|_| MessageError::Malformed)?;
            let place = if number == 1 { &mut name } else { &mut value };
            text.clone_into(place);
        }
    }
    Ok((name, value))
}

fn sample(message: &[u8]) -> Result<(i64, f64), MessageError> {
    let (mut at_ms, mut value) = (0, 0.0);
    for field in Fields(message) {
        match field? {
            (1, Field::Fixed(bits)) => value = f64::from_bits(bits),
            // The wire knows no sign: the 64 bits are the number.
            (2, Field::Varint(bits)) => at_ms = i64::from_ne_bytes(bits.to_ne_bytes()),
            _ => {}
        }
    }
    Ok((at_ms, value))
}

enum Field<'a> {
    Varint(u64),
    Fixed(u64),
    Bytes(&'a [u8]),
    Passed,
}

/// The fields of a message, one after the other; nothing after an error.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Field<'a>), MessageError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.ok_or(MessageError::Malformed))
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u64, Field<'a>)> {
        let key = self.varint()?;
        let field = match key & 7 {
            0 => Field::Varint(self.varint()?),
            1 => Field::Fixed(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Field::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Field::Passed
            }
            _ => return None,
        };
        Some((key >> 3, field))
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..70).step_by(7) {
            let byte = u64::from(*self.take(1)?.first()?);
            number |= (byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::writing::one as series;
    use super::*;

    #[test]
    fn the_newest_sample_of_each_series_counts() {
        let mut message = series(
            &[("__name__", "queue"), ("namespace", "shop")],
            &[(2_000, 7.5), (1_000, 3.0)],
        );
        message.extend(series(
            &[("__name__", "gone")],
            &[(5, f64::from_bits(ENDED))],
        ));
        message.extend(series(&[("__name__", "histogram")], &[]));
        // Metadata, field 3, is passed over.
        message.extend([0x1a, 2, 0x08, 0x01]);
        let found = read(&message).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(
            (found[0].metric.as_str(), found[0].at_ms, found[0].value),
            ("queue", 2_000, Some(7.5))
        );
        assert_eq!(found[0].labels["namespace"], "shop");
        assert_eq!(found[1].value, None, "the series has ended");
        let nan = read(&series(&[("__name__", "x")], &[(-1, f64::NAN)])).unwrap();
        assert!(nan[0].at_ms == -1 && nan[0].value.is_some_and(f64::is_nan));
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_its_reason() {
        let unnamed = series(&[("job", "x")], &[(1, 1.0)]);
        assert_eq!(read(&unnamed).unwrap_err(), MessageError::NoName);
        let long = "v".repeat(MAX_LABEL_BYTES);
        let long = series(&[("__name__", "x"), ("l", &long)], &[(1, 1.0)]);
        assert_eq!(
            read(&long).unwrap_err(),
            MessageError::Labels("x".to_owned())
        );
        for broken in [&[0x0a, 5, 1][..], &[0x0b], &[0xff; 12]] {
            assert_eq!(read(broken).unwrap_err(), MessageError::Malformed);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = read(&bytes);
        }

        #[test]
        fn what_was_written_is_read_back(
            labels in prop::collection::btree_map("[a-z]{1,8}", ".{0,20}", 0..6),
            at_ms in any::<i64>(),
            value in -1e12..1e12,
        ) {
            let mut pairs = vec![("__name__", "metric")];
            pairs.extend(labels.iter().map(|(name, value)| (name.as_str(), value.as_str())));
            let found = read(&series(&pairs, &[(at_ms, value)])).unwrap();
            prop_assert_eq!(&found[0].labels, &labels);
            prop_assert_eq!((found[0].at_ms, found[0].value), (at_ms, Some(value)));
        }
    }
}

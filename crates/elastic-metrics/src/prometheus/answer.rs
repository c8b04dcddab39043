//! Answers of Prometheus' HTTP API, read without keeping more than is needed.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Most series of one answer.
pub(crate) const MAX_SERIES: usize = 200_000;
/// Most different names of series of one listing.
const MAX_NAMES: usize = 20_000;

/// One value at one time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
    /// Milliseconds since 1970.
    pub(crate) at_ms: i64,
}

/// An answer that is not what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AnswerError {
    #[error("{kind}: {message}")]
    Refused { kind: String, message: String },
    #[error("the answer cannot be read: {0}")]
    Unreadable(String),
    #[error("the query gives a {0}; it has to give an instant vector or a scalar")]
    WrongType(String),
    #[error("the answer has more than {0} series")]
    TooMany(usize),
}

#[derive(Deserialize)]
struct Envelope<'a, T> {
    status: Cow<'a, str>,
    #[serde(rename = "errorType", default)]
    error_type: Option<Cow<'a, str>>,
    #[serde(default)]
    error: Option<Cow<'a, str>>,
    data: Option<T>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data<'a> {
    #[serde(borrow)]
    result_type: Cow<'a, str>,
    result: Vec<Item>,
}

/// What a result consists of: series of a vector, or the time and the value of a scalar. Whatever the type turns out to be,
/// the answer is read once.
enum Item {
    /// None when the series has no value of its own, such as one of a matrix.
    Series(Option<Sample>),
    Number(f64),
    Text(String),
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyItem;
        impl<'de> Visitor<'de> for AnyItem {
            type Value = Item;

            fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str("a series, a time or a value")
            }

            fn visit_f64<E>(self, number: f64) -> Result<Item, E> {
                Ok(Item::Number(number))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Item, E> {
                Ok(Item::Number(number as f64))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Item, E> {
                Ok(Item::Number(number as f64))
            }

            fn visit_str<E>(self, text: &str) -> Result<Item, E> {
                Ok(Item::Text(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Item, A::Error> {
                let (mut labels, mut value) = (BTreeMap::new(), None);
                while let Some(field) = map.next_key::<Cow<'de, str>>()? {
                    match field.as_ref() {
                        "metric" => labels = map.next_value()?,
                        "value" => value = Some(map.next_value::<(f64, Number)>()?),
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(Item::Series(
                    value.map(|(at, Number(value))| sample(labels, at, value)),
                ))
            }
        }
        deserializer.deserialize_any(AnyItem)
    }
}

/// A number that is written as a text, so that it may be no number.
struct Number(f64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;
        impl Visitor<'_> for Written {
            type Value = Number;

            fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str("a number as a text")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Number, E> {
                let number = text.parse();
                number
                    .map(Number)
                    .map_err(|_| E::custom(format!("{text:?} is no number")))
            }
        }
        deserializer.deserialize_str(Written)
    }
}

fn unreadable(error: serde_json::Error) -> AnswerError {
    AnswerError::Unreadable(error.to_string())
}

fn opened<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, AnswerError> {
    let envelope: Envelope<'a, T> = serde_json::from_slice(body).map_err(unreadable)?;
    match (envelope.status.as_ref(), envelope.data) {
        ("success", Some(data)) => Ok(data),
        (status, _) => Err(AnswerError::Refused {
            kind: envelope
                .error_type
                .map_or_else(|| status.to_owned(), Cow::into_owned),
            message: envelope.error.map(Cow::into_owned).unwrap_or_default(),
        }),
    }
}

/// The samples of an instant query.
pub(crate) fn samples(body: &[u8]) -> Result<Vec<Sample>, AnswerError> {
    let Data {
        result_type,
        result,
    } = opened(body)?;
    let unusable = || AnswerError::Unreadable(format!("this is no {result_type}"));
    match result_type.as_ref() {
        "vector" if result.len() > MAX_SERIES => Err(AnswerError::TooMany(MAX_SERIES)),
        "vector" => {
            let series = result.into_iter().map(|item| match item {
                Item::Series(Some(sample)) => Ok(sample),
                _ => Err(unusable()),
            });
            series.collect()
        }
        "scalar" => match result.as_slice() {
            [Item::Number(at), Item::Text(value)] => {
                let value = value.parse().map_err(|_| unusable())?;
                Ok(vec![sample(BTreeMap::new(), *at, value)])
            }
            _ => Err(unusable()),
        },
        other => Err(AnswerError::WrongType(other.to_owned())),
    }
}

fn sample(labels: BTreeMap<String, String>, at: f64, value: f64) -> Sample {
    Sample {
        labels,
        value,
        at_ms: (at * 1_000.0).round() as i64,
    }
}

/// Names of labels by name of series; the labels' values are not kept.
pub(crate) fn series(body: &[u8]) -> Result<BTreeMap<String, BTreeSet<String>>, AnswerError> {
    let Listing(names) = opened(body)?;
    Ok(names)
}

struct Listing(BTreeMap<String, BTreeSet<String>>);

impl<'de> Deserialize<'de> for Listing {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Listing;

            fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str("a list of series")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Listing, A::Error> {
                let mut names = BTreeMap::new();
                let mut count = 0usize;
                while list.next_element_seed(OneSeries(&mut names))?.is_some() {
                    count += 1;
                    if count > MAX_SERIES || names.len() > MAX_NAMES {
                        return Err(serde::de::Error::custom(format!(
                            "more than {MAX_SERIES} series or {MAX_NAMES} names; make the series query narrower"
                        )));
                    }
                }
                Ok(Listing(names))
            }
        }
        deserializer.deserialize_seq(Names)
    }
}

/// Adds a series to the names.
struct OneSeries<'n>(&'n mut BTreeMap<String, BTreeSet<String>>);

impl<'de> DeserializeSeed<'de> for OneSeries<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for OneSeries<'_> {
    type Value = ();

    fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("the labels of a series")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (mut name, mut labels) = (None, Vec::new());
        while let Some(label) = map.next_key::<Cow<'de, str>>()? {
            if label == "__name__" {
                name = Some(map.next_value::<String>()?);
            } else {
                map.next_value::<IgnoredAny>()?;
                labels.push(label);
            }
        }
        let Some(name) = name else { return Ok(()) };
        let known = self.0.entry(name).or_default();
        for label in labels {
            if !known.contains(label.as_ref()) {
                known.insert(label.into_owned());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn vectors_and_scalars_are_read() {
        let body = br#"{"status":"success","data":{"resultType":"vector","result":[
            {"metric":{"pod":"a"},"value":[1700000000.5,"1.5"]},{"metric":{},"value":[1700000000,"NaN"]}]}}"#;
        let found = samples(body).unwrap();
        assert_eq!(
            (
                found[0].labels["pod"].as_str(),
                found[0].value,
                found[0].at_ms
            ),
            ("a", 1.5, 1_700_000_000_500)
        );
        assert!(found[1].value.is_nan());
        let scalar = br#"{"status":"success","data":{"resultType":"scalar","result":[1,"+Inf"]}}"#;
        assert_eq!(samples(scalar).unwrap()[0].value, f64::INFINITY);
        // With warnings, and in another order.
        let turned = br#"{"data":{"result":[{"value":[1,"2"],"histogram":{},"metric":{"a":"\u00e9"}}],"resultType":"vector"},"warnings":["w"],"status":"success"}"#;
        let found = samples(turned).unwrap();
        assert_eq!((found[0].labels["a"].as_str(), found[0].value), ("é", 2.0));
    }

    #[test]
    fn refusals_and_other_types_are_told() {
        let refused = br#"{"status":"error","errorType":"bad_data","error":"1:3: parse error"}"#;
        assert_eq!(
            samples(refused).unwrap_err().to_string(),
            "bad_data: 1:3: parse error"
        );
        let others = [
            ("matrix", "[]"),
            ("matrix", r#"[{"metric":{"pod":"a"},"values":[[1,"1"]]}]"#),
            ("string", r#"[1,"text"]"#),
        ];
        for (kind, result) in others {
            let body = format!(
                r#"{{"status":"success","data":{{"resultType":"{kind}","result":{result}}}}}"#
            );
            assert_eq!(
                samples(body.as_bytes()).unwrap_err(),
                AnswerError::WrongType(kind.into())
            );
        }
        for result in [r#"[{"metric":{}}]"#, r#"[{"value":[1,"x"]}]"#, "[1]", "{}"] {
            for kind in ["vector", "scalar"] {
                let body = format!(
                    r#"{{"status":"success","data":{{"resultType":"{kind}","result":{result}}}}}"#
                );
                let error = samples(body.as_bytes()).unwrap_err();
                assert!(
                    matches!(error, AnswerError::Unreadable(_)),
                    "{body}: {error}"
                );
            }
        }
        assert!(matches!(
            samples(b"<html>"),
            Err(AnswerError::Unreadable(_))
        ));
        assert!(matches!(
            samples(br#"{"status":"success"}"#),
            Err(AnswerError::Refused { .. })
        ));
    }

    #[test]
    fn listings_keep_names_of_labels_only() {
        let body = br#"{"status":"success","data":[{"__name__":"up","job":"a"},{"__name__":"up","pod":"x\"y"},{"none":"x"}]}"#;
        let names = series(body).unwrap();
        let labels = BTreeSet::from(["job".to_owned(), "pod".to_owned()]);
        assert_eq!(names, BTreeMap::from([("up".to_owned(), labels)]));
    }

    proptest! {
        #[test]
        fn no_answer_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = samples(&body);
            let _ = series(&body);
        }
    }
}

//! Label selectors in their text form, as a scale's status carries them.

use std::collections::BTreeMap;

use crate::shared::selector::matches_requirement;

/// A parsed selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelQuery {
    requirements: Vec<(String, &'static str, Vec<String>)>,
}

impl LabelQuery {
    /// Parses the text form: `a=b,c!=d,e in (f,g),h notin (i),j,!k`.
    ///
    /// # Errors
    /// A sentence that names the part that does not parse.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parts = split(text)?;
        let requirements = parts
            .iter()
            .map(|part| requirement(part.trim()))
            .collect::<Result<_, _>>()?;
        Ok(LabelQuery { requirements })
    }

    /// Whether labels match.
    pub fn matches(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        self.requirements.iter().all(|(key, operator, values)| {
            let actual = labels
                .and_then(|labels| labels.get(key))
                .map(String::as_str);
            matches_requirement(operator, values, actual)
        })
    }
}

/// Splits at commas outside of parentheses.
fn split(text: &str) -> Result<Vec<&str>, String> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_usize, 0);
    for (index, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.checked_sub(1).ok_or_else(|| unparsable(text))?,
            ',' if depth == 0 => {
                parts.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    if depth > 0 {
        return Err(unparsable(text));
    }
    parts.push(&text[start..]);
    Ok(parts)
}

fn requirement(part: &str) -> Result<(String, &'static str, Vec<String>), String> {
    if let Some(key) = part.strip_prefix('!') {
        return Ok((word(key, part)?, "DoesNotExist", Vec::new()));
    }
    for (sign, operator) in [("!=", "NotIn"), ("==", "In"), ("=", "In")] {
        if let Some((key, value)) = part.split_once(sign) {
            let value = value.trim();
            let values = vec![if value.is_empty() {
                String::new()
            } else {
                word(value, part)?
            }];
            return Ok((word(key, part)?, operator, values));
        }
    }
    let Some((before, list)) = part.split_once('(') else {
        return Ok((word(part, part)?, "Exists", Vec::new()));
    };
    let list = list.strip_suffix(')').ok_or_else(|| unparsable(part))?;
    let values = list
        .split(',')
        .map(|value| value.trim().to_owned())
        .collect();
    let mut words = before.split_whitespace();
    match (words.next(), words.next(), words.next()) {
        (Some(key), Some("in"), None) => Ok((key.to_owned(), "In", values)),
        (Some(key), Some("notin"), None) => Ok((key.to_owned(), "NotIn", values)),
        _ => Err(unparsable(part)),
    }
}

fn word(text: &str, part: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() || text.contains(char::is_whitespace) {
        return Err(unparsable(part));
    }
    Ok(text.to_owned())
}

fn unparsable(part: &str) -> String {
    format!("unable to parse requirement: {part:?}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_form_is_understood() {
        let query = LabelQuery::parse("a=b, c==d,e!=f,g in (h, i),j notin (k),l,!m").unwrap();
        let labels = |text: &str| -> BTreeMap<String, String> {
            text.split(' ')
                .filter_map(|pair| pair.split_once('='))
                .map(|(k, v)| (k.into(), v.into()))
                .collect()
        };
        assert!(query.matches(Some(&labels("a=b c=d g=i l=x"))));
        for other in [
            "a=b c=d g=i",
            "a=b c=d g=z l=x",
            "a=b c=d e=f g=i l=x",
            "a=b c=d g=i l=x m=1",
            "",
        ] {
            assert!(!query.matches(Some(&labels(other))), "{other}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["a b", "a in b", "a in (b", "a)", "=b", "a near (b)", "a,,b"] {
            assert!(LabelQuery::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,30}") {
            let _ = LabelQuery::parse(&text);
        }
    }
}

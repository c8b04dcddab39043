//! Field selectors: `a=b`, `a!=b`, joined by commas, with `\` as the escape.

/// One comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTerm {
    /// `metadata.name`
    pub field: String,
    /// What it is compared with.
    pub value: String,
    /// True for `!=`.
    pub negated: bool,
}

/// Comparisons that must all hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    /// The comparisons.
    pub terms: Vec<FieldTerm>,
}

fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let mut start = 0;
    let mut escaped = false;
    for (at, letter) in text.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    for at in 0..term.len() {
        let Some(rest) = term.get(at..) else { continue };
        for (operator, negated) in [("!=", true), ("==", false), ("=", false)] {
            if let Some(value) = rest.strip_prefix(operator) {
                return Some((&term[..at], negated, value));
            }
        }
    }
    None
}

fn unescape(value: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut letters = value.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => match letters.next() {
                Some(next @ ('\\' | ',' | '=')) => out.push(next),
                Some(other) => {
                    return Err(format!(
                        "invalid field selector: invalid escape sequence: \\{other}"
                    ));
                }
                None => return Err("invalid field selector: invalid escape sequence: \\".into()),
            },
            ',' | '=' => {
                return Err(format!(
                    "invalid field selector: unescaped character in field selector value: {letter}"
                ));
            }
            other => out.push(other),
        }
    }
    Ok(out)
}

impl FieldSelector {
    /// Parses `a=b,c!=d`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut terms = Vec::new();
        for part in split_terms(text) {
            if part.is_empty() {
                continue;
            }
            let (field, negated, value) = split_term(part)
                .ok_or_else(|| format!("invalid selector: '{text}'; can't understand '{part}'"))?;
            let value = unescape(value)?;
            // Upstream drops a comparison of nothing with nothing.
            if field.is_empty() && value.is_empty() {
                continue;
            }
            terms.push(FieldTerm {
                field: field.to_string(),
                value,
                negated,
            });
        }
        Ok(Self { terms })
    }

    /// True when everything matches.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether an object satisfies every comparison; `value` looks a field up.
    pub fn matches(&self, value: impl Fn(&str) -> String) -> bool {
        self.terms
            .iter()
            .all(|term| (value(&term.field) == term.value) != term.negated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_split_at_unescaped_commas() {
        let selector = FieldSelector::parse("metadata.name=a\\,b,status.phase!=Running,").unwrap();
        assert_eq!(selector.terms[0].value, "a,b");
        assert!(selector.terms[1].negated);
        assert_eq!(selector.terms.len(), 2);
    }

    #[test]
    fn what_is_no_comparison_is_named() {
        assert_eq!(
            FieldSelector::parse("foo=bar,baz").unwrap_err(),
            "invalid selector: 'foo=bar,baz'; can't understand 'baz'"
        );
    }
}

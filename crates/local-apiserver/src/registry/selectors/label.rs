//! Label selectors in their text form and as `LabelSelector` objects.

use super::super::names;
use serde_json::{Map, Value};

/// How a requirement compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// One of the values.
    In,
    /// Absent or none of the values.
    NotIn,
    /// Present.
    Exists,
    /// Absent.
    DoesNotExist,
    /// An integer above.
    GreaterThan,
    /// An integer below.
    LessThan,
}

/// One term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// Label key.
    pub key: String,
    /// Comparison.
    pub operator: Operator,
    /// Its operands.
    pub values: Vec<String>,
}

/// Terms that must all hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    /// The terms.
    pub requirements: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Symbol(&'static str),
    End,
}

impl Token {
    fn text(&self) -> &str {
        match self {
            Self::Word(word) => word,
            Self::Symbol(symbol) => symbol,
            Self::End => "",
        }
    }

    fn keyword(&self) -> bool {
        matches!(self, Self::Word(word) if word == "in" || word == "notin")
    }
}

fn tokens(text: &str) -> Vec<Token> {
    let mut out = Vec::new();
    let bytes = text.as_bytes();
    let special = |byte: u8| matches!(byte, b'=' | b'!' | b'(' | b')' | b',' | b'>' | b'<');
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        if matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
            at += 1;
        } else if special(byte) {
            let two = text.get(at..at + 2).unwrap_or_default();
            let symbol = match (byte, two) {
                (_, "==") => "==",
                (_, "!=") => "!=",
                (b'=', _) => "=",
                (b'!', _) => "!",
                (b'(', _) => "(",
                (b')', _) => ")",
                (b',', _) => ",",
                (b'>', _) => ">",
                _ => "<",
            };
            at += symbol.len();
            out.push(Token::Symbol(symbol));
        } else {
            let start = at;
            while at < bytes.len()
                && !special(bytes[at])
                && !matches!(bytes[at], b' ' | b'\t' | b'\r' | b'\n')
            {
                at += 1;
            }
            out.push(Token::Word(text[start..at].to_string()));
        }
    }
    out.push(Token::End);
    out
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.at).unwrap_or(&Token::End)
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn parse(&mut self) -> Result<Vec<Requirement>, String> {
        let mut requirements = Vec::new();
        loop {
            match self.peek() {
                Token::Word(_) | Token::Symbol("!") => {
                    let requirement = self
                        .requirement()
                        .map_err(|error| format!("unable to parse requirement: {error}"))?;
                    requirements.push(requirement);
                    match self.next() {
                        Token::End => return Ok(requirements),
                        Token::Symbol(",") => {
                            let next = self.peek();
                            if !matches!(next, Token::Word(_) | Token::Symbol("!")) {
                                return Err(format!(
                                    "found '{}', expected: identifier after ','",
                                    next.text()
                                ));
                            }
                        }
                        other => {
                            return Err(format!(
                                "found '{}', expected: ',' or 'end of string'",
                                other.text()
                            ));
                        }
                    }
                }
                Token::End => return Ok(requirements),
                other => {
                    return Err(format!(
                        "found '{}', expected: !, identifier, or 'end of string'",
                        other.text()
                    ));
                }
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let negated = *self.peek() == Token::Symbol("!");
        if negated {
            self.next();
        }
        let key = match self.next() {
            Token::Word(word) => word,
            other => return Err(format!("found '{}', expected: identifier", other.text())),
        };
        if let Some(error) = names::qualified_name_errors(&key).into_iter().next() {
            let error = error.replace("63 bytes", "63 characters");
            return Err(format!("<nil>: Invalid value: {key:?}: {error}"));
        }
        if negated || matches!(self.peek(), Token::End | Token::Symbol(",")) {
            let operator = if negated {
                Operator::DoesNotExist
            } else {
                Operator::Exists
            };
            return Ok(Requirement {
                key,
                operator,
                values: Vec::new(),
            });
        }
        let operator = self.operator()?;
        let values = match operator.1 {
            "in" | "notin" => self.values()?,
            _ => vec![self.exact_value()?],
        };
        checked(key, operator.0, values)
    }

    fn operator(&mut self) -> Result<(Operator, &'static str), String> {
        let token = self.next();
        Ok(match &token {
            Token::Symbol("=") => (Operator::In, "="),
            Token::Symbol("==") => (Operator::In, "=="),
            Token::Symbol("!=") => (Operator::NotIn, "!="),
            Token::Symbol(">") => (Operator::GreaterThan, ">"),
            Token::Symbol("<") => (Operator::LessThan, "<"),
            Token::Word(word) if word == "in" => (Operator::In, "in"),
            Token::Word(word) if word == "notin" => (Operator::NotIn, "notin"),
            other => {
                let found = other.text();
                return Err(format!(
                    "found '{found}', expected: in, notin, =, ==, !=, gt, lt"
                ));
            }
        })
    }

    fn values(&mut self) -> Result<Vec<String>, String> {
        let open = self.next();
        if open != Token::Symbol("(") {
            return Err(format!("found '{}' expected: '('", open.text()));
        }
        let mut values = Vec::new();
        loop {
            match self.next() {
                Token::Word(word) => {
                    values.push(word);
                    match self.next() {
                        Token::Symbol(",") => {
                            if *self.peek() == Token::Symbol(")") {
                                values.push(String::new());
                            }
                        }
                        Token::Symbol(")") => break,
                        other => {
                            return Err(format!("found '{}', expected: ',' or ')'", other.text()));
                        }
                    }
                }
                Token::Symbol(",") => values.push(String::new()),
                Token::Symbol(")") => {
                    if values.is_empty() {
                        values.push(String::new());
                    }
                    break;
                }
                other => {
                    return Err(format!(
                        "found '{}', expected: ',', ')' or identifier",
                        other.text()
                    ));
                }
            }
        }
        values.sort();
        values.dedup();
        Ok(values)
    }

    fn exact_value(&mut self) -> Result<String, String> {
        match self.peek().clone() {
            Token::End | Token::Symbol(",") => Ok(String::new()),
            word if word.keyword() || matches!(word, Token::Word(_)) => {
                self.next();
                Ok(word.text().to_string())
            }
            other => Err(format!("found '{}', expected: identifier", other.text())),
        }
    }
}

fn checked(key: String, operator: Operator, values: Vec<String>) -> Result<Requirement, String> {
    if matches!(operator, Operator::GreaterThan | Operator::LessThan)
        && let Some(value) = values.first()
        && value.parse::<i64>().is_err()
    {
        return Err(format!(
            "values[0]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer"
        ));
    }
    for (index, value) in values.iter().enumerate() {
        if let Some(error) = names::label_value_errors(value).into_iter().next() {
            let error = error.replace("63 bytes", "63 characters");
            return Err(format!(
                "values[{index}][{key}]: Invalid value: {value:?}: {error}"
            ));
        }
    }
    Ok(Requirement {
        key,
        operator,
        values,
    })
}

impl LabelSelector {
    /// Parses `app=x,tier in (a,b),!y`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser {
            tokens: tokens(text),
            at: 0,
        };
        Ok(Self {
            requirements: parser.parse()?,
        })
    }

    /// From a `LabelSelector` object.
    pub fn from_object(selector: &Value) -> Self {
        let mut requirements = Vec::new();
        for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
            requirements.push(Requirement {
                key: key.clone(),
                operator: Operator::In,
                values: vec![value.as_str().unwrap_or_default().to_string()],
            });
        }
        for one in selector["matchExpressions"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let operator = match one["operator"].as_str().unwrap_or_default() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                _ => Operator::DoesNotExist,
            };
            let values = one["values"].as_array().into_iter().flatten();
            requirements.push(Requirement {
                key: one["key"].as_str().unwrap_or_default().to_string(),
                operator,
                values: values
                    .map(|value| value.as_str().unwrap_or_default().to_string())
                    .collect(),
            });
        }
        Self { requirements }
    }

    /// True when everything matches.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether labels satisfy every term.
    pub fn matches(&self, labels: Option<&Map<String, Value>>) -> bool {
        self.requirements.iter().all(|requirement| {
            let value = labels
                .and_then(|labels| labels.get(&requirement.key))
                .map(|value| value.as_str().unwrap_or_default());
            let listed = |value: &str| requirement.values.iter().any(|one| one == value);
            let compared = |greater: bool| {
                let found = value.and_then(|value| value.parse::<i64>().ok());
                let wanted = requirement.values.first().and_then(|value| value.parse::<i64>().ok());
                matches!((found, wanted), (Some(found), Some(wanted)) if if greater { found > wanted } else { found < wanted })
            };
            match requirement.operator {
                Operator::In => value.is_some_and(listed),
                Operator::NotIn => value.is_none_or(|value| !listed(value)),
                Operator::Exists => value.is_some(),
                Operator::DoesNotExist => value.is_none(),
                Operator::GreaterThan => compared(true),
                Operator::LessThan => compared(false),
            }
        })
    }
}

/// A `LabelSelector` object in its text form, as `/scale` shows it.
pub fn selector_text(selector: &Value) -> String {
    let parsed = LabelSelector::from_object(selector);
    let mut terms: Vec<(String, String)> = parsed
        .requirements
        .into_iter()
        .map(|one| {
            let mut values = one.values;
            values.sort();
            let list = values.join(",");
            let from_labels = selector["matchLabels"].get(&one.key).is_some();
            let text = match one.operator {
                Operator::In if from_labels => format!("{}={list}", one.key),
                Operator::In => format!("{} in ({list})", one.key),
                Operator::NotIn => format!("{} notin ({list})", one.key),
                Operator::Exists => one.key.clone(),
                _ => format!("!{}", one.key),
            };
            (one.key, text)
        })
        .collect();
    terms.sort();
    let texts: Vec<String> = terms.into_iter().map(|(_, text)| text).collect();
    texts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn matches(selector: &str, labels: Value) -> bool {
        LabelSelector::parse(selector)
            .expect("a valid selector")
            .matches(labels.as_object())
    }

    #[test]
    fn terms_match_as_upstream_does() {
        let labels = || json!({"app": "x", "tier": "f", "num": "5"});
        for yes in [
            "",
            "app=x",
            "app==x",
            "tier",
            "!no",
            "app in (x, y)",
            "app notin (y)",
            "num>3",
            "no!=x",
            "no notin (x)",
        ] {
            assert!(matches(yes, labels()), "{yes}");
        }
        for no in [
            "app=y",
            "!tier",
            "no",
            "app notin (x)",
            "num<5",
            "app in ()",
        ] {
            assert!(!matches(no, labels()), "{no}");
        }
    }

    #[test]
    fn a_broken_selector_says_what_was_expected() {
        for (text, error) in [
            (
                "app in (x",
                "unable to parse requirement: found '', expected: ',' or ')'",
            ),
            (
                "=x",
                "found '=', expected: !, identifier, or 'end of string'",
            ),
            (
                "app===x",
                "unable to parse requirement: found '=', expected: identifier",
            ),
            ("app=x,", "found '', expected: identifier after ','"),
            (
                "a b",
                "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt",
            ),
            ("app=x y", "found 'y', expected: ',' or 'end of string'"),
        ] {
            assert_eq!(LabelSelector::parse(text).unwrap_err(), error);
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "[a-z=!(),<> /\"]{0,30}") {
            let _ = LabelSelector::parse(&text);
        }
    }
}

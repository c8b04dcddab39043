//! Label selectors in their text form, as scales carry them and as list requests take them, read and refused in the
//! words of Kubernetes' own parser.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

const OPERATORS: &str = "in, notin, =, ==, !=, gt, lt";
/// Longest selector that is read.
const LENGTH_MAX: usize = 64 * 1024;

/// A parsed selector; all its requirements must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelQuery {
    requirements: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
    values: BTreeSet<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equals,
    NotEquals,
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

impl LabelQuery {
    /// Parses the text form: `a=b,c!=d,e in (f,g),h notin (i),j,!k`.
    ///
    /// # Errors
    /// A sentence that names the part that does not parse.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > LENGTH_MAX {
            return Err(format!("selector is longer than {LENGTH_MAX} bytes"));
        }
        let mut requirements = Parser::new(text).selector()?;
        requirements.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(LabelQuery { requirements })
    }

    /// The query of a selector in its object form; nothing selects everything.
    ///
    /// # Errors
    /// A sentence that names the operator that is none.
    pub fn from_selector(selector: Option<&LabelSelector>) -> Result<Self, String> {
        let mut requirements = Vec::new();
        let Some(selector) = selector else {
            return Ok(LabelQuery { requirements });
        };
        for (key, value) in selector.match_labels.iter().flatten() {
            requirements.push(Requirement {
                key: key.clone(),
                operator: Operator::Equals,
                values: BTreeSet::from([value.clone()]),
            });
        }
        for expression in selector.match_expressions.iter().flatten() {
            let operator = match expression.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(format!("{other:?} is not a valid label selector operator")),
            };
            requirements.push(Requirement {
                key: expression.key.clone(),
                operator,
                values: expression.values.iter().flatten().cloned().collect(),
            });
        }
        requirements.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(LabelQuery { requirements })
    }

    /// Whether it has no requirement, so that everything matches.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether labels match.
    pub fn matches(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        self.requirements.iter().all(|requirement| {
            let actual = labels.and_then(|labels| labels.get(&requirement.key));
            requirement.holds(actual.map(String::as_str))
        })
    }
}

impl Requirement {
    fn holds(&self, actual: Option<&str>) -> bool {
        let is_listed = || actual.is_some_and(|actual| self.values.contains(actual));
        let numbers = || {
            let bound = self.values.first()?.parse::<i64>().ok()?;
            Some((actual?.parse::<i64>().ok()?, bound))
        };
        match self.operator {
            Operator::Equals | Operator::In => is_listed(),
            Operator::NotEquals | Operator::NotIn => !is_listed(),
            Operator::Exists => actual.is_some(),
            Operator::DoesNotExist => actual.is_none(),
            Operator::GreaterThan => numbers().is_some_and(|(actual, bound)| actual > bound),
            Operator::LessThan => numbers().is_some_and(|(actual, bound)| actual < bound),
        }
    }
}

/// The form in which list requests carry it.
impl fmt::Display for LabelQuery {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            if index > 0 {
                formatter.write_str(",")?;
            }
            let key = &requirement.key;
            let values: Vec<&str> = requirement.values.iter().map(String::as_str).collect();
            let values = values.join(",");
            match requirement.operator {
                Operator::Equals => write!(formatter, "{key}={values}"),
                Operator::NotEquals => write!(formatter, "{key}!={values}"),
                Operator::In => write!(formatter, "{key} in ({values})"),
                Operator::NotIn => write!(formatter, "{key} notin ({values})"),
                Operator::Exists => formatter.write_str(key),
                Operator::DoesNotExist => write!(formatter, "!{key}"),
                Operator::GreaterThan => write!(formatter, "{key}>{values}"),
                Operator::LessThan => write!(formatter, "{key}<{values}"),
            }?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Sign(&'a str),
    End,
}

impl<'a> Token<'a> {
    fn text(self) -> &'a str {
        match self {
            Token::Word(text) | Token::Sign(text) => text,
            Token::End => "",
        }
    }

    fn is(self, sign: &str) -> bool {
        self == Token::Sign(sign)
    }
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    position: usize,
}

const SIGNS: [&str; 9] = ["==", "!=", "=", "!", "(", ")", ",", ">", "<"];

fn is_special(character: char) -> bool {
    matches!(character, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        let mut tokens = Vec::new();
        let mut rest = text.trim_start_matches(is_blank);
        while !rest.is_empty() {
            let sign = SIGNS.iter().find(|sign| rest.starts_with(**sign));
            let length = match sign {
                Some(sign) => sign.len(),
                None => rest
                    .find(|character| is_special(character) || is_blank(character))
                    .unwrap_or(rest.len()),
            };
            let (token, after) = rest.split_at(length);
            tokens.push(match sign {
                Some(_) => Token::Sign(token),
                None => Token::Word(token),
            });
            rest = after.trim_start_matches(is_blank);
        }
        Parser {
            tokens,
            position: 0,
        }
    }

    fn peek(&self) -> Token<'a> {
        self.tokens
            .get(self.position)
            .copied()
            .unwrap_or(Token::End)
    }

    fn next(&mut self) -> Token<'a> {
        let token = self.peek();
        self.position += 1;
        token
    }

    fn selector(&mut self) -> Result<Vec<Requirement>, String> {
        let mut requirements = Vec::new();
        loop {
            match self.peek() {
                Token::End => return Ok(requirements),
                token if !matches!(token, Token::Word(_)) && !token.is("!") => {
                    let found = token.text();
                    return Err(format!(
                        "found '{found}', expected: !, identifier, or 'end of string'"
                    ));
                }
                _ => {}
            }
            let requirement = self
                .requirement()
                .map_err(|error| format!("unable to parse requirement: {error}"))?;
            requirements.push(requirement);
            match self.next() {
                Token::End => return Ok(requirements),
                token if token.is(",") => {
                    let after = self.peek();
                    if !matches!(after, Token::Word(_)) && !after.is("!") {
                        let found = after.text();
                        return Err(format!("found '{found}', expected: identifier after ','"));
                    }
                }
                token => {
                    let found = token.text();
                    return Err(format!("found '{found}', expected: ',' or 'end of string'"));
                }
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let is_negated = self.peek().is("!");
        if is_negated {
            self.next();
        }
        let key = match self.next() {
            Token::Word(key) => key.to_owned(),
            token => return Err(format!("found '{}', expected: identifier", token.text())),
        };
        let is_alone = self.peek() == Token::End || self.peek().is(",");
        if is_negated || is_alone {
            let operator = if is_negated {
                Operator::DoesNotExist
            } else {
                Operator::Exists
            };
            let values = BTreeSet::new();
            return Ok(Requirement {
                key,
                operator,
                values,
            });
        }
        let operator = self.operator()?;
        let values = match operator {
            Operator::In | Operator::NotIn => self.list()?,
            _ => self.exact()?,
        };
        Ok(Requirement {
            key,
            operator,
            values,
        })
    }

    fn operator(&mut self) -> Result<Operator, String> {
        Ok(match self.next() {
            Token::Word("in") => Operator::In,
            Token::Word("notin") => Operator::NotIn,
            Token::Sign("=" | "==") => Operator::Equals,
            Token::Sign("!=") => Operator::NotEquals,
            Token::Sign(">") => Operator::GreaterThan,
            Token::Sign("<") => Operator::LessThan,
            token => {
                let found = token.text();
                return Err(format!("found '{found}', expected: {OPERATORS}"));
            }
        })
    }

    fn exact(&mut self) -> Result<BTreeSet<String>, String> {
        let token = self.peek();
        if token == Token::End || token.is(",") {
            return Ok(BTreeSet::from([String::new()]));
        }
        match self.next() {
            Token::Word(value) => Ok(BTreeSet::from([value.to_owned()])),
            token => Err(format!("found '{}', expected: identifier", token.text())),
        }
    }

    fn list(&mut self) -> Result<BTreeSet<String>, String> {
        let open = self.next();
        if !open.is("(") {
            return Err(format!("found '{}' expected: '('", open.text()));
        }
        let mut values = BTreeSet::new();
        let mut value = "";
        loop {
            match self.next() {
                Token::Word(word) if value.is_empty() => value = word,
                token if token.is(",") => {
                    values.insert(std::mem::take(&mut value).to_owned());
                }
                token if token.is(")") => {
                    values.insert(value.to_owned());
                    return Ok(values);
                }
                token if value.is_empty() => {
                    let found = token.text();
                    return Err(format!("found '{found}', expected: ',', ')' or identifier"));
                }
                token => return Err(format!("found '{}', expected: ',' or ')'", token.text())),
            }
        }
    }
}

fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\r' | '\n')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels(text: &str) -> BTreeMap<String, String> {
        text.split(' ')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.into(), value.into()))
            .collect()
    }

    #[test]
    fn every_form_is_understood() {
        let query = LabelQuery::parse("a=b, c==d,e!=f,g in (h, i),j notin (k),l,!m,n>3").unwrap();
        assert!(query.matches(Some(&labels("a=b c=d g=i l=x n=4"))));
        for other in [
            "a=b c=d g=i n=4",
            "a=b c=d g=z l=x n=4",
            "a=b c=d e=f g=i l=x n=4",
            "a=b c=d g=i l=x m=1 n=4",
            "a=b c=d g=i l=x n=3",
            "",
        ] {
            assert!(!query.matches(Some(&labels(other))), "{other}");
        }
        assert_eq!(
            query.to_string(),
            "a=b,c=d,e!=f,g in (h,i),j notin (k),l,!m,n>3"
        );
    }

    #[test]
    fn nonsense_is_refused_in_the_parsers_words() {
        for (text, words) in [
            (
                "a b",
                "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt",
            ),
            (
                "a in b",
                "unable to parse requirement: found 'b' expected: '('",
            ),
            (
                "a in (b",
                "unable to parse requirement: found '', expected: ',' or ')'",
            ),
            ("a=b)", "found ')', expected: ',' or 'end of string'"),
            (
                "=b",
                "found '=', expected: !, identifier, or 'end of string'",
            ),
            ("a,,b", "found ',', expected: identifier after ','"),
            (
                "a=(",
                "unable to parse requirement: found '(', expected: identifier",
            ),
            (
                "!",
                "unable to parse requirement: found '', expected: identifier",
            ),
        ] {
            assert_eq!(LabelQuery::parse(text).unwrap_err(), words, "{text}");
        }
    }

    #[test]
    fn the_object_form_becomes_the_same_query() {
        let selector = serde_json::from_value(serde_json::json!({
            "matchLabels": {"b": "2", "a": "1"},
            "matchExpressions": [{"key": "c", "operator": "In", "values": ["x", "y"]},
                {"key": "d", "operator": "DoesNotExist"}],
        }));
        let query = LabelQuery::from_selector(Some(&selector.unwrap())).unwrap();
        assert_eq!(query.to_string(), "a=1,b=2,c in (x,y),!d");
        assert_eq!(
            LabelQuery::parse(&query.to_string()).unwrap().to_string(),
            query.to_string()
        );
        assert!(LabelQuery::from_selector(None).unwrap().is_everything());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_and_what_parses_reads_back(text in "[a-c!=(),> in\\PC]{0,30}") {
            if let Ok(query) = LabelQuery::parse(&text) {
                let again = LabelQuery::parse(&query.to_string());
                prop_assert_eq!(again.map(|query| query.to_string()), Ok(query.to_string()));
            }
        }
    }
}

//! The search part of a query: words, fields, numbers, `and`, `or`, `not` and brackets, as plain functions.
//!
//! Values are split into words at the index' delimiters, or the usual ones without an index. Words with letters beyond
//! ASCII are looked for inside values, since no delimiters separate them.

use super::record::Fields;

/// Deepest nesting of brackets and `not`.
const MAX_DEPTH: usize = 64;
/// Longest search part.
const MAX_BYTES: usize = 64 * 1024;
/// What separates words when no index says otherwise.
const DELIMITERS: &str = ", '\";=()[]{}?@&<>/:\n\t\r";

/// How values are split and compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Words {
    pub(super) delimiters: String,
    pub(super) case_sensitive: bool,
}

impl Default for Words {
    fn default() -> Self {
        Self {
            delimiters: DELIMITERS.to_owned(),
            case_sensitive: false,
        }
    }
}

/// A condition on one log.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Search {
    All,
    Is(Condition),
    Not(Box<Search>),
    And(Vec<Search>),
    Or(Vec<Search>),
}

/// A condition on one field, or on any when no key is named.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Condition {
    key: Option<String>,
    test: Test,
}

#[derive(Clone, Debug, PartialEq)]
enum Test {
    /// The field is there.
    Exists,
    /// All these words are in the value.
    Words { text: String, wildcards: bool },
    /// The text is in the value as it stands.
    Phrase(String),
    /// The value is a number between these, both ends perhaps excluded.
    Between { low: (f64, bool), high: (f64, bool) },
}

/// The search and the SQL part of a query, divided at the first bar outside quotes.
pub(super) fn divide(query: &str) -> (&str, Option<&str>) {
    let (mut quoted, mut escaped) = (false, false);
    for (place, letter) in query.char_indices() {
        match letter {
            '\\' if quoted && !escaped => {
                escaped = true;
                continue;
            }
            '"' if !escaped => quoted = !quoted,
            '|' if !quoted => return (query[..place].trim(), Some(query[place + 1..].trim())),
            _ => {}
        }
        escaped = false;
    }
    (query.trim(), None)
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Quoted(String),
    Phrase(String),
    /// One of `( ) [ ] : = > >= < <=`.
    Mark(&'static str),
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let letters: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(&letter) = letters.get(at) {
        let next = letters.get(at + 1);
        let mark = match (letter, next) {
            ('>', Some('=')) => Some(">="),
            ('<', Some('=')) => Some("<="),
            ('>', _) => Some(">"),
            ('<', _) => Some("<"),
            ('=', _) => Some("="),
            (':', _) => Some(":"),
            ('(', _) => Some("("),
            (')', _) => Some(")"),
            ('[', _) => Some("["),
            (']', _) => Some("]"),
            _ => None,
        };
        if let Some(mark) = mark {
            tokens.push(Token::Mark(mark));
            at += mark.len();
        } else if letter.is_whitespace() {
            at += 1;
        } else if letter == '"' || letter == '\'' {
            let (text, after) = quoted(&letters, at)?;
            tokens.push(Token::Quoted(text));
            at = after;
        } else if letter == '#' && next == Some(&'"') {
            let (text, after) = quoted(&letters, at + 1)?;
            tokens.push(Token::Phrase(text));
            at = after;
        } else {
            let start = at;
            let ends = |letter: &char| letter.is_whitespace() || "\"()[]:=<>".contains(*letter);
            while letters.get(at).is_some_and(|letter| !ends(letter)) {
                at += 1;
            }
            tokens.push(Token::Word(letters[start..at].iter().collect()));
        }
    }
    Ok(tokens)
}

/// A quoted text and where it ends.
fn quoted(letters: &[char], start: usize) -> Result<(String, usize), String> {
    let quote = letters[start];
    let mut text = String::new();
    let mut at = start + 1;
    while let Some(&letter) = letters.get(at) {
        if letter == quote {
            return Ok((text, at + 1));
        }
        if letter == '\\'
            && let Some(&next) = letters.get(at + 1)
            && (next == quote || next == '\\')
        {
            text.push(next);
            at += 2;
        } else {
            text.push(letter);
            at += 1;
        }
    }
    Err("a quotation mark is not closed".to_owned())
}

impl Search {
    /// Reads a search part.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_BYTES {
            return Err(format!("the search part is longer than {MAX_BYTES} bytes"));
        }
        let mut parser = Parser {
            tokens: tokens(text)?,
            at: 0,
            depth: 0,
        };
        if parser.tokens.is_empty() {
            return Ok(Self::All);
        }
        let search = parser.any(None)?;
        match parser.peek() {
            None => Ok(search),
            Some(token) => Err(format!("{} is not expected here", shown(token))),
        }
    }

    /// Whether a log is meant.
    pub(super) fn matches(&self, fields: &dyn Fields, words: &Words) -> bool {
        match self {
            Self::All => true,
            Self::Is(condition) => condition.matches(fields, words),
            Self::Not(inner) => !inner.matches(fields, words),
            Self::And(all) => all.iter().all(|one| one.matches(fields, words)),
            Self::Or(any) => any.iter().any(|one| one.matches(fields, words)),
        }
    }
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn take(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    fn takes(&mut self, wanted: &str) -> bool {
        let found = match self.peek() {
            Some(Token::Word(word)) => word.eq_ignore_ascii_case(wanted),
            Some(Token::Mark(mark)) => *mark == wanted,
            _ => false,
        };
        self.at += usize::from(found);
        found
    }

    fn any(&mut self, key: Option<&str>) -> Result<Search, String> {
        let mut any = vec![self.all(key)?];
        while self.takes("or") {
            any.push(self.all(key)?);
        }
        Ok(match any.len() {
            1 => any.remove(0),
            _ => Search::Or(any),
        })
    }

    fn all(&mut self, key: Option<&str>) -> Result<Search, String> {
        let mut all = vec![self.one(key)?];
        loop {
            let and = self.takes("and");
            let ends = match self.peek() {
                None | Some(Token::Mark(")" | "]")) => true,
                Some(Token::Word(word)) => word.eq_ignore_ascii_case("or"),
                _ => false,
            };
            if ends && and {
                return Err("something must follow \"and\"".to_owned());
            }
            if ends {
                break;
            }
            all.push(self.one(key)?);
        }
        Ok(match all.len() {
            1 => all.remove(0),
            _ => Search::And(all),
        })
    }

    fn one(&mut self, key: Option<&str>) -> Result<Search, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("brackets are nested deeper than {MAX_DEPTH}"));
        }
        let found = self.one_within_depth(key);
        self.depth -= 1;
        found
    }

    fn one_within_depth(&mut self, key: Option<&str>) -> Result<Search, String> {
        if self.takes("not") {
            return Ok(Search::Not(Box::new(self.one(key)?)));
        }
        if self.takes("(") {
            let inner = self.any(key)?;
            return match self.takes(")") {
                true => Ok(inner),
                false => Err("a bracket is not closed".to_owned()),
            };
        }
        let (text, is_word) = match self.take() {
            Some(Token::Word(word)) if ["and", "or"].contains(&word.to_lowercase().as_str()) => {
                return Err(format!(
                    "{word:?} must stand between two conditions; quote it when it is a word"
                ));
            }
            Some(Token::Word(word)) => (word, true),
            Some(Token::Quoted(text)) => (text, false),
            Some(Token::Phrase(text)) => return Ok(is(key, Test::Phrase(text))),
            Some(token) => return Err(format!("{} is not expected here", shown(&token))),
            None => return Err("the search part ends too early".to_owned()),
        };
        if key.is_none()
            && let Some(condition) = self.condition_on(&text, is_word)?
        {
            return Ok(condition);
        }
        Ok(words(key, text, is_word))
    }

    /// What follows a key, when the text is one.
    fn condition_on(&mut self, text: &str, is_word: bool) -> Result<Option<Search>, String> {
        let mut key = text.to_owned();
        if is_word && key == "__tag__" && self.takes(":") {
            match self.take() {
                Some(Token::Word(tag) | Token::Quoted(tag)) => key = format!("__tag__:{tag}"),
                _ => return Err("a tag's name must follow __tag__:".to_owned()),
            }
        }
        if self.takes(":") {
            return self.value_of(&key).map(Some);
        }
        if self.takes("in") {
            return self.range_of(&key).map(Some);
        }
        let edge = f64::INFINITY;
        for mark in [">=", "<=", ">", "<", "="] {
            if !self.takes(mark) {
                continue;
            }
            let number = self.number()?;
            let (low, high) = match mark {
                ">=" => ((number, true), (edge, true)),
                ">" => ((number, false), (edge, true)),
                "<=" => ((-edge, true), (number, true)),
                "<" => ((-edge, true), (number, false)),
                _ => ((number, true), (number, true)),
            };
            return Ok(Some(is(Some(&key), Test::Between { low, high })));
        }
        Ok(None)
    }

    fn value_of(&mut self, key: &str) -> Result<Search, String> {
        if self.takes("(") {
            let inner = self.any(Some(key))?;
            return match self.takes(")") {
                true => Ok(inner),
                false => Err("a bracket is not closed".to_owned()),
            };
        }
        match self.take() {
            Some(Token::Word(text)) => Ok(words(Some(key), text, true)),
            Some(Token::Quoted(text)) => Ok(words(Some(key), text, false)),
            Some(Token::Phrase(text)) => Ok(is(Some(key), Test::Phrase(text))),
            _ => Err(format!("a value must follow {key}:")),
        }
    }

    /// `in [200 299]`, either end in round brackets when it is not meant.
    fn range_of(&mut self, key: &str) -> Result<Search, String> {
        let with_low = match self.take() {
            Some(Token::Mark("[")) => true,
            Some(Token::Mark("(")) => false,
            _ => return Err(format!("a range like [200 299] must follow {key} in")),
        };
        let (low, high) = (self.number()?, self.number()?);
        let with_high = match self.take() {
            Some(Token::Mark("]")) => true,
            Some(Token::Mark(")")) => false,
            _ => return Err(format!("the range after {key} in is not closed")),
        };
        let (low, high) = ((low, with_low), (high, with_high));
        Ok(is(Some(key), Test::Between { low, high }))
    }

    fn number(&mut self) -> Result<f64, String> {
        match self.take() {
            Some(Token::Word(text) | Token::Quoted(text)) => {
                let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
                number.ok_or_else(|| format!("{text:?} is not a number"))
            }
            _ => Err("a number is missing".to_owned()),
        }
    }
}

fn shown(token: &Token) -> String {
    match token {
        Token::Word(text) | Token::Quoted(text) | Token::Phrase(text) => format!("{text:?}"),
        Token::Mark(mark) => format!("\"{mark}\""),
    }
}

fn is(key: Option<&str>, test: Test) -> Search {
    Search::Is(Condition {
        key: key.map(str::to_owned),
        test,
    })
}

fn words(key: Option<&str>, text: String, wildcards: bool) -> Search {
    match (key, wildcards && text == "*") {
        (None, true) => Search::All,
        (Some(_), true) => is(key, Test::Exists),
        _ => is(key, Test::Words { text, wildcards }),
    }
}

impl Condition {
    fn matches(&self, fields: &dyn Fields, words: &Words) -> bool {
        match &self.key {
            Some(key) => fields
                .field(key)
                .is_some_and(|value| self.test.fits(value, words)),
            // Words of one query may stand in different fields, but one text's words stand together.
            None => fields.any_value(&mut |value| self.test.fits(value, words)),
        }
    }
}

impl Test {
    fn fits(&self, value: &str, words: &Words) -> bool {
        match self {
            Self::Exists => true,
            Self::Phrase(text) => value.contains(text.as_str()),
            Self::Between { low, high } => value.trim().parse::<f64>().is_ok_and(|number| {
                let over = number > low.0 || low.1 && number == low.0;
                let under = number < high.0 || high.1 && number == high.0;
                over && under
            }),
            Self::Words { text, wildcards } => has_words(value, text, *wildcards, words),
        }
    }
}

fn has_words(value: &str, text: &str, wildcards: bool, words: &Words) -> bool {
    let fold = |text: &str| match words.case_sensitive {
        true => text.to_owned(),
        false => text.to_lowercase(),
    };
    let splits = |letter: char| words.delimiters.contains(letter);
    let splits_wanted = |letter: char| splits(letter) && !(wildcards && letter == '?');
    let value = fold(value);
    let wanted = fold(text);
    let mut parts = wanted.split(splits_wanted).filter(|part| !part.is_empty());
    let mut found = |part: &str| {
        if wildcards && part.contains(['*', '?']) {
            return value.split(splits).any(|word| crate::ram::fits(part, word));
        }
        if !part.is_ascii() {
            return value.contains(part);
        }
        value.split(splits).any(|word| word == part)
    };
    if wanted.chars().all(splits_wanted) {
        return value == wanted;
    }
    parts.all(&mut found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Pairs(Vec<(&'static str, &'static str)>);

    impl Fields for Pairs {
        fn field(&self, key: &str) -> Option<&str> {
            let found = self.0.iter().find(|(name, _)| *name == key);
            found.map(|(_, value)| *value)
        }

        fn any_value(&self, test: &mut dyn FnMut(&str) -> bool) -> bool {
            self.0.iter().any(|(_, value)| test(value))
        }
    }

    fn hits(search: &str) -> bool {
        let log = Pairs(vec![
            ("device_id", "Phone-17"),
            ("status", "503"),
            ("latency", "12.5"),
            ("request", "GET /api/v1/messages?room=4"),
            ("message", "连接超时 timeout"),
            ("__topic__", "chat"),
            ("__tag__:zone", "h"),
        ]);
        Search::parse(search)
            .unwrap()
            .matches(&log, &Words::default())
    }

    #[test]
    fn logs_are_chosen_as_the_query_says() {
        for search in [
            "",
            "*",
            "phone-17",
            "Phone*",
            "phone-1?",
            "messages",
            "\"GET messages\"",
            "#\"v1/messages\"",
            "request:/api/v1",
            "device_id: phone-17 and status: 503",
            "device_id: phone-17 status: 503",
            "status > 500 and status <= 503",
            "status = 503",
            "status in [500 503]",
            "latency >= 12.5",
            "not status: 200",
            "device_id: phone-17 not status: 200",
            "status: 200 or status: 503",
            "status: (200 or 503)",
            "(status: 200 or chat) and not missing: *",
            "status: *",
            "超时",
            "__topic__: chat",
            "__tag__:zone: h",
            "\"device_id\": phone-17",
        ] {
            assert!(hits(search), "{search}");
        }
        for search in [
            "phone",
            "PHONE-18",
            "status: 50",
            "status > 503",
            "status in (503 600]",
            "latency < 12.5",
            "device_id > 1",
            "missing: *",
            "not *",
            "message: get",
            "status: 200 or status: 404",
            "#\"messages v1\"",
            "__tag__:zone: i",
        ] {
            assert!(!hits(search), "{search}");
        }
    }

    #[test]
    fn delimiters_and_case_follow_the_index() {
        let words = Words {
            delimiters: "-".to_owned(),
            case_sensitive: true,
        };
        let log = Pairs(vec![("device_id", "Phone-17")]);
        let matches = |search: &str| Search::parse(search).unwrap().matches(&log, &words);
        assert!(matches("Phone") && matches("17"));
        assert!(!matches("phone"));
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        for (search, told) in [
            ("(a", "bracket is not closed"),
            ("a and", "must follow \"and\""),
            ("a)", "\")\" is not expected"),
            ("\"a", "quotation mark"),
            ("a > b", "\"b\" is not a number"),
            ("a:", "a value must follow a:"),
            ("a in 5", "a range like"),
            ("or", "must stand between"),
            ("a or", "ends too early"),
        ] {
            let error = Search::parse(search).map(|_| ()).unwrap_err();
            assert!(error.contains(told), "{search}: {error}");
        }
        assert!(Search::parse(&"(".repeat(1_000)).is_err());
    }

    #[test]
    fn the_parts_are_divided_at_the_first_bar_outside_quotes() {
        assert_eq!(divide(" * | select 1 | 2"), ("*", Some("select 1 | 2")));
        assert_eq!(
            divide("\"a|\\\"b\"|select 1"),
            ("\"a|\\\"b\"", Some("select 1"))
        );
        assert_eq!(divide("a"), ("a", None));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[a-c \"'():|#\\[\\]<>=*?\\\\]{0,30}") {
            let (search, _) = divide(&text);
            if let Ok(search) = Search::parse(search) {
                let log = Pairs(vec![("a", "b c")]);
                let negated = Search::Not(Box::new(search.clone()));
                let words = Words::default();
                prop_assert_ne!(search.matches(&log, &words), negated.matches(&log, &words));
            }
        }
    }
}

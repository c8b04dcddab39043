//! From the service's SQL to the engine's, as a function on texts: an implied `FROM log`, a limit when none is said,
//! strict casts, and the few forms of Presto's grammar that the engine has otherwise.
//!
//! Only one query that reads is let through. Everything else is left to the engine, which names what it does not know.

use std::collections::BTreeSet;

/// Longest SQL part.
const MAX_BYTES: usize = 64 * 1024;
/// Deepest nesting of brackets.
const MAX_DEPTH: usize = 64;
/// Rows of an answer without a limit.
pub(super) const DEFAULT_LIMIT: usize = 100;

/// What a query became.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Translated {
    pub(super) sql: String,
    /// Every name in it, in lower case: what may be a column.
    pub(super) names: BTreeSet<String>,
    /// Whether all columns are asked for somewhere.
    pub(super) has_star: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Identifier(String),
    Text(String),
    Number(String),
    Mark(String),
}

impl Token {
    fn is(&self, word: &str) -> bool {
        matches!(self, Self::Word(own) if own.eq_ignore_ascii_case(word))
    }

    fn is_mark(&self, mark: &str) -> bool {
        matches!(self, Self::Mark(own) if own == mark)
    }

    fn write(&self) -> String {
        match self {
            Self::Word(text) | Self::Number(text) | Self::Mark(text) => text.clone(),
            Self::Identifier(text) => quote_identifier(text),
            Self::Text(text) => quote_text(text),
        }
    }
}

/// A name in the engine's quotes.
pub(super) fn quote_identifier(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

fn quote_text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Translates a query.
pub(super) fn translate(sql: &str) -> Result<Translated, String> {
    if sql.len() > MAX_BYTES {
        return Err(format!("the SQL part is longer than {MAX_BYTES} bytes"));
    }
    let mut tokens = tokens(sql)?;
    while tokens.last().is_some_and(|token| token.is_mark(";")) {
        tokens.pop();
    }
    if tokens.iter().any(|token| token.is_mark(";")) {
        return Err("only one statement is allowed".to_owned());
    }
    let starts = tokens
        .first()
        .is_some_and(|first| first.is("select") || first.is("with"));
    if !starts {
        return Err("the part after | must be an SQL query: select …".to_owned());
    }
    check_depth(&tokens)?;
    let names = tokens.iter().filter_map(|token| match token {
        Token::Word(name) | Token::Identifier(name) => Some(name.to_lowercase()),
        _ => None,
    });
    let translated = Translated {
        sql: String::new(),
        names: names.collect(),
        has_star: has_star(&tokens),
    };
    let has_limit = has_outer(&tokens, "limit");
    let mut out = Vec::new();
    query(&tokens, &mut out);
    let mut sql = out.join(" ");
    if !has_limit {
        sql.push_str(&format!(" LIMIT {DEFAULT_LIMIT}"));
    }
    Ok(Translated { sql, ..translated })
}

fn tokens(sql: &str) -> Result<Vec<Token>, String> {
    let letters: Vec<char> = sql.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(&letter) = letters.get(at) {
        let next = letters.get(at + 1).copied();
        let while_in = |is_in: fn(char) -> bool| {
            let end = (at..letters.len()).find(|end| !is_in(letters[*end]));
            end.unwrap_or(letters.len())
        };
        if letter.is_whitespace() {
            at += 1;
        } else if letter == '-' && next == Some('-') {
            at = while_in(|letter| letter != '\n');
        } else if letter == '/' && next == Some('*') {
            let end = (at + 2..letters.len()).find(|end| letters[*end..].starts_with(&['*', '/']));
            at = end.ok_or("a comment is not closed")? + 2;
        } else if matches!(letter, '\'' | '"' | '`') {
            let (text, after) = quoted(&letters, at)?;
            tokens.push(match letter {
                '\'' => Token::Text(text),
                _ => Token::Identifier(text),
            });
            at = after;
        } else if letter.is_ascii_digit() {
            let end = while_in(|letter| letter.is_ascii_alphanumeric() || letter == '.');
            tokens.push(Token::Number(letters[at..end].iter().collect()));
            at = end;
        } else if letter.is_alphanumeric() || letter == '_' {
            let end = while_in(|letter| letter.is_alphanumeric() || letter == '_');
            tokens.push(Token::Word(letters[at..end].iter().collect()));
            at = end;
        } else {
            let pair: String = letters[at..].iter().take(2).collect();
            let double = ["<=", ">=", "<>", "!=", "||"].contains(&pair.as_str());
            let mark = if double { pair } else { letter.to_string() };
            if !double && !"()+-*/%<>=,.;".contains(letter) {
                return Err(format!("{letter:?} is not expected in SQL"));
            }
            at += mark.len();
            tokens.push(Token::Mark(mark));
        }
    }
    Ok(tokens)
}

/// A quoted text, its quotes doubled inside, and where it ends.
fn quoted(letters: &[char], start: usize) -> Result<(String, usize), String> {
    let quote = letters[start];
    let mut text = String::new();
    let mut at = start + 1;
    while let Some(&letter) = letters.get(at) {
        match (letter == quote, letters.get(at + 1) == Some(&quote)) {
            (true, true) => {
                text.push(quote);
                at += 2;
            }
            (true, false) => return Ok((text, at + 1)),
            (false, _) => {
                text.push(letter);
                at += 1;
            }
        }
    }
    Err(format!("a quotation mark {quote} is not closed"))
}

fn check_depth(tokens: &[Token]) -> Result<(), String> {
    let mut depth = 0usize;
    for token in tokens {
        if token.is_mark("(") {
            depth += 1;
        } else if token.is_mark(")") {
            depth = depth
                .checked_sub(1)
                .ok_or("a closing bracket has no opening one")?;
        }
        if depth > MAX_DEPTH {
            return Err(format!("brackets are nested deeper than {MAX_DEPTH}"));
        }
    }
    match depth {
        0 => Ok(()),
        _ => Err("a bracket is not closed".to_owned()),
    }
}

/// A star that is no multiplication and not the one of `count(*)`.
fn has_star(tokens: &[Token]) -> bool {
    tokens.iter().enumerate().any(|(at, token)| {
        let before = at.checked_sub(1).map(|before| &tokens[before]);
        let starts = before.is_some_and(|before| {
            before.is("select")
                || before.is("distinct")
                || before.is_mark(",")
                || before.is_mark(".")
        });
        token.is_mark("*") && starts
    })
}

fn has_outer(tokens: &[Token], word: &str) -> bool {
    outer(tokens).any(|(_, token)| token.is(word))
}

/// Tokens outside all brackets.
fn outer(tokens: &[Token]) -> impl Iterator<Item = (usize, &Token)> {
    let mut depth = 0usize;
    tokens.iter().enumerate().filter(move |(_, token)| {
        if token.is_mark("(") {
            depth += 1;
        } else if token.is_mark(")") {
            depth = depth.saturating_sub(1);
        }
        depth == 0
    })
}

/// One query without its surrounding brackets: each of its selects gets a source.
fn query(tokens: &[Token], out: &mut Vec<String>) {
    let is_set = |token: &Token| {
        ["union", "intersect", "except"]
            .iter()
            .any(|word| token.is(word))
    };
    let mut start = 0;
    let ends: Vec<usize> = outer(tokens)
        .filter(|(_, token)| is_set(token))
        .map(|(at, _)| at)
        .collect();
    for end in ends {
        select(&tokens[start..end], out);
        out.push(tokens[end].write());
        start = end + 1;
        if tokens.get(start).is_some_and(|token| token.is("all")) {
            out.push("ALL".to_owned());
            start += 1;
        }
    }
    select(&tokens[start..], out);
}

fn select(tokens: &[Token], out: &mut Vec<String>) {
    let begins = outer(tokens).find(|(_, token)| token.is("select"));
    let Some((begin, _)) = begins else {
        return expression(tokens, out);
    };
    let after = &tokens[begin..];
    let ends_list = |token: &Token| {
        ["where", "group", "having", "order", "limit", "window"]
            .iter()
            .any(|word| token.is(word))
    };
    let is_source = |at: usize| {
        // `is distinct from` compares.
        after[at].is("from")
            && !(at >= 2 && after[at - 1].is("distinct") && !after[at - 2].is("select"))
    };
    let has_source = outer(after).any(|(at, _)| is_source(at));
    if has_source {
        return expression(tokens, out);
    }
    let end = outer(after).find(|(_, token)| ends_list(token));
    let end = begin + end.map_or(after.len(), |(at, _)| at);
    expression(&tokens[..end], out);
    out.push("FROM log".to_owned());
    expression(&tokens[end..], out);
}

/// Everything between selects; brackets are gone into.
fn expression(tokens: &[Token], out: &mut Vec<String>) {
    let mut at = 0;
    while at < tokens.len() {
        let token = &tokens[at];
        let opens = tokens.get(at + 1).is_some_and(|next| next.is_mark("("));
        if opens && (token.is("cast") || token.is("try_cast")) {
            let close = closing(tokens, at + 1);
            cast(token.is("try_cast"), &tokens[at + 2..close], out);
            at = close + 1;
        } else if opens && token.is("extract") {
            let close = closing(tokens, at + 1);
            extract(&tokens[at + 2..close], out);
            at = close + 1;
        } else if token.is_mark("(") {
            let close = closing(tokens, at);
            out.push("(".to_owned());
            query(&tokens[at + 1..close], out);
            out.push(")".to_owned());
            at = close + 1;
        } else if (token.is("timestamp") || token.is("date"))
            && matches!(tokens.get(at + 1), Some(Token::Text(_)))
        {
            // A point in time is a text like any other to the engine.
            at += 1;
        } else {
            out.push(token.write());
            at += 1;
        }
    }
}

/// Where the bracket at `open` closes; brackets are known to be balanced.
fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        if token.is_mark("(") {
            depth += 1;
        } else if token.is_mark(")") {
            depth = depth.saturating_sub(1);
            if depth == 0 {
                return at;
            }
        }
    }
    tokens.len() - 1
}

/// `cast(x as bigint)`: the engine's own cast would make 0 of what is no number.
fn cast(forgiving: bool, inside: &[Token], out: &mut Vec<String>) {
    let Some((place, _)) = outer(inside).filter(|(_, token)| token.is("as")).last() else {
        out.push("CAST (".to_owned());
        expression(inside, out);
        return out.push(")".to_owned());
    };
    let kind: Vec<String> = inside[place + 1..].iter().map(Token::write).collect();
    let function = if forgiving {
        "presto_try_cast"
    } else {
        "presto_cast"
    };
    out.push(format!("{function} ("));
    expression(&inside[..place], out);
    out.push(format!(", {} )", quote_text(&kind.join("").to_lowercase())));
}

/// `extract(hour from t)`.
fn extract(inside: &[Token], out: &mut Vec<String>) {
    match inside {
        [unit, from, rest @ ..] if from.is("from") => {
            out.push(format!(
                "date_extract ( {} ,",
                quote_text(&unit.write().to_lowercase())
            ));
            expression(rest, out);
        }
        _ => {
            out.push("extract (".to_owned());
            expression(inside, out);
        }
    }
    out.push(")".to_owned());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sql(text: &str) -> String {
        translate(text).unwrap().sql
    }

    #[test]
    fn a_source_and_a_limit_are_implied() {
        assert_eq!(
            sql("select count(distinct device_id) as n"),
            "select count ( distinct device_id ) as n FROM log LIMIT 100"
        );
        assert_eq!(
            sql("SELECT a, b WHERE a > 1 GROUP BY a LIMIT 5;"),
            "SELECT a , b FROM log WHERE a > 1 GROUP BY a LIMIT 5"
        );
        assert_eq!(sql("select a from log"), "select a from log LIMIT 100");
        assert_eq!(
            sql("select x from (select count(1) as x group by a) where x is distinct from 2"),
            "select x from ( select count ( 1 ) as x FROM log group by a ) where x is distinct from 2 LIMIT 100"
        );
        assert_eq!(
            sql("with t as (select a) select a from t union all select b"),
            "with t as ( select a FROM log ) select a from t union ALL select b FROM log LIMIT 100"
        );
        assert_eq!(
            sql("select distinct a limit 1"),
            "select distinct a FROM log limit 1"
        );
    }

    #[test]
    fn presto_s_own_forms_are_rewritten() {
        assert_eq!(
            sql("select cast(a as bigint), try_cast(b as varchar(9)) limit 1"),
            "select presto_cast ( a , 'bigint' ) , presto_try_cast ( b , 'varchar(9)' ) FROM log limit 1"
        );
        assert_eq!(
            sql("select extract(hour from t) limit 1"),
            "select date_extract ( 'hour' , t ) FROM log limit 1"
        );
        assert_eq!(
            sql("select 1 where t > timestamp '2024-01-01 00:00:00' limit 1"),
            "select 1 FROM log where t > '2024-01-01 00:00:00' limit 1"
        );
    }

    #[test]
    fn names_and_stars_are_found() {
        let translated = translate("select \"Device Id\", count(*), 2*3 group by Zone").unwrap();
        assert!(translated.names.contains("device id") && translated.names.contains("zone"));
        assert!(!translated.has_star);
        assert!(translate("select *").unwrap().has_star);
        assert!(translate("select l.* from log l").unwrap().has_star);
    }

    #[test]
    fn only_one_reading_query_is_let_through() {
        for (text, told) in [
            ("delete from log", "must be an SQL query"),
            ("attach 'x' as y", "must be an SQL query"),
            ("where a = 1", "must be an SQL query"),
            ("select 1; select 2", "one statement"),
            ("select (1", "not closed"),
            ("select 1)", "no opening"),
            ("select 'a", "quotation mark"),
            ("select ?1", "not expected"),
            ("select 1 /* a", "comment"),
        ] {
            let error = translate(text).unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
        assert!(translate(&format!("select {}1{}", "(".repeat(99), ")".repeat(99))).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(select|with|from|cast|as|extract|union|a|1|\\(|\\)|,|\\*|'|\"| ){0,20}") {
            let _ = translate(&format!("select {text}"));
        }
    }
}

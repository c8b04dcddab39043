//! The subset of Go templates, with the delimiters `<<` and `>>`, that queries and label names are written in.
//!
//! Fields, `index`, `len`, `printf` with `%s %v %q %d`, comparisons, `if`, `range`, pipes, parentheses, comments and trim
//! markers. Everything else is refused by name when the configuration is read, not when a metric is asked for.

use std::collections::BTreeMap;

const OPEN: &str = "<<";
const CLOSE: &str = ">>";
/// Deepest nesting of blocks and parentheses.
const MAX_DEPTH: usize = 16;
/// Longest text that a template may become.
const MAX_OUTPUT: usize = 1024 * 1024;

/// A template that is not understood, or cannot be filled in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct TemplateError(String);

/// A value that templates see.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Data {
    Text(String),
    Number(i64),
    Truth(bool),
    List(Vec<String>),
    Map(BTreeMap<String, String>),
}

impl Data {
    fn holds(&self) -> bool {
        match self {
            Self::Text(text) => !text.is_empty(),
            Self::Number(number) => *number != 0,
            Self::Truth(truth) => *truth,
            Self::List(list) => !list.is_empty(),
            Self::Map(map) => !map.is_empty(),
        }
    }
}

impl std::fmt::Display for Data {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => out.write_str(text),
            Self::Number(number) => write!(out, "{number}"),
            Self::Truth(truth) => write!(out, "{truth}"),
            Self::List(list) => write!(out, "[{}]", list.join(" ")),
            Self::Map(map) => {
                let pairs: Vec<_> = map
                    .iter()
                    .map(|(key, value)| format!("{key}:{value}"))
                    .collect();
                write!(out, "map[{}]", pairs.join(" "))
            }
        }
    }
}

/// The fields of the outermost dot.
pub(crate) type Fields = BTreeMap<&'static str, Data>;

#[derive(Clone, Debug, PartialEq)]
enum Expression {
    Dot,
    Field(Vec<String>),
    Constant(Data),
    Call(String, Vec<Expression>),
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Output(Expression),
    If(Expression, Vec<Part>, Vec<Part>),
    Range(Expression, Vec<Part>, Vec<Part>),
}

/// A template that was understood.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Template {
    source: String,
    parts: Vec<Part>,
}

enum Piece {
    Text(String),
    Action(String),
}

impl Template {
    /// Understands `text`, whose outermost fields are `fields`.
    pub(crate) fn parse(text: &str, fields: &[&str]) -> Result<Self, TemplateError> {
        let mut pieces = pieces(text)?.into_iter();
        let (parts, _) = block(&mut pieces, fields, 0, false)?;
        Ok(Self {
            source: text.to_owned(),
            parts,
        })
    }

    /// As it was written.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// Whether the field is named anywhere.
    pub(crate) fn uses(&self, field: &str) -> bool {
        self.source.contains(&format!(".{field}"))
    }

    /// Fills in.
    pub(crate) fn render(&self, fields: &Fields) -> Result<String, TemplateError> {
        let mut out = String::new();
        write(&self.parts, fields, None, &mut out)?;
        Ok(out)
    }
}

/// Texts and actions in turn, trim markers and comments done.
fn pieces(text: &str) -> Result<Vec<Piece>, TemplateError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trim_next = false;
    loop {
        let (before, after) = match rest.split_once(OPEN) {
            Some((before, after)) => (before, Some(after)),
            None => (rest, None),
        };
        let before = if trim_next {
            before.trim_start()
        } else {
            before
        };
        let Some(after) = after else {
            pieces.push(Piece::Text(before.to_owned()));
            return Ok(pieces);
        };
        let trims_before = after.starts_with("- ");
        let before = if trims_before {
            before.trim_end()
        } else {
            before
        };
        pieces.push(Piece::Text(before.to_owned()));
        let end =
            end_of_action(after).ok_or_else(|| TemplateError(format!("{OPEN} has no {CLOSE}")))?;
        let mut action = after[..end].trim_end();
        rest = &after[end + CLOSE.len()..];
        if trims_before {
            action = &action[1..];
        }
        trim_next = action.ends_with(" -");
        if trim_next {
            action = &action[..action.len() - 1];
        }
        let action = action.trim();
        let comment = action.starts_with("/*") && action.ends_with("*/");
        if !comment {
            pieces.push(Piece::Action(action.to_owned()));
        }
    }
}

/// Where `>>` stands outside of quotes.
fn end_of_action(text: &str) -> Option<usize> {
    let (mut quote, mut escaped) = (None, false);
    for (index, character) in text.char_indices() {
        match (quote, character) {
            _ if escaped => escaped = false,
            (Some('"'), '\\') => escaped = true,
            (Some(open), character) if open == character => quote = None,
            (Some(_), _) => {}
            (None, '"' | '`') => quote = Some(character),
            (None, '>') if text[index..].starts_with(CLOSE) => return Some(index),
            (None, _) => {}
        }
    }
    None
}

/// The parts up to `end` or `else` of an enclosing block, and which of them it was.
fn block(
    pieces: &mut std::vec::IntoIter<Piece>,
    fields: &[&str],
    depth: usize,
    inside_range: bool,
) -> Result<(Vec<Part>, Option<String>), TemplateError> {
    if depth > MAX_DEPTH {
        return Err(TemplateError(format!(
            "blocks are nested deeper than {MAX_DEPTH}"
        )));
    }
    let mut parts = Vec::new();
    while let Some(piece) = pieces.next() {
        let action = match piece {
            Piece::Text(text) => {
                parts.push(Part::Text(text));
                continue;
            }
            Piece::Action(action) => action,
        };
        let (word, rest) = action
            .split_once(char::is_whitespace)
            .unwrap_or((&action, ""));
        match word {
            "end" | "else" if depth > 0 => {
                if !rest.trim().is_empty() {
                    return Err(TemplateError(format!(
                        "{action:?} is not supported; use else with an if inside"
                    )));
                }
                return Ok((parts, Some(word.to_owned())));
            }
            "if" | "range" => {
                let condition = pipeline(rest, fields, inside_range)?;
                let inner = inside_range || word == "range";
                let (then, ended) = block(pieces, fields, depth + 1, inner)?;
                let (otherwise, ended) = match ended.as_deref() {
                    Some("else") => block(pieces, fields, depth + 1, inside_range)?,
                    _ => (Vec::new(), ended),
                };
                if ended.as_deref() != Some("end") {
                    return Err(TemplateError(format!(
                        "{OPEN}{word}{CLOSE} has no {OPEN}end{CLOSE}"
                    )));
                }
                parts.push(match word {
                    "if" => Part::If(condition, then, otherwise),
                    _ => Part::Range(condition, then, otherwise),
                });
            }
            _ => parts.push(Part::Output(pipeline(&action, fields, inside_range)?)),
        }
    }
    match depth {
        0 => Ok((parts, None)),
        _ => Ok((parts, Some(String::new()))),
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Quoted(String),
    Open,
    Close,
    Pipe,
}

fn tokens(text: &str) -> Result<Vec<Token>, TemplateError> {
    let mut tokens = Vec::new();
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            character if character.is_whitespace() => {}
            '(' => tokens.push(Token::Open),
            ')' => tokens.push(Token::Close),
            '|' => tokens.push(Token::Pipe),
            '"' | '`' => tokens.push(Token::Quoted(quoted(&mut characters, character)?)),
            first => {
                let mut word = String::from(first);
                while let Some(next) =
                    characters.next_if(|next| !next.is_whitespace() && !"()|\"`".contains(*next))
                {
                    word.push(next);
                }
                tokens.push(Token::Word(word));
            }
        }
    }
    Ok(tokens)
}

fn quoted(
    characters: &mut impl Iterator<Item = char>,
    open: char,
) -> Result<String, TemplateError> {
    let mut text = String::new();
    while let Some(character) = characters.next() {
        match character {
            character if character == open => return Ok(text),
            '\\' if open == '"' => match characters.next() {
                Some('n') => text.push('\n'),
                Some('t') => text.push('\t'),
                Some(plain @ ('"' | '\\')) => text.push(plain),
                other => {
                    let other = other.map(String::from).unwrap_or_default();
                    return Err(TemplateError(format!(
                        "the escape \\{other} is not supported"
                    )));
                }
            },
            character => text.push(character),
        }
    }
    Err(TemplateError("a quoted text does not end".to_owned()))
}

fn pipeline(text: &str, fields: &[&str], inside_range: bool) -> Result<Expression, TemplateError> {
    let tokens = tokens(text)?;
    let mut reader = Reader {
        tokens: &tokens,
        fields,
        inside_range,
        action: text,
    };
    let expression = reader.pipeline(0)?;
    match reader.tokens {
        [] => Ok(expression),
        _ => Err(reader.wrong()),
    }
}

struct Reader<'t> {
    tokens: &'t [Token],
    fields: &'t [&'t str],
    inside_range: bool,
    action: &'t str,
}

impl Reader<'_> {
    fn wrong(&self) -> TemplateError {
        TemplateError(format!("{OPEN}{}{CLOSE} is not understood", self.action))
    }

    fn pipeline(&mut self, depth: usize) -> Result<Expression, TemplateError> {
        if depth > MAX_DEPTH {
            return Err(TemplateError(format!(
                "parentheses are nested deeper than {MAX_DEPTH}"
            )));
        }
        let mut value = self.command(depth, None)?;
        while let Some((Token::Pipe, rest)) = self.tokens.split_first() {
            self.tokens = rest;
            value = self.command(depth, Some(value))?;
        }
        Ok(value)
    }

    /// A value, or a function with its arguments; what was piped in comes last.
    fn command(
        &mut self,
        depth: usize,
        piped: Option<Expression>,
    ) -> Result<Expression, TemplateError> {
        let mut operands = Vec::new();
        let mut function = None;
        if let Some((Token::Word(word), rest)) = self.tokens.split_first()
            && !word.starts_with('.')
            && word.parse::<i64>().is_err()
            && !matches!(word.as_str(), "true" | "false")
        {
            function = Some(known(word)?);
            self.tokens = rest;
        }
        while let Some((token, rest)) = self.tokens.split_first() {
            if matches!(token, Token::Pipe | Token::Close) {
                break;
            }
            self.tokens = rest;
            operands.push(self.operand(token, depth)?);
        }
        operands.extend(piped.clone());
        match (function, operands.len(), piped) {
            (Some(name), _, _) => {
                let (least, most) = arity(name);
                if !(least..=most).contains(&operands.len()) {
                    return Err(TemplateError(format!(
                        "{name} has a wrong number of arguments in {:?}",
                        self.action
                    )));
                }
                Ok(Expression::Call(name.to_owned(), operands))
            }
            (None, 1, None) => operands.pop().ok_or_else(|| self.wrong()),
            _ => Err(self.wrong()),
        }
    }

    fn operand(&mut self, token: &Token, depth: usize) -> Result<Expression, TemplateError> {
        match token {
            Token::Quoted(text) => Ok(Expression::Constant(Data::Text(text.clone()))),
            Token::Open => {
                let inner = self.pipeline(depth + 1)?;
                match self.tokens.split_first() {
                    Some((Token::Close, rest)) => {
                        self.tokens = rest;
                        Ok(inner)
                    }
                    _ => Err(self.wrong()),
                }
            }
            Token::Word(word) => self.word(word),
            Token::Close | Token::Pipe => Err(self.wrong()),
        }
    }

    fn word(&self, word: &str) -> Result<Expression, TemplateError> {
        if let Ok(number) = word.parse() {
            return Ok(Expression::Constant(Data::Number(number)));
        }
        match word {
            "." => return Ok(Expression::Dot),
            "true" | "false" => return Ok(Expression::Constant(Data::Truth(word == "true"))),
            _ => {}
        }
        let path = word.strip_prefix('.').ok_or_else(|| self.wrong())?;
        let path: Vec<String> = path.split('.').map(str::to_owned).collect();
        if path.iter().any(String::is_empty) || path.len() > 2 {
            return Err(self.wrong());
        }
        // Inside of a range the dot is an element, which has no fields.
        if self.inside_range || !self.fields.contains(&path[0].as_str()) {
            let known: Vec<String> = self
                .fields
                .iter()
                .map(|field| format!(".{field}"))
                .collect();
            return Err(TemplateError(format!(
                "{word} is not known here; known are {}",
                known.join(" ")
            )));
        }
        Ok(Expression::Field(path))
    }
}

const FUNCTIONS: [(&str, usize, usize); 9] = [
    ("index", 2, 2),
    ("len", 1, 1),
    ("printf", 1, 8),
    ("eq", 2, 2),
    ("ne", 2, 2),
    ("not", 1, 1),
    ("and", 1, 8),
    ("or", 1, 8),
    ("print", 1, 8),
];

fn known(word: &str) -> Result<&'static str, TemplateError> {
    let found = FUNCTIONS.iter().find(|(name, ..)| *name == word);
    found.map(|(name, ..)| *name).ok_or_else(|| {
        let names: Vec<_> = FUNCTIONS.iter().map(|(name, ..)| *name).collect();
        TemplateError(format!(
            "the function {word:?} is not supported; supported are {}",
            names.join(", ")
        ))
    })
}

fn arity(name: &str) -> (usize, usize) {
    let found = FUNCTIONS.iter().find(|(known, ..)| *known == name);
    found.map_or((0, 0), |(_, least, most)| (*least, *most))
}

fn write(
    parts: &[Part],
    fields: &Fields,
    dot: Option<&str>,
    out: &mut String,
) -> Result<(), TemplateError> {
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Output(expression) => out.push_str(&value(expression, fields, dot)?.to_string()),
            Part::If(condition, then, otherwise) => {
                let holds = value(condition, fields, dot)?.holds();
                write(if holds { then } else { otherwise }, fields, dot, out)?;
            }
            Part::Range(over, body, otherwise) => {
                let elements = match value(over, fields, dot)? {
                    Data::List(list) => list,
                    Data::Map(map) => map.into_values().collect(),
                    other => {
                        return Err(TemplateError(format!(
                            "range over {other}, which is no list"
                        )));
                    }
                };
                for element in &elements {
                    write(body, fields, Some(element), out)?;
                }
                if elements.is_empty() {
                    write(otherwise, fields, dot, out)?;
                }
            }
        }
        if out.len() > MAX_OUTPUT {
            return Err(TemplateError(format!(
                "the query becomes longer than {MAX_OUTPUT} bytes"
            )));
        }
    }
    Ok(())
}

fn value(
    expression: &Expression,
    fields: &Fields,
    dot: Option<&str>,
) -> Result<Data, TemplateError> {
    match expression {
        Expression::Constant(data) => Ok(data.clone()),
        Expression::Dot => match dot {
            Some(element) => Ok(Data::Text(element.to_owned())),
            None => Err(TemplateError("the dot itself cannot be printed".to_owned())),
        },
        Expression::Field(path) => {
            let data = fields.get(path[0].as_str());
            let data =
                data.ok_or_else(|| TemplateError(format!(".{} has no value here", path[0])))?;
            match (data, path.get(1)) {
                (data, None) => Ok(data.clone()),
                (Data::Map(map), Some(key)) => {
                    Ok(Data::Text(map.get(key).cloned().unwrap_or_default()))
                }
                (_, Some(key)) => Err(TemplateError(format!(".{} has no field {key}", path[0]))),
            }
        }
        Expression::Call(name, arguments) => {
            let arguments = arguments.iter().map(|one| value(one, fields, dot));
            call(name, &arguments.collect::<Result<Vec<_>, _>>()?)
        }
    }
}

fn call(name: &str, arguments: &[Data]) -> Result<Data, TemplateError> {
    match (name, arguments) {
        ("index", [Data::Map(map), Data::Text(key)]) => {
            Ok(Data::Text(map.get(key).cloned().unwrap_or_default()))
        }
        ("index", [Data::List(list), Data::Number(number)]) => {
            let found = usize::try_from(*number)
                .ok()
                .and_then(|index| list.get(index));
            let found = found.ok_or_else(|| {
                TemplateError(format!("index {number} is beyond a list of {}", list.len()))
            })?;
            Ok(Data::Text(found.clone()))
        }
        ("index", _) => Err(TemplateError(
            "index takes a list and a number, or a map and a key".to_owned(),
        )),
        ("len", [one]) => {
            let length = match one {
                Data::Text(text) => text.len(),
                Data::List(list) => list.len(),
                Data::Map(map) => map.len(),
                _ => return Err(TemplateError(format!("{one} has no length"))),
            };
            Ok(Data::Number(i64::try_from(length).unwrap_or(i64::MAX)))
        }
        ("eq", [left, right]) => Ok(Data::Truth(left == right)),
        ("ne", [left, right]) => Ok(Data::Truth(left != right)),
        ("not", [one]) => Ok(Data::Truth(!one.holds())),
        ("and", all) => Ok(decisive(all, false)),
        ("or", all) => Ok(decisive(all, true)),
        ("print", all) => Ok(Data::Text(all.iter().map(Data::to_string).collect())),
        ("printf", [Data::Text(format), rest @ ..]) => Ok(Data::Text(printf(format, rest)?)),
        _ => Err(TemplateError(format!("{name} cannot take these arguments"))),
    }
}

/// The first value that decides, else the last one, as Go's `and` and `or` do.
fn decisive(all: &[Data], wanted: bool) -> Data {
    let found = all.iter().find(|one| one.holds() == wanted).or(all.last());
    found.cloned().unwrap_or(Data::Truth(!wanted))
}

fn printf(format: &str, values: &[Data]) -> Result<String, TemplateError> {
    let mut out = String::new();
    let (mut values, mut characters) = (values.iter(), format.chars());
    while let Some(character) = characters.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        let verb = characters.next();
        if verb == Some('%') {
            out.push('%');
            continue;
        }
        let value = values.next();
        match (verb, value) {
            (Some('s' | 'v' | 'd'), Some(value)) => out.push_str(&value.to_string()),
            (Some('q'), Some(value)) => out.push_str(&super::rule::quote(&value.to_string())),
            _ => {
                return Err(TemplateError(format!(
                    "printf {format:?} does not fit its values"
                )));
            }
        }
    }
    match values.next() {
        None => Ok(out),
        Some(_) => Err(TemplateError(format!(
            "printf {format:?} does not fit its values"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIELDS: [&str; 5] = [
        "Series",
        "LabelMatchers",
        "GroupBy",
        "GroupBySlice",
        "LabelValuesByName",
    ];

    fn fields() -> Fields {
        let by_name = BTreeMap::from([
            ("namespace".to_owned(), "shop".to_owned()),
            ("pod".to_owned(), "a|b".to_owned()),
        ]);
        BTreeMap::from([
            ("Series", Data::Text("hits_total".to_owned())),
            (
                "LabelMatchers",
                Data::Text("namespace=\"shop\",pod=~\"a|b\"".to_owned()),
            ),
            ("GroupBy", Data::Text("pod".to_owned())),
            (
                "GroupBySlice",
                Data::List(vec!["pod".to_owned(), "zone".to_owned()]),
            ),
            ("LabelValuesByName", Data::Map(by_name)),
        ])
    }

    fn rendered(text: &str) -> Result<String, TemplateError> {
        Template::parse(text, &FIELDS)?.render(&fields())
    }

    #[test]
    fn queries_as_people_write_them_are_filled_in() {
        let cases = [
            (
                "sum(rate(<<.Series>>{<<.LabelMatchers>>}[2m])) by (<<.GroupBy>>)",
                "sum(rate(hits_total{namespace=\"shop\",pod=~\"a|b\"}[2m])) by (pod)",
            ),
            (
                "x{ns=\"<<index .LabelValuesByName \"namespace\">>\"}",
                "x{ns=\"shop\"}",
            ),
            (
                "<< .LabelValuesByName.pod >>/<<index .GroupBySlice 1>>",
                "a|b/zone",
            ),
            ("<<index .LabelValuesByName \"none\">>", ""),
            ("a <<- /* why */ ->> b", "ab"),
            ("a <<- .Series ->> b", "ahits_totalb"),
            (
                "<<range .GroupBySlice>>[<<.>>]<<else>>none<<end>>",
                "[pod][zone]",
            ),
            (
                "<<if eq (len .GroupBySlice) 2>>two<<else>>other<<end>>",
                "two",
            ),
            ("<<if not .GroupBy>>none<<end>>", ""),
            ("<<.Series | printf \"%q-%s\" \"n\">>", "\"n\"-hits_total"),
            ("<<printf \"%s>>\" .Series>>", "hits_total>>"),
            ("a > b < c", "a > b < c"),
            ("<<.GroupBySlice>>", "[pod zone]"),
        ];
        for (text, wanted) in cases {
            assert_eq!(rendered(text).as_deref(), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        let cases = [
            ("<<.Serie>>", ".Serie is not known here"),
            ("<<toUpper .Series>>", "toUpper"),
            ("<<.Series", "<< has no >>"),
            ("<<if .Series>>x", "has no <<end>>"),
            ("<<end>>", "end"),
            ("<<index .GroupBySlice>>", "wrong number of arguments"),
            (
                "<<range .GroupBySlice>><<.Series>><<end>>",
                ".Series is not known here",
            ),
            ("<<\"open>>", "<< has no >>"),
            ("<<>>", "not understood"),
            ("<<if .Series>>a<<else if .GroupBy>>b<<end>>", "else"),
        ];
        for (text, wanted) in cases {
            let error = Template::parse(text, &FIELDS).unwrap_err().to_string();
            assert!(error.contains(wanted), "{text}: {error}");
        }
        assert!(
            rendered("<<index .GroupBySlice 7>>")
                .unwrap_err()
                .to_string()
                .contains("beyond a list of 2")
        );
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(<<|>>|[-./*a-zA-Z (){}|\"`%\\\\0-9]|\\.Series|index|if |end|else|range |printf ){0,12}") {
            let _ = rendered(&text);
        }

        #[test]
        fn text_without_actions_stays_as_it_is(text in "[^<>]{0,60}") {
            let result = rendered(&text);
            prop_assert_eq!(result.as_deref(), Ok(text.as_str()));
        }

        #[test]
        fn text_around_a_field_stays_as_it_is(before in "[^<>]{0,20}", after in "[^<>]{0,20}") {
            let result = rendered(&format!("{before}<<.Series>>{after}"));
            prop_assert_eq!(result, Ok(format!("{before}hits_total{after}")));
        }
    }
}

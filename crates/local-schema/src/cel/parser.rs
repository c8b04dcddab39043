//! From tokens to a tree.

use super::lexer::{Token, at, tokens};

/// Expressions nested deeper are refused.
const MAX_DEPTH: usize = 100;

/// A node of the tree.
#[derive(Debug)]
pub(super) enum Expression {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
    Name(String),
    List(Vec<Expression>),
    Map(Vec<(Expression, Expression)>),
    Not(Box<Expression>),
    Negate(Box<Expression>),
    And(Box<Expression>, Box<Expression>),
    Or(Box<Expression>, Box<Expression>),
    Binary(&'static str, Box<Expression>, Box<Expression>),
    Choice(Box<Expression>, Box<Expression>, Box<Expression>),
    /// `object.field`; optional = `object.?field`.
    Field {
        object: Box<Expression>,
        name: String,
        optional: bool,
    },
    /// `has(object.field)`
    Has {
        object: Box<Expression>,
        name: String,
    },
    Index {
        object: Box<Expression>,
        key: Box<Expression>,
        optional: bool,
    },
    Call {
        name: String,
        arguments: Vec<Expression>,
    },
    Method {
        object: Box<Expression>,
        name: String,
        arguments: Vec<Expression>,
    },
    Loop(Box<Loop>),
}

/// `list.all(x, …)` and its like.
#[derive(Debug)]
pub(super) struct Loop {
    pub(super) kind: LoopKind,
    pub(super) range: Expression,
    pub(super) variable: String,
    /// `map` with a filter has one.
    pub(super) condition: Option<Expression>,
    pub(super) body: Expression,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LoopKind {
    All,
    Exists,
    ExistsOne,
    Map,
    Filter,
}

impl Expression {
    /// Whether a variable is named anywhere.
    pub(super) fn mentions(&self, wanted: &str) -> bool {
        let any = |list: &[Expression]| list.iter().any(|one| one.mentions(wanted));
        match self {
            Self::Name(name) => name == wanted,
            Self::List(items) => any(items),
            Self::Map(entries) => entries
                .iter()
                .any(|(key, value)| key.mentions(wanted) || value.mentions(wanted)),
            Self::Not(inner) | Self::Negate(inner) => inner.mentions(wanted),
            Self::And(one, other) | Self::Or(one, other) | Self::Binary(_, one, other) => {
                one.mentions(wanted) || other.mentions(wanted)
            }
            Self::Choice(one, two, three) => {
                one.mentions(wanted) || two.mentions(wanted) || three.mentions(wanted)
            }
            Self::Field { object, .. } | Self::Has { object, .. } => object.mentions(wanted),
            Self::Index { object, key, .. } => object.mentions(wanted) || key.mentions(wanted),
            Self::Call { arguments, .. } => any(arguments),
            Self::Method {
                object, arguments, ..
            } => object.mentions(wanted) || any(arguments),
            Self::Loop(inner) => {
                inner.range.mentions(wanted)
                    || inner.body.mentions(wanted)
                    || inner
                        .condition
                        .as_ref()
                        .is_some_and(|condition| condition.mentions(wanted))
            }
            _ => false,
        }
    }
}

/// Parses a whole expression.
pub(super) fn parse(text: &str) -> Result<Expression, String> {
    let mut parser = Parser {
        tokens: tokens(text)?,
        next: 0,
        end: text.len() + 1,
        depth: 0,
    };
    let root = parser.expression()?;
    match parser.tokens.get(parser.next) {
        None => Ok(root),
        Some(_) => Err(parser.unexpected()),
    }
}

struct Parser {
    tokens: Vec<(Token, usize)>,
    next: usize,
    end: usize,
    depth: usize,
}

type Parsed = Result<Expression, String>;

impl Parser {
    fn expression(&mut self) -> Parsed {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(at(self.column(), "expression nested too deeply"));
        }
        let condition = self.or()?;
        let result = if self.take("?") {
            let then = self.or()?;
            self.expect(":")?;
            let otherwise = self.expression()?;
            Expression::Choice(condition.into(), then.into(), otherwise.into())
        } else {
            condition
        };
        self.depth -= 1;
        Ok(result)
    }

    fn or(&mut self) -> Parsed {
        let mut left = self.and()?;
        while self.take("||") {
            left = Expression::Or(left.into(), self.and()?.into());
        }
        Ok(left)
    }

    fn and(&mut self) -> Parsed {
        let mut left = self.relation()?;
        while self.take("&&") {
            left = Expression::And(left.into(), self.relation()?.into());
        }
        Ok(left)
    }

    fn relation(&mut self) -> Parsed {
        let mut left = self.sum()?;
        loop {
            let operator = if self.peek_name() == Some("in") {
                self.next += 1;
                "in"
            } else if let Some(operator) = self.take_any(&["==", "!=", "<=", ">=", "<", ">"]) {
                operator
            } else {
                return Ok(left);
            };
            left = Expression::Binary(operator, left.into(), self.sum()?.into());
        }
    }

    fn sum(&mut self) -> Parsed {
        let mut left = self.product()?;
        while let Some(operator) = self.take_any(&["+", "-"]) {
            left = Expression::Binary(operator, left.into(), self.product()?.into());
        }
        Ok(left)
    }

    fn product(&mut self) -> Parsed {
        let mut left = self.unary()?;
        while let Some(operator) = self.take_any(&["*", "/", "%"]) {
            left = Expression::Binary(operator, left.into(), self.unary()?.into());
        }
        Ok(left)
    }

    fn unary(&mut self) -> Parsed {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(at(self.column(), "expression nested too deeply"));
        }
        let result = if self.take("!") {
            Expression::Not(self.unary()?.into())
        } else if self.take("-") {
            match self.unary()? {
                Expression::Int(value) => Expression::Int(value.wrapping_neg()),
                Expression::Double(value) => Expression::Double(-value),
                other => Expression::Negate(other.into()),
            }
        } else {
            self.member()?
        };
        self.depth -= 1;
        Ok(result)
    }

    fn member(&mut self) -> Parsed {
        let mut object = self.primary()?;
        loop {
            if self.take(".") {
                let optional = self.take("?");
                let name = unescape(&self.name()?);
                if self.take("(") {
                    let arguments = self.list(")")?;
                    object = method(object, name, arguments)
                        .map_err(|reason| at(self.column(), &reason))?;
                } else {
                    object = Expression::Field {
                        object: object.into(),
                        name,
                        optional,
                    };
                }
            } else if let Some(sign) = self.take_any(&["[", "[?"]) {
                let key = self.expression()?;
                self.expect("]")?;
                object = Expression::Index {
                    object: object.into(),
                    key: key.into(),
                    optional: sign == "[?",
                };
            } else {
                return Ok(object);
            }
        }
    }

    fn primary(&mut self) -> Parsed {
        let Some((token, _)) = self.tokens.get(self.next).cloned() else {
            return Err(self.unexpected());
        };
        self.next += 1;
        Ok(match token {
            Token::Int(value) => Expression::Int(value),
            Token::Uint(value) => Expression::Uint(value),
            Token::Double(value) => Expression::Double(value),
            Token::Text(value) => Expression::Text(value),
            Token::Bytes(value) => Expression::Bytes(value),
            Token::Sign("(") => {
                let inner = self.expression()?;
                self.expect(")")?;
                inner
            }
            Token::Sign("[") => Expression::List(self.list("]")?),
            Token::Sign("{") => self.map()?,
            Token::Name(name) => match name.as_str() {
                "true" => Expression::Bool(true),
                "false" => Expression::Bool(false),
                "null" => Expression::Null,
                _ if self.take("(") => {
                    let arguments = self.list(")")?;
                    call(name, arguments).map_err(|reason| at(self.column(), &reason))?
                }
                _ => Expression::Name(name),
            },
            Token::Sign(_) => {
                self.next -= 1;
                return Err(self.unexpected());
            }
        })
    }

    fn list(&mut self, end: &'static str) -> Result<Vec<Expression>, String> {
        let mut items = Vec::new();
        while !self.take(end) {
            items.push(self.expression()?);
            if !self.take(",") {
                self.expect(end)?;
                break;
            }
        }
        Ok(items)
    }

    fn map(&mut self) -> Parsed {
        let mut entries = Vec::new();
        while !self.take("}") {
            let key = self.expression()?;
            self.expect(":")?;
            entries.push((key, self.expression()?));
            if !self.take(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(Expression::Map(entries))
    }

    fn name(&mut self) -> Result<String, String> {
        match self.tokens.get(self.next) {
            Some((Token::Name(name), _)) => {
                let name = name.clone();
                self.next += 1;
                Ok(name)
            }
            _ => Err(self.unexpected()),
        }
    }

    fn peek_name(&self) -> Option<&str> {
        match self.tokens.get(self.next) {
            Some((Token::Name(name), _)) => Some(name),
            _ => None,
        }
    }

    fn take(&mut self, sign: &str) -> bool {
        let found =
            matches!(self.tokens.get(self.next), Some((Token::Sign(one), _)) if *one == sign);
        self.next += usize::from(found);
        found
    }

    fn take_any(&mut self, signs: &[&'static str]) -> Option<&'static str> {
        signs.iter().copied().find(|sign| self.take(sign))
    }

    fn expect(&mut self, sign: &'static str) -> Result<(), String> {
        if self.take(sign) {
            Ok(())
        } else {
            Err(self.unexpected())
        }
    }

    fn column(&self) -> usize {
        self.tokens
            .get(self.next)
            .map_or(self.end, |(_, column)| *column)
    }

    fn unexpected(&self) -> String {
        let found = match self.tokens.get(self.next) {
            None => "<EOF>".to_string(),
            Some((Token::Sign(sign), _)) => (*sign).to_string(),
            Some((Token::Name(name), _)) => name.clone(),
            Some((other, _)) => format!("{other:?}"),
        };
        at(self.column(), &format!("mismatched input '{found}'"))
    }
}

/// Names that are keywords or hold other letters are escaped in expressions.
fn unescape(name: &str) -> String {
    if let Some(inner) = name
        .strip_prefix("__")
        .and_then(|rest| rest.strip_suffix("__"))
        && inner.chars().all(|letter| letter.is_ascii_lowercase())
        && !matches!(inner, "underscores" | "dot" | "dash" | "slash")
        && !inner.is_empty()
    {
        return inner.to_string();
    }
    name.replace("__dot__", ".")
        .replace("__dash__", "-")
        .replace("__slash__", "/")
        .replace("__underscores__", "__")
}

fn call(name: String, mut arguments: Vec<Expression>) -> Parsed {
    if name != "has" {
        return Ok(Expression::Call { name, arguments });
    }
    match (arguments.pop(), arguments.is_empty()) {
        (Some(Expression::Field { object, name, .. }), true) => {
            Ok(Expression::Has { object, name })
        }
        _ => Err("invalid argument to has() macro".to_string()),
    }
}

fn method(object: Expression, name: String, mut arguments: Vec<Expression>) -> Parsed {
    let kind = match (name.as_str(), arguments.len()) {
        ("all", 2) => LoopKind::All,
        ("exists", 2) => LoopKind::Exists,
        ("exists_one" | "existsOne", 2) => LoopKind::ExistsOne,
        ("map", 2 | 3) => LoopKind::Map,
        ("filter", 2) => LoopKind::Filter,
        _ => {
            return Ok(Expression::Method {
                object: object.into(),
                name,
                arguments,
            });
        }
    };
    let body = arguments.pop();
    let condition = if arguments.len() == 2 {
        arguments.pop()
    } else {
        None
    };
    match (arguments.pop(), body) {
        (Some(Expression::Name(variable)), Some(body)) => Ok(Expression::Loop(Box::new(Loop {
            kind,
            range: object,
            variable,
            condition,
            body,
        }))),
        _ => Err("argument must be a simple name".to_string()),
    }
}

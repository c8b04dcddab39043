//! Evaluation of trees.

use std::collections::BTreeMap;

use super::Variables;
use super::functions;
use super::parser::{Expression, Loop, LoopKind};
use super::value::CelValue;

/// Nodes visited at most; upstream bounds the cost of a rule in a similar way.
const MAX_STEPS: usize = 1_000_000;

pub(super) const NO_OVERLOAD: &str = "no such overload";

pub(super) type Evaluated<'v> = Result<CelValue<'v>, String>;

/// One run of an expression.
pub(super) struct Evaluator<'v> {
    variables: Variables<'v>,
    /// Loop variables, innermost last.
    scope: Vec<(&'v str, CelValue<'v>)>,
    steps: usize,
}

impl<'v> Evaluator<'v> {
    pub(super) fn new(variables: Variables<'v>) -> Self {
        Self {
            variables,
            scope: Vec::new(),
            steps: 0,
        }
    }

    pub(super) fn eval(&mut self, expression: &'v Expression) -> Evaluated<'v> {
        self.steps += 1;
        if self.steps > MAX_STEPS {
            return Err("operation cancelled: actual cost limit exceeded".to_string());
        }
        match expression {
            Expression::Name(name) => self.name(name),
            Expression::List(_) | Expression::Map(_) => self.container(expression),
            Expression::Not(inner) => Ok(CelValue::Bool(!self.truth(inner)?)),
            Expression::Negate(inner) => match self.eval(inner)? {
                CelValue::Int(value) => value
                    .checked_neg()
                    .map(CelValue::Int)
                    .ok_or_else(|| "integer overflow".to_string()),
                CelValue::Double(value) => Ok(CelValue::Double(-value)),
                _ => Err(NO_OVERLOAD.to_string()),
            },
            Expression::And(one, other) => self.logic(one, other, false),
            Expression::Or(one, other) => self.logic(one, other, true),
            Expression::Binary(operator, one, other) => {
                let (one, other) = (self.eval(one)?, self.eval(other)?);
                binary(operator, one, other)
            }
            Expression::Choice(condition, then, otherwise) => {
                let chosen = if self.truth(condition)? {
                    then
                } else {
                    otherwise
                };
                self.eval(chosen)
            }
            Expression::Has { object, name } => {
                let object = unwrap(self.eval(object)?);
                let found = object.is_some_and(|object| object.member(name).is_some());
                Ok(CelValue::Bool(found))
            }
            Expression::Field {
                object,
                name,
                optional,
            } => {
                let object = self.eval(object)?;
                field(object, name, *optional)
            }
            Expression::Index {
                object,
                key,
                optional,
            } => {
                let (object, key) = (self.eval(object)?, self.eval(key)?);
                index(object, &key, *optional)
            }
            Expression::Call { name, arguments } => {
                let arguments: Result<Vec<_>, _> =
                    arguments.iter().map(|one| self.eval(one)).collect();
                functions::call(name, arguments?)
            }
            Expression::Method {
                object,
                name,
                arguments,
            } => self.method(object, name, arguments),
            Expression::Loop(inner) => self.run_loop(inner),
            literal => Ok(literal_value(literal)),
        }
    }

    fn container(&mut self, expression: &'v Expression) -> Evaluated<'v> {
        match expression {
            Expression::List(items) => {
                let items: Result<Vec<_>, _> = items.iter().map(|item| self.eval(item)).collect();
                items.map(CelValue::List)
            }
            Expression::Map(entries) => {
                let mut map = BTreeMap::new();
                for (key, value) in entries {
                    let key = functions::text_of(&self.eval(key)?)?;
                    map.insert(key, self.eval(value)?);
                }
                Ok(CelValue::Map(map))
            }
            other => self.eval(other),
        }
    }

    fn name(&self, name: &str) -> Evaluated<'v> {
        if let Some((_, value)) = self.scope.iter().rev().find(|(one, _)| *one == name) {
            return Ok(value.clone());
        }
        let named = self.variables.named.and_then(|named| named.get(name));
        if let Some(value) = named {
            return Ok(CelValue::of(value));
        }
        match name {
            "self" => Ok(CelValue::of(self.variables.this)),
            "oldSelf" => match (self.variables.old, self.variables.optional_old) {
                (Some(old), false) => Ok(CelValue::of(old)),
                (old, true) => Ok(CelValue::Optional(
                    old.map(|old| Box::new(CelValue::of(old))),
                )),
                (None, false) => Err("undeclared reference to 'oldSelf'".to_string()),
            },
            _ => functions::type_named(name)
                .ok_or_else(|| format!("undeclared reference to '{name}'")),
        }
    }

    fn truth(&mut self, expression: &'v Expression) -> Result<bool, String> {
        match self.eval(expression)? {
            CelValue::Bool(flag) => Ok(flag),
            _ => Err(NO_OVERLOAD.to_string()),
        }
    }

    /// Either side may decide; an error on the other does not matter then.
    fn logic(
        &mut self,
        one: &'v Expression,
        other: &'v Expression,
        decides: bool,
    ) -> Evaluated<'v> {
        let left = self.truth(one);
        if left == Ok(decides) {
            return Ok(CelValue::Bool(decides));
        }
        let right = self.truth(other)?;
        if right == decides {
            return Ok(CelValue::Bool(decides));
        }
        left.map(CelValue::Bool)
    }

    fn method(
        &mut self,
        object: &'v Expression,
        name: &str,
        arguments: &'v [Expression],
    ) -> Evaluated<'v> {
        // `optional.none()` and `optional.of(x)` look like methods of a variable.
        let namespace = match object {
            Expression::Name(namespace) if namespace == "optional" => Some("optional."),
            _ => None,
        };
        let object = match namespace {
            Some(_) => None,
            None => Some(self.eval(object)?),
        };
        let arguments: Result<Vec<_>, _> = arguments.iter().map(|one| self.eval(one)).collect();
        match object {
            Some(object) => functions::method(object, name, arguments?),
            None => functions::call(&format!("optional.{name}"), arguments?),
        }
    }

    fn run_loop(&mut self, inner: &'v Loop) -> Evaluated<'v> {
        let range = self.eval(&inner.range)?;
        let items = match range.items() {
            Some(items) => items,
            None => match range.keys() {
                Some(keys) => keys.into_iter().map(CelValue::Text).collect(),
                None => return Err(NO_OVERLOAD.to_string()),
            },
        };
        let mut results = Vec::new();
        let mut count = 0;
        let mut failure = None;
        for item in items {
            self.scope.push((&inner.variable, item.clone()));
            let outcome = self.turn(inner);
            self.scope.pop();
            match (inner.kind, outcome) {
                (LoopKind::All, Ok(Some(CelValue::Bool(false)))) => {
                    return Ok(CelValue::Bool(false));
                }
                (LoopKind::Exists, Ok(Some(CelValue::Bool(true)))) => {
                    return Ok(CelValue::Bool(true));
                }
                (LoopKind::All | LoopKind::Exists, Err(error)) => {
                    if self.steps > MAX_STEPS {
                        return Err(error);
                    }
                    failure = Some(error);
                }
                (_, Err(error)) => return Err(error),
                (LoopKind::ExistsOne, Ok(Some(CelValue::Bool(true)))) => count += 1,
                (LoopKind::Filter, Ok(Some(CelValue::Bool(true)))) => results.push(item),
                (LoopKind::Map, Ok(Some(value))) => results.push(value),
                (_, Ok(_)) => {}
            }
        }
        if let Some(failure) = failure {
            return Err(failure);
        }
        Ok(match inner.kind {
            LoopKind::All => CelValue::Bool(true),
            LoopKind::Exists => CelValue::Bool(false),
            LoopKind::ExistsOne => CelValue::Bool(count == 1),
            LoopKind::Map | LoopKind::Filter => CelValue::List(results),
        })
    }

    /// One turn; `None` when the condition left the item out.
    fn turn(&mut self, inner: &'v Loop) -> Result<Option<CelValue<'v>>, String> {
        if let Some(condition) = &inner.condition
            && !self.truth(condition)?
        {
            return Ok(None);
        }
        self.eval(&inner.body).map(Some)
    }
}

fn literal_value<'v>(literal: &Expression) -> CelValue<'v> {
    match literal {
        Expression::Bool(value) => CelValue::Bool(*value),
        Expression::Int(value) => CelValue::Int(*value),
        Expression::Uint(value) => CelValue::Uint(*value),
        Expression::Double(value) => CelValue::Double(*value),
        Expression::Text(value) => CelValue::Text(value.clone()),
        Expression::Bytes(value) => CelValue::Bytes(value.clone()),
        _ => CelValue::Null,
    }
}

fn unwrap(value: CelValue<'_>) -> Option<CelValue<'_>> {
    match value {
        CelValue::Optional(inner) => inner.map(|inner| *inner),
        other => Some(other),
    }
}

fn field<'v>(object: CelValue<'v>, name: &str, optional: bool) -> Evaluated<'v> {
    let chained = matches!(object, CelValue::Optional(_));
    let found = unwrap(object).map(|object| (object.member(name), object.is_map()));
    match found {
        _ if optional || chained => Ok(CelValue::Optional(
            found.and_then(|(member, _)| member).map(Box::new),
        )),
        Some((Some(member), _)) => Ok(member),
        Some((None, true)) => Err(format!("no such key: {name}")),
        _ => Err(NO_OVERLOAD.to_string()),
    }
}

fn index<'v>(object: CelValue<'v>, key: &CelValue<'v>, optional: bool) -> Evaluated<'v> {
    let chained = matches!(object, CelValue::Optional(_));
    let found = match unwrap(object) {
        None => Err("no such key".to_string()),
        Some(object) => match (object.items(), key) {
            (Some(items), key) => {
                let place = key.as_integer().ok_or(NO_OVERLOAD)?;
                let item = usize::try_from(place)
                    .ok()
                    .and_then(|place| items.get(place).cloned());
                item.ok_or_else(|| format!("index out of bounds: {place}"))
            }
            (None, key) if object.is_map() => {
                let name = functions::text_of(key)?;
                object
                    .member(&name)
                    .ok_or_else(|| format!("no such key: {name}"))
            }
            _ => Err(NO_OVERLOAD.to_string()),
        },
    };
    if optional || chained {
        return Ok(CelValue::Optional(found.ok().map(Box::new)));
    }
    found
}

fn binary<'v>(operator: &str, one: CelValue<'v>, other: CelValue<'v>) -> Evaluated<'v> {
    let order = |wanted: &[std::cmp::Ordering]| match one.compare(&other) {
        Some(order) => Ok(CelValue::Bool(wanted.contains(&order))),
        None => Err(NO_OVERLOAD.to_string()),
    };
    use std::cmp::Ordering::{Equal, Greater, Less};
    match operator {
        "==" => Ok(CelValue::Bool(one.equals(&other))),
        "!=" => Ok(CelValue::Bool(!one.equals(&other))),
        "<" => order(&[Less]),
        "<=" => order(&[Less, Equal]),
        ">" => order(&[Greater]),
        ">=" => order(&[Greater, Equal]),
        "in" => match (other.items(), other.is_map()) {
            (Some(items), _) => Ok(CelValue::Bool(items.iter().any(|item| item.equals(&one)))),
            (None, true) => Ok(CelValue::Bool(
                other.member(&functions::text_of(&one)?).is_some(),
            )),
            _ => Err(NO_OVERLOAD.to_string()),
        },
        _ => arithmetic(operator, one, other),
    }
}

fn arithmetic<'v>(operator: &str, one: CelValue<'v>, other: CelValue<'v>) -> Evaluated<'v> {
    match (operator, one, other) {
        ("+", CelValue::Text(one), CelValue::Text(other)) => Ok(CelValue::Text(one + &other)),
        ("+", CelValue::Duration(one), CelValue::Duration(other)) => one
            .checked_add(other)
            .map(CelValue::Duration)
            .ok_or_else(|| "duration overflow".to_string()),
        ("-", CelValue::Timestamp(one), CelValue::Timestamp(other)) => {
            let nanos = one.as_nanosecond() - other.as_nanosecond();
            i64::try_from(nanos)
                .map(CelValue::Duration)
                .map_err(|_| "duration overflow".to_string())
        }
        (operator, CelValue::Uint(one), CelValue::Uint(other)) => {
            let result = integers(operator, i128::from(one), i128::from(other))?;
            u64::try_from(result)
                .map(CelValue::Uint)
                .map_err(|_| "integer overflow".to_string())
        }
        (operator, one, other) => {
            if let (Some(one), Some(other)) = (one.as_integer(), other.as_integer()) {
                let result = integers(operator, one, other)?;
                return i64::try_from(result)
                    .map(CelValue::Int)
                    .map_err(|_| "integer overflow".to_string());
            }
            if let (Some(one), Some(other)) = (one.as_double(), other.as_double()) {
                return doubles(operator, one, other);
            }
            match (operator, one.items(), other.items()) {
                ("+", Some(mut items), Some(more)) => {
                    items.extend(more);
                    Ok(CelValue::List(items))
                }
                _ => Err(NO_OVERLOAD.to_string()),
            }
        }
    }
}

fn integers(operator: &str, one: i128, other: i128) -> Result<i128, String> {
    let result = match operator {
        "+" => one.checked_add(other),
        "-" => one.checked_sub(other),
        "*" => one.checked_mul(other),
        "/" if other == 0 => return Err("division by zero".to_string()),
        "/" => one.checked_div(other),
        "%" if other == 0 => return Err("modulus by zero".to_string()),
        "%" => one.checked_rem(other),
        _ => return Err(NO_OVERLOAD.to_string()),
    };
    result.ok_or_else(|| "integer overflow".to_string())
}

fn doubles<'v>(operator: &str, one: f64, other: f64) -> Evaluated<'v> {
    Ok(CelValue::Double(match operator {
        "+" => one + other,
        "-" => one - other,
        "*" => one * other,
        "/" => one / other,
        _ => return Err(NO_OVERLOAD.to_string()),
    }))
}

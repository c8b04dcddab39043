//! The expression language of `x-kubernetes-validations` and of webhooks' conditions: parsing and evaluation over JSON, bounded in depth and steps.
//!
//! Comparisons and arithmetic take integers and floating point numbers together, because no types are checked beforehand.
//! It refuses static type checks and cost estimates: an expression that is wrong says so when it is evaluated.

mod eval;
mod functions;
mod lexer;
mod parser;
mod value;

use serde_json::{Map, Value};

pub(crate) use value::CelValue;

use eval::Evaluator;
use parser::Expression;

/// Longer expressions are refused.
const MAX_LENGTH_BYTES: usize = 64 * 1024;

/// A parsed expression.
#[derive(Debug)]
pub(crate) struct Program {
    root: Expression,
    uses_old_self: bool,
}

/// What an expression sees.
#[derive(Clone, Copy)]
pub(crate) struct Variables<'v> {
    /// `self`
    pub(crate) this: &'v Value,
    /// `oldSelf`; an optional when the rule asks for one.
    pub(crate) old: Option<&'v Value>,
    /// `oldSelf` is wrapped, and may be absent.
    pub(crate) optional_old: bool,
    /// Further names, such as `object` and `request` in conditions of webhooks.
    pub(crate) named: Option<&'v Map<String, Value>>,
}

impl Program {
    /// Parses an expression; the error says where it is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_LENGTH_BYTES {
            return Err(format!("expression exceeds {MAX_LENGTH_BYTES} bytes"));
        }
        let root = parser::parse(text)?;
        let uses_old_self = root.mentions("oldSelf");
        Ok(Self {
            root,
            uses_old_self,
        })
    }

    /// Whether this is a transition rule.
    pub(crate) fn uses_old_self(&self) -> bool {
        self.uses_old_self
    }

    /// Evaluates; the error is a sentence.
    pub(crate) fn run<'v>(&'v self, variables: Variables<'v>) -> Result<CelValue<'v>, String> {
        Evaluator::new(variables).eval(&self.root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn run(expression: &str, this: Value) -> Result<bool, String> {
        let program = Program::parse(expression)?;
        let variables = Variables {
            this: &this,
            old: None,
            optional_old: false,
            named: None,
        };
        match program.run(variables)? {
            CelValue::Bool(flag) => Ok(flag),
            other => Err(format!("{other:?} is no bool")),
        }
    }

    #[test]
    fn expressions_say_what_they_mean() {
        for expression in [
            "1 + 2 * 3 == 7 && (1 + 2) * 3 == 9",
            "self.a.b[0] == 1 && self['a'].b.size() == 2",
            "has(self.a) && !has(self.z)",
            "self.a.b.all(x, x > 0) && self.a.b.exists(x, x == 2) && self.a.b.exists_one(x, x == 1)",
            "self.a.b.map(x, x * 2) == [2, 4] && self.a.b.filter(x, x > 1) == [2]",
            "self.s.startsWith('he') && self.s.endsWith(\"lo\") && self.s.contains('ell') && self.s.matches('^h.*o$')",
            "'x' in self.m && 1 in [1, 2] && !(3 in [1, 2])",
            "self.m.all(k, self.m[k] == 1)",
            "type(self.s) == string && type(1) == int && type(self.m) == map && type(null) == null_type",
            "size('héllo') == 5 && 7 / 2 == 3 && 7 % 4 == 3 && -7 / 2 == -3",
            "true || self.nope == 1",
            "!(false && self.nope == 1)",
            "self.s == 'hello' ? true : false",
            "quantity('1Gi').isGreaterThan(quantity('1M')) && isQuantity('5') && !isQuantity('x')",
            "int('5') == 5 && string(5) == '5' && double('1.5') == 1.5",
            "'a,b'.split(',') == ['a', 'b'] && ['a', 'b'].join('-') == 'a-b'",
            "'ABC'.lowerAscii() == 'abc' && 'abc'.substring(1, 2) == 'b' && 'abc'.indexOf('c') == 2",
            "isURL('http://a/b') && url('http://a:80/b').getHost() == 'a:80'",
            "r'\\d' == '\\\\d' && \"\\u0041\" == 'A'",
            "{'a': 1}.a == 1 && {'a': 1} == {'a': 1}",
            "duration('1m') > duration('59s') && timestamp('2025-01-01T00:00:00Z') < timestamp('2026-01-01T00:00:00Z')",
            "[1, 2, 3].isSorted() && [1, 2].sum() == 3 && [3, 1].min() == 1",
            "self.a.?z.orValue(4) == 4 && optional.none().hasValue() == false",
        ] {
            let this = json!({"a": {"b": [1, 2]}, "s": "hello", "m": {"x": 1}});
            assert_eq!(run(expression, this), Ok(true), "{expression}");
        }
    }

    #[test]
    fn errors_are_sentences() {
        for (expression, message) in [
            ("10 / self.z > 0", "division by zero"),
            ("self.nope == 1", "no such key: nope"),
            ("[1][5] == 1", "index out of bounds: 5"),
            ("'a' + 1 == 2", "no such overload"),
        ] {
            assert_eq!(
                run(expression, json!({"z": 0})),
                Err(message.to_string()),
                "{expression}"
            );
        }
        assert!(
            run("self.(", json!({}))
                .unwrap_err()
                .contains("Syntax error")
        );
    }

    #[test]
    fn endless_work_is_cut_off() {
        let list: Vec<u32> = (0..200).collect();
        let expression = "self.all(a, self.all(b, self.all(c, a + b + c >= 0)))";
        assert_eq!(
            run(expression, json!(list)),
            Err("operation cancelled: actual cost limit exceeded".to_string())
        );
    }

    proptest! {
        #[test]
        fn no_expression_panics(text in "[a-z0-9 .()\\[\\]{}!&|<>=+*/%?:,'\"-]{0,40}") {
            let _ = run(&text, json!({"a": [1, "x"]}));
        }

        #[test]
        fn arithmetic_never_overflows(one in any::<i64>(), other in any::<i64>(), operator in "[-+*/%]") {
            let _ = run(&format!("self[0] {operator} self[1] == 0"), json!([one, other]));
        }
    }
}

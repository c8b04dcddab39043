//! Conditions of admission webhooks (`matchConditions`): expressions over `object`, `oldObject` and `request`.
//!
//! Refuses `authorizer`, which would ask the API server while it answers.

use serde_json::{Map, Value};

use crate::cel::{CelValue, Program, Variables};

/// Whether all `expressions` hold. One that is false decides, whatever becomes of the others; else the first error is told.
///
/// Source of the order: the API's description of `matchConditions`.
///
/// # Errors
/// A sentence about the expression that cannot be parsed, evaluated, or is no truth value.
pub fn all_hold<'e>(
    expressions: impl Iterator<Item = &'e str>,
    variables: &Map<String, Value>,
) -> Result<bool, String> {
    let mut first_error = None;
    for expression in expressions {
        match holds(expression, variables) {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(error) => {
                first_error.get_or_insert(error);
            }
        }
    }
    first_error.map_or(Ok(true), Err)
}

fn holds(expression: &str, variables: &Map<String, Value>) -> Result<bool, String> {
    let program = Program::parse(expression)?;
    let variables = Variables {
        this: &Value::Null,
        old: None,
        optional_old: false,
        named: Some(variables),
    };
    match program.run(variables)? {
        CelValue::Bool(holds) => Ok(holds),
        _ => Err(format!("expression {expression:?} is no truth value")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn all(expressions: &[&str]) -> Result<bool, String> {
        let request = json!({
            "object": {"metadata": {"annotations": {"a.b/c": "x"}}},
            "oldObject": null,
            "request": {"operation": "CREATE"},
        });
        all_hold(expressions.iter().copied(), request.as_object().unwrap())
    }

    #[test]
    fn all_have_to_hold_and_one_that_does_not_decides_before_errors() {
        let present = "has(object.metadata.annotations) && 'a.b/c' in object.metadata.annotations";
        let broken = "object.nope == 1";
        assert_eq!(all(&[]), Ok(true));
        assert_eq!(all(&[present, "request.operation == 'CREATE'"]), Ok(true));
        assert_eq!(all(&["oldObject == null"]), Ok(true));
        assert_eq!(all(&[present, "request.operation == 'DELETE'"]), Ok(false));
        assert_eq!(all(&[broken, "false"]), Ok(false));
        assert!(all(&[present, broken]).is_err());
        assert!(all(&["1 + 1"]).unwrap_err().contains("truth"));
        assert!(all(&["(("]).is_err());
    }
}

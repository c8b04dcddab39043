//! Kubernetes' `$(NAME)` references in commands, arguments and values.

use std::collections::BTreeMap;

/// Replaces `$(NAME)` by its value; `$$` is a dollar sign, and a name that is not known stays as it is.
pub(super) fn expand(text: &str, known: &BTreeMap<String, String>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        result.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            result.push('$');
            rest = after;
        } else if let Some((name, after)) = rest
            .strip_prefix('(')
            .and_then(|inner| inner.split_once(')'))
        {
            match known.get(name) {
                Some(value) => result.push_str(value),
                None => {
                    result.push_str("$(");
                    result.push_str(name);
                    result.push(')');
                }
            }
            rest = after;
        } else {
            result.push('$');
        }
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_replaced_as_kubernetes_does() {
        let known = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        assert_eq!(
            expand("x-$(A)-$(B)-$$(A)-$A-$(", &known),
            "x-1-$(B)-$(A)-$A-$("
        );
        assert_eq!(expand("", &known), "");
        assert_eq!(expand("$", &known), "$");
    }
}

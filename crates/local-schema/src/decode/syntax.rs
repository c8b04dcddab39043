//! Go's sentences about text that is not JSON. Only called after a parser refused the text.

/// The complaint of Go's scanner; the parser's own words when the scanner finds nothing wrong.
pub(super) fn explain(text: &[u8], error: &serde_json::Error) -> String {
    let mut scanner = Scanner { text, at: 0 };
    match scanner.document() {
        Err(message) => message,
        Ok(()) => error.to_string(),
    }
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

const MAX_DEPTH: usize = 10_000;

type Scan = Result<(), String>;

impl Scanner<'_> {
    fn document(&mut self) -> Scan {
        // Containers are kept on a stack of their own, so that deep nesting costs no call depth.
        let mut open: Vec<u8> = Vec::new();
        loop {
            self.value_start(&mut open)?;
            loop {
                self.spaces();
                let Some(container) = open.last().copied() else {
                    return match self.peek() {
                        None => Ok(()),
                        Some(_) => self.refuse("after top-level value"),
                    };
                };
                match (self.peek(), container) {
                    (Some(b','), b'{') => {
                        self.at += 1;
                        self.spaces();
                        self.key()?;
                        break;
                    }
                    (Some(b','), _) => {
                        self.at += 1;
                        break;
                    }
                    (Some(b'}'), b'{') | (Some(b']'), b'[') => {
                        self.at += 1;
                        open.pop();
                    }
                    (None, _) => return self.end(),
                    (_, b'{') => return self.refuse("after object key:value pair"),
                    _ => return self.refuse("after array element"),
                }
            }
        }
    }

    /// Reads up to and including the next scalar or empty container.
    fn value_start(&mut self, open: &mut Vec<u8>) -> Scan {
        loop {
            self.spaces();
            match self.peek() {
                None => return self.end(),
                Some(b'{') => {
                    self.at += 1;
                    open.push(b'{');
                    self.spaces();
                    if self.peek() == Some(b'}') {
                        return Ok(());
                    }
                    self.key()?;
                }
                Some(b'[') => {
                    self.at += 1;
                    open.push(b'[');
                    self.spaces();
                    if self.peek() == Some(b']') {
                        return Ok(());
                    }
                }
                Some(b'"') => return self.string(),
                Some(b't') => return self.literal("true"),
                Some(b'f') => return self.literal("false"),
                Some(b'n') => return self.literal("null"),
                Some(b'-' | b'0'..=b'9') => return self.number(),
                Some(_) => return self.refuse("looking for beginning of value"),
            }
            if open.len() > MAX_DEPTH {
                return Err("exceeded max depth".to_string());
            }
        }
    }

    fn key(&mut self) -> Scan {
        match self.peek() {
            None => return self.end(),
            Some(b'"') => self.string()?,
            Some(_) => return self.refuse("looking for beginning of object key string"),
        }
        self.spaces();
        match self.peek() {
            None => self.end(),
            Some(b':') => {
                self.at += 1;
                Ok(())
            }
            Some(_) => self.refuse("after object key"),
        }
    }

    fn string(&mut self) -> Scan {
        self.at += 1;
        loop {
            match self.peek() {
                None => return self.end(),
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    self.at += 1;
                    match self.peek() {
                        None => return self.end(),
                        Some(b'u') => {
                            self.at += 1;
                            for _ in 0..4 {
                                match self.peek() {
                                    None => return self.end(),
                                    Some(byte) if byte.is_ascii_hexdigit() => self.at += 1,
                                    Some(_) => {
                                        return self.refuse("in \\u hexadecimal character escape");
                                    }
                                }
                            }
                        }
                        Some(b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"') => {
                            self.at += 1
                        }
                        Some(_) => return self.refuse("in string escape code"),
                    }
                }
                Some(byte) if byte < 0x20 => return self.refuse("in string literal"),
                Some(_) => self.at += 1,
            }
        }
    }

    fn literal(&mut self, word: &str) -> Scan {
        for (index, wanted) in word.bytes().enumerate() {
            match self.peek() {
                None => return self.end(),
                Some(byte) if byte == wanted => self.at += 1,
                Some(_) => {
                    debug_assert!(index > 0);
                    return self.refuse(&format!(
                        "in literal {word} (expecting '{}')",
                        wanted as char
                    ));
                }
            }
        }
        Ok(())
    }

    fn number(&mut self) -> Scan {
        if self.peek() == Some(b'-') {
            self.at += 1;
            match self.peek() {
                None => return self.end(),
                Some(b'0'..=b'9') => {}
                Some(_) => return self.refuse("in numeric literal"),
            }
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits();
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.some_digits("after decimal point in numeric literal")?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.some_digits("in exponent of numeric literal")?;
        }
        Ok(())
    }

    fn some_digits(&mut self, place: &str) -> Scan {
        match self.peek() {
            None => self.end(),
            Some(b'0'..=b'9') => {
                self.digits();
                Ok(())
            }
            Some(_) => self.refuse(place),
        }
    }

    fn digits(&mut self) {
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
    }

    fn spaces(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn end(&self) -> Scan {
        Err("unexpected end of JSON input".to_string())
    }

    fn refuse(&self, place: &str) -> Scan {
        let byte = self.peek().unwrap_or_default();
        let shown = match byte {
            b'\'' => r"'\''".to_string(),
            b'"' => "'\"'".to_string(),
            0x20..=0x7e => format!("'{}'", byte as char),
            b'\n' => r"'\n'".to_string(),
            b'\r' => r"'\r'".to_string(),
            b'\t' => r"'\t'".to_string(),
            0..0x80 => format!("'\\x{byte:02x}'"),
            _ => format!("'{}'", char::from(byte)),
        };
        Err(format!("invalid character {shown} {place}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn complaint(text: &str) -> String {
        let error = serde_json::from_str::<serde_json::Value>(text).unwrap_err();
        explain(text.as_bytes(), &error)
    }

    #[test]
    fn complaints_are_gos() {
        for (text, message) in [
            ("", "unexpected end of JSON input"),
            ("{\"a\":1", "unexpected end of JSON input"),
            (
                "xyz",
                "invalid character 'x' looking for beginning of value",
            ),
            (
                "{a:1}",
                "invalid character 'a' looking for beginning of object key string",
            ),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            (
                "{\"a\":1 \"b\"}",
                "invalid character '\"' after object key:value pair",
            ),
            ("[1 2]", "invalid character '2' after array element"),
            (
                "not",
                "invalid character 'o' in literal null (expecting 'u')",
            ),
            ("1 2", "invalid character '2' after top-level value"),
        ] {
            assert_eq!(complaint(text), message, "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_scanner_agrees_with_the_parser_about_what_is_json(text in "[\\[\\]{}:,\"0-9a.e\\- tn\\\\]{0,24}") {
            let parsed = serde_json::from_str::<serde_json::Value>(&text);
            let scanned = Scanner { text: text.as_bytes(), at: 0 }.document();
            if parsed.is_ok() {
                prop_assert!(scanned.is_ok(), "{text:?}: {scanned:?}");
            }
        }
    }
}

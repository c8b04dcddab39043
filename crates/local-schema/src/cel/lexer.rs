//! Tokens.

/// One token.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Name(String),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
    /// An operator or bracket.
    Sign(&'static str),
}

const SIGNS: [&str; 28] = [
    "&&", "||", "==", "!=", "<=", ">=", "?.", "[?", "<", ">", "!", "+", "-", "*", "/", "%", "?",
    ":", "(", ")", "[", "]", "{", "}", ",", ".", "=", "&",
];

/// Tokens with the column (from 1) where each begins.
pub(super) fn tokens(text: &str) -> Result<Vec<(Token, usize)>, String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        let column = text.len() - rest.len() + 1;
        if letter.is_whitespace() {
            rest = &rest[letter.len_utf8()..];
        } else if rest.starts_with("//") {
            rest = rest.find('\n').map_or("", |end| &rest[end..]);
        } else if let Some((token, left)) = quoted(rest).map_err(|reason| at(column, &reason))? {
            found.push((token, column));
            rest = left;
        } else if letter.is_ascii_digit() {
            let (token, left) = number(rest).map_err(|reason| at(column, &reason))?;
            found.push((token, column));
            rest = left;
        } else if letter.is_ascii_alphabetic() || letter == '_' {
            let end = rest
                .find(|one: char| !one.is_ascii_alphanumeric() && one != '_')
                .unwrap_or(rest.len());
            found.push((Token::Name(rest[..end].to_string()), column));
            rest = &rest[end..];
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            found.push((Token::Sign(sign), column));
            rest = &rest[sign.len()..];
        } else {
            return Err(at(
                column,
                &format!("token recognition error at: '{letter}'"),
            ));
        }
    }
    Ok(found)
}

pub(super) fn at(column: usize, reason: &str) -> String {
    format!("ERROR: <input>:1:{column}: Syntax error: {reason}")
}

/// A string or bytes literal, with its prefixes.
fn quoted(text: &str) -> Result<Option<(Token, &str)>, String> {
    let mut rest = text;
    let (mut raw, mut bytes) = (false, false);
    while let Some(letter) = rest.chars().next() {
        match letter {
            'r' | 'R' if !raw => raw = true,
            'b' | 'B' if !bytes => bytes = true,
            _ => break,
        }
        rest = &rest[1..];
    }
    let Some(quote) = ["\"\"\"", "'''", "\"", "'"]
        .into_iter()
        .find(|quote| rest.starts_with(quote))
    else {
        return Ok(None);
    };
    rest = &rest[quote.len()..];
    let mut content = String::new();
    loop {
        if let Some(left) = rest.strip_prefix(quote) {
            let token = if bytes {
                Token::Bytes(content.into_bytes())
            } else {
                Token::Text(content)
            };
            return Ok(Some((token, left)));
        }
        let Some(letter) = rest.chars().next() else {
            return Err("unterminated string".to_string());
        };
        rest = &rest[letter.len_utf8()..];
        if letter == '\\' && !raw {
            rest = escape(rest, &mut content)?;
        } else {
            content.push(letter);
        }
    }
}

fn escape<'t>(text: &'t str, content: &mut String) -> Result<&'t str, String> {
    let letter = text.chars().next().ok_or("unterminated escape")?;
    let rest = &text[letter.len_utf8()..];
    let (digits, radix) = match letter {
        'x' | 'X' => (2, 16),
        'u' => (4, 16),
        'U' => (8, 16),
        '0'..='3' => (3, 8),
        _ => {
            content.push(match letter {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                'a' => '\u{7}',
                'b' => '\u{8}',
                'f' => '\u{c}',
                'v' => '\u{b}',
                '\\' | '\'' | '"' | '`' | '?' => letter,
                _ => return Err("unable to unescape string".to_string()),
            });
            return Ok(rest);
        }
    };
    let source = if radix == 8 { text } else { rest };
    let code = source
        .get(..digits)
        .and_then(|code| u32::from_str_radix(code, radix).ok());
    let letter = code
        .and_then(char::from_u32)
        .ok_or("unable to unescape string")?;
    content.push(letter);
    Ok(&source[digits..])
}

fn number(text: &str) -> Result<(Token, &str), String> {
    if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        let end = digits
            .find(|letter: char| !letter.is_ascii_hexdigit())
            .unwrap_or(digits.len());
        let value = u64::from_str_radix(&digits[..end], 16).map_err(|_| "invalid int literal")?;
        return integer(value, &digits[end..]);
    }
    let bytes = text.as_bytes();
    let digits_from = |mut at: usize| {
        while bytes.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        at
    };
    let mut end = digits_from(0);
    let mut is_double = false;
    if bytes.get(end) == Some(&b'.') && bytes.get(end + 1).is_some_and(u8::is_ascii_digit) {
        is_double = true;
        end = digits_from(end + 1);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        if bytes.get(end + 1 + sign).is_some_and(u8::is_ascii_digit) {
            is_double = true;
            end = digits_from(end + 1 + sign);
        }
    }
    let (number, rest) = text.split_at(end);
    if is_double {
        let value = number.parse().map_err(|_| "invalid double literal")?;
        return Ok((Token::Double(value), rest));
    }
    integer(number.parse().map_err(|_| "invalid int literal")?, rest)
}

fn integer(value: u64, rest: &str) -> Result<(Token, &str), String> {
    if let Some(rest) = rest.strip_prefix(['u', 'U']) {
        return Ok((Token::Uint(value), rest));
    }
    let value = i64::try_from(value).map_err(|_| "invalid int literal")?;
    Ok((Token::Int(value), rest))
}

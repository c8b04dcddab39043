//! The syntax of names: DNS labels and subdomains, label keys and values, ports, keys of config maps, addresses.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;

use local_schema::FieldError;
use regex::Regex;

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const LABEL_1035: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const QUALIFIED: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const LABEL_VALUE: &str = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";
const CONFIG_KEY: &str = "[-._a-zA-Z0-9]+";
const PERCENT: &str = "[0-9]+%";
const HEADER: &str = "[-A-Za-z0-9]+";

const SUBDOMAIN_WORDS: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
const LABEL_WORDS: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
const LABEL_1035_WORDS: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character";
const QUALIFIED_WORDS: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const VALUE_WORDS: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const WILDCARD_WORDS: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character";

/// What is wrong with an address.
pub const IP_WORDS: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
/// What is wrong with a network.
pub const CIDR_WORDS: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

struct Patterns {
    label: Regex,
    label_1035: Regex,
    subdomain: Regex,
    wildcard: Regex,
    qualified: Regex,
    label_value: Regex,
    config_key: Regex,
    percent: Regex,
    header: Regex,
}

static PATTERNS: LazyLock<Patterns> = LazyLock::new(|| {
    let whole =
        |pattern: &str| Regex::new(&format!("^({pattern})$")).expect("the patterns are constants");
    Patterns {
        label: whole(LABEL),
        label_1035: whole(LABEL_1035),
        subdomain: whole(SUBDOMAIN),
        wildcard: whole(&format!(r"\*\.{SUBDOMAIN}")),
        qualified: whole(QUALIFIED),
        label_value: whole(LABEL_VALUE),
        config_key: whole(CONFIG_KEY),
        percent: whole(PERCENT),
        header: whole(HEADER),
    }
});

/// Upstream's sentence for a value that does not match a pattern.
fn pattern_error(words: &str, pattern: &str, examples: &[&str]) -> String {
    let shown: Vec<String> = examples.iter().map(|one| format!("'{one}', ")).collect();
    format!(
        "{words} (e.g. {}regex used for validation is '{pattern}')",
        shown.join(" or ")
    )
}

fn too_long(limit: usize) -> String {
    format!("must be no more than {limit} characters")
}

/// A DNS label as of RFC 1123.
pub fn label(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > 63 {
        errors.push(too_long(63));
    }
    if !PATTERNS.label.is_match(value) {
        if PATTERNS.subdomain.is_match(value) {
            errors.push("must not contain dots".to_string());
        } else {
            errors.push(pattern_error(LABEL_WORDS, LABEL, &["my-name", "123-abc"]));
        }
    }
    errors
}

/// A DNS label as of RFC 1035: it starts with a letter.
pub fn label_1035(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > 63 {
        errors.push(too_long(63));
    }
    if !PATTERNS.label_1035.is_match(value) {
        errors.push(pattern_error(
            LABEL_1035_WORDS,
            LABEL_1035,
            &["my-name", "abc-123"],
        ));
    }
    errors
}

/// A DNS subdomain as of RFC 1123.
pub fn subdomain(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > 253 {
        errors.push(too_long(253));
    }
    if !PATTERNS.subdomain.is_match(value) {
        errors.push(pattern_error(SUBDOMAIN_WORDS, SUBDOMAIN, &["example.com"]));
    }
    errors
}

/// `*.example.com`.
pub fn wildcard_subdomain(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > 253 {
        errors.push(too_long(253));
    }
    if !PATTERNS.wildcard.is_match(value) {
        let pattern = format!(r"\*\.{SUBDOMAIN}");
        errors.push(pattern_error(WILDCARD_WORDS, &pattern, &["*.example.com"]));
    }
    errors
}

/// A name with an optional DNS subdomain before a slash: label keys, finalizers, resource names.
pub fn qualified(value: &str) -> Vec<String> {
    let examples = &["MyName", "my.name", "123-abc"];
    let parts: Vec<&str> = value.split('/').collect();
    let mut errors = Vec::new();
    let name = match parts[..] {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                errors.push("prefix part must be non-empty".to_string());
            } else {
                errors.extend(
                    subdomain(prefix)
                        .iter()
                        .map(|one| format!("prefix part {one}")),
                );
            }
            name
        }
        _ => {
            let words = format!("a qualified name {QUALIFIED_WORDS}");
            let sentence = pattern_error(&words, QUALIFIED, examples);
            return vec![format!(
                "{sentence} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_string());
    } else if name.len() > 63 {
        errors.push(format!("name part {}", too_long(63)));
    }
    if !PATTERNS.qualified.is_match(name) {
        let sentence = pattern_error(QUALIFIED_WORDS, QUALIFIED, examples);
        errors.push(format!("name part {sentence}"));
    }
    errors
}

/// The value of a label.
pub fn label_value(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > 63 {
        errors.push(too_long(63));
    }
    if !PATTERNS.label_value.is_match(value) {
        let examples = &["MyValue", "my_value", "12345"];
        errors.push(pattern_error(VALUE_WORDS, LABEL_VALUE, examples));
    }
    errors
}

/// A name that is safe as one segment of a URL path.
pub fn path_segment(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value == "." || value == ".." {
        return vec![format!("may not be '{value}'")];
    }
    for forbidden in ["/", "%"] {
        if value.contains(forbidden) {
            errors.push(format!("may not contain '{forbidden}'"));
        }
    }
    errors
}

/// A port's name.
pub fn port_name(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > 15 {
        errors.push(too_long(15));
    }
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if value.is_empty() || !value.bytes().all(allowed) {
        errors.push(
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_string(),
        );
    }
    if !value.bytes().any(|byte| byte.is_ascii_lowercase()) {
        errors.push("must contain at least one letter (a-z)".to_string());
    }
    if value.contains("--") {
        errors.push("must not contain consecutive hyphens".to_string());
    }
    if value.starts_with('-') || value.ends_with('-') {
        errors.push("must not begin or end with a hyphen".to_string());
    }
    errors
}

/// A key of a ConfigMap or Secret.
pub fn config_key(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > 253 {
        errors.push(too_long(253));
    }
    if !PATTERNS.config_key.is_match(value) {
        errors.push(pattern_error(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            CONFIG_KEY,
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    match value {
        "." | ".." => errors.push(format!("must not be '{value}'")),
        _ if value.starts_with("..") => errors.push("must not start with '..'".to_string()),
        _ => {}
    }
    errors
}

/// The name of an environment variable.
pub fn environment_name(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.is_empty() {
        errors.push("environment variable name must be non-empty".to_string());
    }
    let allowed = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'=';
    if !value.bytes().all(allowed) {
        errors.push("a valid environment variable name must consist only of printable ASCII characters other than '='".to_string());
    }
    errors
}

/// `25%`.
pub fn percent(value: &str) -> Vec<String> {
    if PATTERNS.percent.is_match(value) {
        return Vec::new();
    }
    vec![pattern_error(
        "a valid percent string must be a numeric string followed by an ending '%'",
        PERCENT,
        &["1%", "93%"],
    )]
}

/// An HTTP header's name.
pub fn header(value: &str) -> Vec<String> {
    if PATTERNS.header.is_match(value) {
        return Vec::new();
    }
    vec![pattern_error(
        "a valid HTTP header must consist of alphanumeric characters or '-'",
        HEADER,
        &["X-Header-Name"],
    )]
}

/// An address; Go, unlike Rust, lets IPv4 numbers in its lenient parser start with zeros, which no client relies on.
pub fn address(value: &str) -> Option<IpAddr> {
    value.parse().ok()
}

/// An address with a prefix length.
pub fn network(value: &str) -> Option<(IpAddr, u8)> {
    let (ip, bits) = value.split_once('/')?;
    let ip = address(ip)?;
    let bits: u8 = bits.parse().ok()?;
    let most = if ip.is_ipv4() { 32 } else { 128 };
    (bits <= most).then_some((ip, bits))
}

/// An address that can stand in Endpoints or external addresses: neither unspecified, loopback, link-local nor multicast.
pub fn usable_address(value: &str, path: &str) -> Vec<FieldError> {
    let Some(ip) = address(value) else {
        return vec![FieldError::invalid(path, value, IP_WORDS)];
    };
    let mut errors = Vec::new();
    let mut refuse = |condition: bool, words: &str| {
        if condition {
            errors.push(FieldError::invalid(path, value, words));
        }
    };
    refuse(
        ip.is_unspecified(),
        &format!("may not be unspecified ({ip})"),
    );
    refuse(
        ip.is_loopback(),
        "may not be in the loopback range (127.0.0.0/8, ::1/128)",
    );
    let (link_local, link_multicast) = match ip {
        IpAddr::V4(ip) => (
            ip.is_link_local(),
            Ipv4Addr::from(u32::from(ip) & 0xffff_ff00) == Ipv4Addr::new(224, 0, 0, 0),
        ),
        IpAddr::V6(ip) => (ip.is_unicast_link_local(), ip.segments()[0] == 0xff02),
    };
    refuse(
        link_local,
        "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
    );
    refuse(
        link_multicast,
        "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
    );
    errors
}

/// Each sentence as an invalid value at a path.
pub fn invalid(path: &str, value: &str, sentences: Vec<String>) -> Vec<FieldError> {
    sentences
        .into_iter()
        .map(|words| FieldError::invalid(path, value, words))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_two_name_parts_are_checked_apart() {
        assert!(qualified("example.com/a_B").is_empty());
        assert_eq!(qualified("/a").len(), 1);
        assert_eq!(qualified("a/b/c").len(), 1);
        assert!(qualified("bad name/x")[0].starts_with("prefix part a lowercase RFC 1123"));
    }

    #[test]
    fn addresses_that_no_backend_can_have_are_refused() {
        for refused in [
            "127.0.0.1",
            "169.254.1.1",
            "224.0.0.5",
            "0.0.0.0",
            "x",
            "::1",
        ] {
            assert!(!usable_address(refused, "ip").is_empty(), "{refused}");
        }
        assert!(usable_address("10.1.2.3", "ip").is_empty());
    }

    #[test]
    fn networks_have_a_prefix_that_fits() {
        assert!(network("10.0.0.0/33").is_none());
        assert!(network("10.0.0.0").is_none());
        assert_eq!(network("10.0.0.0/8").unwrap().1, 8);
    }

    proptest! {
        #[test]
        fn every_label_is_a_subdomain_and_a_label_value(name in "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?") {
            prop_assert!(label(&name).is_empty());
            prop_assert!(subdomain(&name).is_empty());
            prop_assert!(label_value(&name).is_empty());
        }

        #[test]
        fn no_text_breaks_a_check(text in ".{0,80}") {
            label(&text); label_1035(&text); subdomain(&text); qualified(&text); label_value(&text);
            port_name(&text); config_key(&text); environment_name(&text); percent(&text); path_segment(&text);
        }
    }
}

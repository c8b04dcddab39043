//! Image references by the usual rules: `[registry/]repository[:tag][@digest]`.

use std::fmt;
use std::str::FromStr;

use super::digest::Digest;
use super::error::ImageError;

const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";
/// The repository names of Docker Hub's own images begin so.
const DEFAULT_PREFIX: &str = "library/";
const REPOSITORY_LENGTH_MAX: usize = 255;
const TAG_LENGTH_MAX: usize = 128;

/// A complete reference. When it has a digest, the tag is only decoration.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Reference {
    pub(crate) registry: String,
    pub(crate) repository: String,
    pub(crate) tag: Option<String>,
    pub(crate) digest: Option<Digest>,
}

impl Reference {
    /// `registry/repository`.
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The name by which images are kept: with a digest the tag says nothing.
    pub(crate) fn canonical(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => format!("{}@{digest}", self.name()),
            (None, tag) => format!("{}:{}", self.name(), tag.as_deref().unwrap_or(DEFAULT_TAG)),
        }
    }

    /// What the registry is asked for: a digest or a tag.
    pub(crate) fn selector(&self) -> String {
        match &self.digest {
            Some(digest) => digest.to_string(),
            None => self.tag.clone().unwrap_or_else(|| DEFAULT_TAG.to_owned()),
        }
    }

    /// Where the registry's API is.
    pub(crate) fn host(&self) -> &str {
        if self.registry == DEFAULT_REGISTRY {
            "registry-1.docker.io"
        } else {
            &self.registry
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.canonical())
    }
}

impl FromStr for Reference {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |reason: &str| ImageError::InvalidReference {
            reference: text.to_owned(),
            reason: reason.to_owned(),
        };
        let (rest, digest) =
            match text.split_once('@') {
                Some((rest, digest)) => (
                    rest,
                    Some(digest.parse().map_err(|_| {
                        wrong("its digest must be sha256: and 64 hexadecimal digits")
                    })?),
                ),
                None => (text, None),
            };
        let (registry, path) = match rest.split_once('/') {
            Some((first, path)) if first.contains(['.', ':']) || first == "localhost" => {
                (first, path)
            }
            _ => (DEFAULT_REGISTRY, rest),
        };
        let (path, tag) = match path.rsplit_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (path, None),
        };
        let registry = if registry == "index.docker.io" {
            DEFAULT_REGISTRY
        } else {
            registry
        };
        let repository = match registry == DEFAULT_REGISTRY && !path.contains('/') {
            true => format!("{DEFAULT_PREFIX}{path}"),
            false => path.to_owned(),
        };
        if path.is_empty() {
            return Err(wrong("it names no repository"));
        }
        if !is_host(registry) {
            return Err(wrong("its registry is not host or host:port"));
        }
        if repository.len() > REPOSITORY_LENGTH_MAX || !repository.split('/').all(is_component) {
            return Err(wrong(
                "a repository has lower-case letters and digits, separated by '.', '_', '-' or '/'",
            ));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(wrong(
                "a tag has at most 128 letters, digits, '_', '.' or '-' and begins with no separator",
            ));
        }
        Ok(Self {
            registry: registry.to_owned(),
            repository,
            tag: tag.map(str::to_owned),
            digest,
        })
    }
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => (address, port.strip_prefix(':')),
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':');
    !host.is_empty()
        && host.bytes().all(plain)
        && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

/// Lower-case words separated by one `.`, one or two `_`, or any number of `-`.
fn is_component(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends = bytes.first().zip(bytes.last());
    if !ends.is_some_and(|(first, last)| is_word(*first) && is_word(*last)) {
        return false;
    }
    let separators = text.split(|character: char| character.is_ascii() && is_word(character as u8));
    separators
        .filter(|run| !run.is_empty())
        .all(|run| matches!(run, "." | "_" | "__") || run.bytes().all(|b| b == b'-'))
}

fn is_tag(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    !text.is_empty()
        && text.len() <= TAG_LENGTH_MAX
        && !text.starts_with(['.', '-'])
        && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> String {
        text.parse::<Reference>().unwrap().canonical()
    }

    #[test]
    fn short_names_become_complete() {
        let hex = "ab".repeat(32);
        for (text, wanted) in [
            ("nginx", "docker.io/library/nginx:latest".to_owned()),
            ("nginx:1.27", "docker.io/library/nginx:1.27".to_owned()),
            (
                "grafana/grafana",
                "docker.io/grafana/grafana:latest".to_owned(),
            ),
            (
                "index.docker.io/library/a",
                "docker.io/library/a:latest".to_owned(),
            ),
            ("localhost/a", "localhost/a:latest".to_owned()),
            ("127.0.0.1:5000/a/b:v1", "127.0.0.1:5000/a/b:v1".to_owned()),
            (
                "registry.k8s.io/pause:3.10",
                "registry.k8s.io/pause:3.10".to_owned(),
            ),
            (
                &format!("a:v1@sha256:{hex}"),
                format!("docker.io/library/a@sha256:{hex}"),
            ),
        ] {
            assert_eq!(canonical(text), wanted);
        }
    }

    #[test]
    fn malformed_references_are_refused() {
        for text in [
            "",
            ":",
            "A",
            "a:",
            "a:-x",
            "a//b",
            "/a",
            "a@sha256:12",
            "host:port/a",
            "a_-b",
            "a..b",
            "a b",
            "x.y/",
            "a:b:c",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_canonical_reference_reads_back_as_itself(text in "[a-z0-9.:/@_-]{1,40}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(canonical(&reference.canonical()), reference.canonical());
            }
        }
    }
}

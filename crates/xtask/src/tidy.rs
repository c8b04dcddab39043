//! Sizes that only shrink: files of at most 800 lines, functions of at most 70, except those listed in
//! `crates/xtask/tidy-exceptions.txt`, each with the size it may not exceed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::run;

const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 70;

/// Fails with every place that is too long and not excepted, and with exceptions that are no longer needed.
pub fn check() -> anyhow::Result<()> {
    let root = run::root();
    let mut files = Vec::new();
    rust_files(&root.join("crates"), &mut files)?;
    let mut found = BTreeMap::new();
    for file in files {
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let name = file
            .strip_prefix(&root)
            .unwrap_or(&file)
            .display()
            .to_string();
        found.extend(too_long(&name, &text));
    }
    let listed = exceptions(&root)?;
    let mut complaints = Vec::new();
    for (place, lines) in &found {
        if listed.get(place).is_none_or(|allowed| lines > allowed) {
            complaints.push(format!("{place}: {lines} lines"));
        }
    }
    for place in listed.keys().filter(|place| !found.contains_key(*place)) {
        complaints.push(format!(
            "{place}: listed as an exception but short enough now; remove it from the list"
        ));
    }
    if !complaints.is_empty() {
        bail!(
            "too long, split them (files ≤ {FILE_LINES_MAX}, functions ≤ {FUNCTION_LINES_MAX} lines):\n  {}",
            complaints.join("\n  ")
        );
    }
    Ok(())
}

fn exceptions(root: &Path) -> anyhow::Result<BTreeMap<String, usize>> {
    let path = root.join("crates/xtask/tidy-exceptions.txt");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let (place, lines) = line.rsplit_once(' ').context("a line is `place lines`")?;
            Ok((place.to_string(), lines.parse()?))
        })
        .collect::<anyhow::Result<_>>()
        .with_context(|| format!("parse {}", path.display()))
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            rust_files(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// Files and functions beyond the limits. A function's end is the closing brace at the indentation of its `fn` line,
/// which formatting by rustfmt guarantees.
fn too_long(name: &str, text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    if lines.len() > FILE_LINES_MAX {
        found.push((name.to_string(), lines.len()));
    }
    for (start, line) in lines.iter().enumerate() {
        let Some(function) = function_name(line) else {
            continue;
        };
        let indentation = line.len() - line.trim_start().len();
        let end = format!("{}}}", " ".repeat(indentation));
        let length = lines[start..]
            .iter()
            .position(|line| *line == end)
            .map_or(1, |offset| offset + 1);
        // A declaration without a body ends in its own line or before the next blank one.
        let declared = lines[start..]
            .iter()
            .take(length)
            .any(|line| line.ends_with(';') && line.len() - line.trim_start().len() == indentation);
        if length > FUNCTION_LINES_MAX && !declared {
            found.push((format!("{name}::{function}"), length));
        }
    }
    found
}

fn function_name(line: &str) -> Option<&str> {
    let mut rest = line.trim_start();
    for prefix in [
        "pub(crate) ",
        "pub(super) ",
        "pub ",
        "async ",
        "const ",
        "unsafe ",
    ] {
        rest = rest.strip_prefix(prefix).unwrap_or(rest);
    }
    let rest = rest.strip_prefix("fn ")?;
    rest.split(['(', '<']).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_function_is_named_with_its_length() {
        let body = "    let a = 1;\n".repeat(80);
        let text = format!("pub async fn long(x: u8) {{\n{body}}}\nfn short() {{\n}}\n");
        assert_eq!(too_long("a.rs", &text), [("a.rs::long".to_string(), 82)]);
    }

    #[test]
    fn a_long_file_is_named() {
        assert_eq!(
            too_long("a.rs", &"\n".repeat(801)),
            [("a.rs".to_string(), 801)]
        );
        assert!(too_long("a.rs", &"\n".repeat(800)).is_empty());
    }
}

//! Links between the workspace's documents that lead nowhere: a file that is not there, or a heading that its page does not have;
//! and pages for users that their folder's list does not name, so that nobody finds them.
//!
//! Addresses elsewhere are not asked for, so that the check works without a network; links inside code are not links.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail};

use crate::run;

/// Folders with documents that are not ours, or none at all.
const NOT_OURS: [&str; 2] = ["target", "node_modules"];

/// Folders whose `README.md` has to name each of their pages.
const LISTED: [&str; 2] = ["docs", "docs/zh"];

/// Fails with every link that leads nowhere, by file and line, and every page that is not listed.
pub fn check() -> anyhow::Result<()> {
    let root = run::root();
    let mut pages = BTreeMap::new();
    read_pages(&root, &mut pages)?;
    let mut complaints = dead_links(&root, &pages);
    complaints.extend(unlisted(&root, &pages));
    if !complaints.is_empty() {
        bail!("documents to mend:\n  {}", complaints.join("\n  "));
    }
    Ok(())
}

fn unlisted(root: &Path, pages: &BTreeMap<PathBuf, String>) -> Vec<String> {
    let mut found = Vec::new();
    for folder in LISTED {
        let list = root.join(folder).join("README.md");
        let named: BTreeSet<PathBuf> = pages
            .get(&list)
            .map_or_else(Vec::new, |text| links(text))
            .iter()
            .filter_map(|(_, target)| Some(root.join(folder).join(target.split('#').next()?)))
            .collect();
        let own = pages.keys().filter(|page| {
            page.parent() == Some(&root.join(folder)) && **page != list && !named.contains(*page)
        });
        found.extend(own.map(|page| {
            let page = page.strip_prefix(root).unwrap_or(page).display();
            format!("{page}: {folder}/README.md does not name it")
        }));
    }
    found
}

fn dead_links(root: &Path, pages: &BTreeMap<PathBuf, String>) -> Vec<String> {
    let mut dead = Vec::new();
    for (page, text) in pages {
        for (line, target) in links(text) {
            if let Some(reason) = problem(pages, page, &target) {
                let page = page.strip_prefix(root).unwrap_or(page).display();
                dead.push(format!("{page}:{line}: {target}: {reason}"));
            }
        }
    }
    dead
}

fn read_pages(folder: &Path, pages: &mut BTreeMap<PathBuf, String>) -> anyhow::Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') || NOT_OURS.contains(&name.as_ref()) {
            continue;
        }
        if path.is_dir() {
            read_pages(&path, pages)?;
        } else if path.extension().is_some_and(|extension| extension == "md") {
            let text =
                fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            pages.insert(path, text);
        }
    }
    Ok(())
}

/// Why the target cannot be reached from the page.
fn problem(pages: &BTreeMap<PathBuf, String>, page: &Path, target: &str) -> Option<&'static str> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (path, heading) = match target.split_once('#') {
        Some((path, heading)) => (path, Some(heading)),
        None => (target, None),
    };
    let file = match path {
        "" => page.to_path_buf(),
        path => plain(&page.parent()?.join(path)),
    };
    if !file.exists() {
        return Some("there is no such file");
    }
    let text = pages.get(&file)?;
    let missing = heading.is_some_and(|heading| !headings(text).contains(heading));
    missing.then_some("the page has no such heading")
}

/// The path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            part => plain.push(part),
        }
    }
    plain
}

/// The lines that are not in a fenced block, counted from 1, each without its code spans.
fn prose(text: &str) -> impl Iterator<Item = (usize, String)> {
    let mut fence: Option<&str> = None;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let begin = line.trim_start();
        let mark = ["```", "~~~"]
            .into_iter()
            .find(|mark| begin.starts_with(mark));
        match (fence, mark) {
            (None, Some(mark)) => fence = Some(mark),
            (Some(open), Some(mark)) if open == mark => fence = None,
            (None, None) => return Some((index + 1, without_code(line))),
            (Some(_), _) => {}
        }
        None
    })
}

fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect()
}

/// Where the page's links lead to, with their lines.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        for after in line.split("](").skip(1) {
            let target = after.split([')', ' ']).next().unwrap_or_default();
            found.push((number, target.to_string()));
        }
    }
    found
}

/// The anchors of the page's headings, made as forges make them: lower case, spaces as dashes, other punctuation left out,
/// repeated ones numbered.
fn headings(text: &str) -> BTreeSet<String> {
    let mut times: BTreeMap<String, u32> = BTreeMap::new();
    let mut anchors = BTreeSet::new();
    let mut fenced = false;
    for line in text.lines() {
        let begin = line.trim_start();
        if begin.starts_with("```") || begin.starts_with("~~~") {
            fenced = !fenced;
        }
        let Some(title) = line.strip_prefix('#').filter(|_| !fenced) else {
            continue;
        };
        let anchor = anchor(title.trim_start_matches('#').trim());
        let time = times.entry(anchor.clone()).or_default();
        anchors.insert(match *time {
            0 => anchor,
            time => format!("{anchor}-{time}"),
        });
        *time += 1;
    }
    anchors
}

fn anchor(title: &str) -> String {
    let letters = title
        .chars()
        .flat_map(char::to_lowercase)
        .filter_map(|letter| match letter {
            ' ' => Some('-'),
            '-' | '_' => Some(letter),
            letter => letter.is_alphanumeric().then_some(letter),
        });
    letters.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files of a workspace, with their texts as they are read.
    fn workspace(files: &[(&str, &str)]) -> (tempfile::TempDir, BTreeMap<PathBuf, String>) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let mut pages = BTreeMap::new();
        read_pages(folder.path(), &mut pages).unwrap();
        (folder, pages)
    }

    #[test]
    fn a_dead_link_is_named_with_page_line_and_reason_and_living_ones_are_not() {
        let readme = "[a](docs/a.md) [b](docs/a.md#how-its-done \"title\") [z](docs/a.md#规则) [d](docs/) [web](https://example.org/x)\n\
             [self](#here) `[code](gone.md)`\n```\n[fenced](gone.md)\n```\n\
             [c](docs/b.md)\n[e](docs/a.md#elsewhere)\n# Here\n";
        let (folder, pages) = workspace(&[
            ("docs/a.md", "# A page\n\n## How it's done\n\n## 规则\n"),
            ("target/x.md", "[gone](gone.md)\n"),
            ("README.md", readme),
            ("docs/zh/a.md", "[up](../../README.md) [down](../b.md)\n"),
        ]);
        assert_eq!(
            dead_links(folder.path(), &pages),
            [
                "README.md:6: docs/b.md: there is no such file",
                "README.md:7: docs/a.md#elsewhere: the page has no such heading",
                "docs/zh/a.md:1: ../b.md: there is no such file",
            ]
        );
    }

    #[test]
    fn a_page_that_its_folders_list_does_not_name_is_told() {
        let (folder, pages) = workspace(&[
            ("docs/README.md", "[a](a.md#part) [other](decisions/1.md)\n"),
            ("docs/a.md", ""),
            ("docs/b.md", ""),
            ("docs/decisions/1.md", ""),
            ("docs/zh/a.md", ""),
        ]);
        assert_eq!(
            unlisted(folder.path(), &pages),
            [
                "docs/b.md: docs/README.md does not name it",
                "docs/zh/a.md: docs/zh/README.md does not name it",
            ]
        );
    }

    #[test]
    fn anchors_are_made_as_forges_make_them() {
        let found =
            headings("# `eci-profile`: the settings\n## Keys\n```\n# no heading\n```\n## Keys\n");
        let expected = ["eci-profile-the-settings", "keys", "keys-1"];
        assert_eq!(found, expected.map(str::to_string).into());
    }
}

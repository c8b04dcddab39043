//! The targets on stable: each file of the corpus, and changed ones. `PROPTEST_CASES` asks for more of them.

#![allow(clippy::unwrap_used)] // a failed step of a test should panic where it stands

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use fuzz_targets::{TARGETS, Target};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// Of each target, unless the environment asks for another number.
const CASES: u32 = 400;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let directory = fuzz().join("corpus").join(target);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
        .iter()
        .map(|file| std::fs::read(file).unwrap())
        .collect()
}

/// One change of an input.
#[derive(Clone, Debug)]
enum Edit {
    Set(prop::sample::Index, u8),
    Insert(prop::sample::Index, u8),
    Remove(prop::sample::Index),
    Truncate(prop::sample::Index),
    Repeat(prop::sample::Index, prop::sample::Index),
    Splice(prop::sample::Index, prop::sample::Index),
}

fn edit() -> impl Strategy<Value = Edit> {
    let place = any::<prop::sample::Index>;
    // Letters that mean something to one of the parsers, more often than others.
    let letter = || {
        prop_oneof![
            any::<u8>(),
            prop::sample::select(b"{}[]\",:=.%&*/-+@~0129eEKMGi\n \0\x80\xff".to_vec())
        ]
    };
    prop_oneof![
        3 => (place(), letter()).prop_map(|(at, byte)| Edit::Set(at, byte)),
        3 => (place(), letter()).prop_map(|(at, byte)| Edit::Insert(at, byte)),
        2 => place().prop_map(Edit::Remove),
        1 => place().prop_map(Edit::Truncate),
        2 => (place(), place()).prop_map(|(from, to)| Edit::Repeat(from, to)),
        1 => (place(), place()).prop_map(|(from, to)| Edit::Splice(from, to)),
    ]
}

fn change(mut input: Vec<u8>, edits: &[Edit], corpus: &[Vec<u8>]) -> Vec<u8> {
    for edit in edits {
        let length = input.len() + 1;
        match edit {
            Edit::Insert(at, byte) => input.insert(at.index(length), *byte),
            Edit::Splice(from, to) => {
                let other = &corpus[from.index(corpus.len())];
                let at = to.index(length);
                input.splice(at.., other.iter().skip(at.min(other.len())).copied());
            }
            _ if input.is_empty() => {}
            Edit::Set(at, byte) => {
                let at = at.index(input.len());
                input[at] = *byte;
            }
            Edit::Remove(at) => drop(input.remove(at.index(input.len()))),
            Edit::Truncate(at) => input.truncate(at.index(length)),
            Edit::Repeat(from, to) => {
                let (from, to) = (from.index(input.len()), to.index(length));
                let piece = input[from.min(to)..from.max(to)].to_vec();
                input.splice(to..to, piece);
            }
        }
    }
    input
}

fn play((name, target): &Target) {
    let corpus = corpus(name);
    assert!(!corpus.is_empty(), "{name} has no corpus");
    for input in &corpus {
        target(input);
    }
    let mut config = Config::default();
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = CASES;
    }
    config.failure_persistence = None;
    let changed = (
        any::<prop::sample::Index>(),
        prop::collection::vec(edit(), 0..12),
    );
    let changed = changed.prop_map(|(which, edits)| {
        change(corpus[which.index(corpus.len())].clone(), &edits, &corpus)
    });
    let noise = prop::collection::vec(any::<u8>(), 0..200);
    let inputs = prop_oneof![4 => changed, 1 => noise];
    let outcome = TestRunner::new(config).run(&inputs, |input| {
        target(&input);
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{name}: {failure}\nkeep the input as a file in fuzz/corpus/{name}");
    }
}

#[test]
fn no_input_makes_a_parser_panic() {
    for target in TARGETS {
        play(target);
    }
}

#[test]
fn every_target_can_be_fuzzed_and_nothing_else_is_listed() {
    let named: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let stems = |directory: &str| -> BTreeSet<String> {
        let entries = std::fs::read_dir(fuzz().join(directory)).unwrap();
        entries
            .map(|entry| {
                entry
                    .unwrap()
                    .path()
                    .file_stem()
                    .unwrap()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect()
    };
    assert_eq!(stems("fuzz_targets"), named);
    assert_eq!(stems("corpus"), named);
    let manifest = std::fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    let listed: BTreeSet<String> = manifest
        .lines()
        .filter_map(|line| line.strip_prefix("path = \"fuzz_targets/"))
        .filter_map(|line| line.strip_suffix(".rs\""))
        .map(str::to_owned)
        .collect();
    assert_eq!(listed, named);
}

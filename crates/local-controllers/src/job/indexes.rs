//! Sets of completion indexes in their short form: `0,2,5-9`. Refuses text of another form.

use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Indexes of a Job.
pub type Indexes = BTreeSet<i32>;

/// Reads the short form, leaving out what lies beyond the last index. Text that is none counts as no index.
pub fn parse(text: &str, completions: i32) -> Indexes {
    let mut indexes = Indexes::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) {
            indexes.extend(first.max(0)..=last.min(completions - 1));
        }
    }
    indexes
}

/// Writes the short form; two neighbours are written apart, three or more as a range.
pub fn format(indexes: &Indexes) -> String {
    let mut text = String::new();
    let mut rest = indexes.iter().copied().peekable();
    while let Some(first) = rest.next() {
        let mut last = first;
        while let Some(next) = rest.next_if(|next| *next == last + 1) {
            last = next;
        }
        let separator = if text.is_empty() { "" } else { "," };
        let written = match last - first {
            0 => write!(text, "{separator}{first}"),
            1 => write!(text, "{separator}{first},{last}"),
            _ => write!(text, "{separator}{first}-{last}"),
        };
        written.expect("writing into a string cannot fail");
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn runs_of_three_are_written_as_a_range() {
        for text in ["", "0", "0,1", "0-2", "1,3-5,7,8,10"] {
            assert_eq!(format(&parse(text, 20)), text);
        }
        assert_eq!(format(&parse("0-9,x,12", 3)), "0-2");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(indexes in proptest::collection::btree_set(0..40, 0..40)) {
            prop_assert_eq!(parse(&format(&indexes), 40), indexes);
        }
    }
}

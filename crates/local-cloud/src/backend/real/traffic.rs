//! Reading `/proc/<pid>/net/dev`: two header lines, then one line for each interface.

use crate::backend::InterfaceUsage;

/// The interfaces of a group, without its loopback; lines that are not understood are left out.
pub(super) fn read(text: &str) -> Vec<InterfaceUsage> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines
        .filter_map(|(name, counters)| {
            let counters: Vec<u64> = counters
                .split_whitespace()
                .map_while(|counter| counter.parse().ok())
                .collect();
            let name = name.trim();
            (name != "lo").then_some(InterfaceUsage {
                name: name.to_owned(),
                received: counters.get(0..4)?.try_into().ok()?,
                sent: counters.get(8..12)?.try_into().ok()?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn counters_are_found_in_their_columns() {
        let text = "Inter-|   Receive |  Transmit\n face |bytes packets|bytes packets\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 10 2 3 4 0 0 0 0 20 5 6 7 0 0 0 0\n";
        let expected = InterfaceUsage {
            name: "eth0".to_owned(),
            received: [10, 2, 3, 4],
            sent: [20, 5, 6, 7],
        };
        assert_eq!(read(text), [expected]);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "[ a-z0-9:|\n]{0,200}") {
            let _ = read(&text);
        }
    }
}

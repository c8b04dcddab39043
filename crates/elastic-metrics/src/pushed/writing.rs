//! Writes messages as a sender does, though without compressing them: for whoever pushes a few series, and for tests.

use std::collections::BTreeMap;

use jiff::Timestamp;

const NAME: &str = "__name__";
/// The longest run of new bytes whose length fits into its tag.
const RUN_BYTES: usize = 60;

/// The body of a remote-write request: one sample for each series, of now.
pub fn write_request(series: &[(&str, &BTreeMap<String, String>, f64)], now: Timestamp) -> Vec<u8> {
    let mut message = Vec::new();
    for (metric, labels, value) in series {
        let name = (NAME, *metric);
        let labels = labels
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        let labels: Vec<_> = std::iter::once(name).chain(labels).collect();
        message.extend(one(&labels, &[(now.as_millisecond(), *value)]));
    }
    pack(&message)
}

/// One series as a field of the message.
pub(super) fn one(labels: &[(&str, &str)], samples: &[(i64, f64)]) -> Vec<u8> {
    let mut series = Vec::new();
    for (name, value) in labels {
        let mut label = Vec::new();
        bytes(&mut label, 1, name.as_bytes());
        bytes(&mut label, 2, value.as_bytes());
        bytes(&mut series, 1, &label);
    }
    for (at_ms, value) in samples {
        let mut sample = vec![(1 << 3) | 1];
        sample.extend(value.to_bits().to_le_bytes());
        sample.push(2 << 3);
        varint(&mut sample, u64::from_ne_bytes(at_ms.to_ne_bytes()));
        bytes(&mut series, 2, &sample);
    }
    let mut message = Vec::new();
    bytes(&mut message, 1, &series);
    message
}

/// A snappy block of nothing but new bytes.
pub(super) fn pack(plain: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    varint(&mut packed, plain.len() as u64);
    for run in plain.chunks(RUN_BYTES) {
        packed.push(((run.len() - 1) << 2) as u8);
        packed.extend_from_slice(run);
    }
    packed
}

fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn bytes(out: &mut Vec<u8>, field: u64, content: &[u8]) {
    varint(out, (field << 3) | 2);
    varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

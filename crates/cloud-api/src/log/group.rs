//! Log groups: what PutLogs carries and what is stored, and their protobuf form.
//!
//! Values may be any bytes on the wire; they become text here, with what is no UTF-8 replaced.

pub use super::wire::WireError;
use super::wire::{Fields, Value, put_bytes, put_fixed32, put_tagged_number};

/// One log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// Unix seconds.
    pub time: u32,
    /// Nanoseconds within the second.
    pub time_ns: u32,
    /// Keys and values in their order.
    pub contents: Vec<(String, String)>,
}

/// Logs that have topic, source and tags in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogGroup {
    /// The logs.
    pub logs: Vec<Log>,
    /// The topic, or empty.
    pub topic: String,
    /// Where they come from, or empty.
    pub source: String,
    /// Tags; each is a field `__tag__:<key>` of every log.
    pub tags: Vec<(String, String)>,
}

impl LogGroup {
    /// The protobuf form.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut one = Vec::new();
        let mut pair = Vec::new();
        for log in &self.logs {
            one.clear();
            put_tagged_number(&mut one, 1, log.time.into());
            for (key, value) in &log.contents {
                encode_pair(&mut pair, key, value);
                put_bytes(&mut one, 2, &pair);
            }
            if log.time_ns != 0 {
                put_fixed32(&mut one, 4, log.time_ns);
            }
            put_bytes(&mut out, 1, &one);
        }
        for (field, text) in [(3, &self.topic), (4, &self.source)] {
            if !text.is_empty() {
                put_bytes(&mut out, field, text.as_bytes());
            }
        }
        for (key, value) in &self.tags {
            encode_pair(&mut pair, key, value);
            put_bytes(&mut out, 6, &pair);
        }
        out
    }

    /// Reads the protobuf form.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut group = Self::default();
        let mut fields = Fields(bytes);
        while let Some((field, value)) = fields.next()? {
            match (field, value) {
                (1, Value::Bytes(bytes)) => group.logs.push(decode_log(bytes)?),
                (3, value) => value.text(field)?.clone_into(&mut group.topic),
                (4, value) => value.text(field)?.clone_into(&mut group.source),
                (6, Value::Bytes(bytes)) => group.tags.push(decode_pair("LogTag", bytes)?),
                // Reserved, the machine's id, and fields of later versions.
                _ => {}
            }
        }
        Ok(group)
    }
}

/// Encodes several groups, as pulling them by cursor answers.
pub fn encode_list(groups: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    for group in groups {
        put_bytes(&mut out, 1, group);
    }
    out
}

fn encode_pair(pair: &mut Vec<u8>, key: &str, value: &str) {
    pair.clear();
    put_bytes(pair, 1, key.as_bytes());
    put_bytes(pair, 2, value.as_bytes());
}

fn decode_log(bytes: &[u8]) -> Result<Log, WireError> {
    let mut log = Log::default();
    let mut has_time = false;
    let mut fields = Fields(bytes);
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (1, Value::Number(time)) => {
                log.time = u32::try_from(time).map_err(|_| WireError::Overlong)?;
                has_time = true;
            }
            (2, Value::Bytes(bytes)) => log.contents.push(decode_pair("Content", bytes)?),
            (4, Value::Fixed32(nanoseconds)) => log.time_ns = nanoseconds,
            _ => {}
        }
    }
    if !has_time {
        return Err(WireError::Missing {
            message: "Log",
            field: "Time",
        });
    }
    Ok(log)
}

fn decode_pair(message: &'static str, bytes: &[u8]) -> Result<(String, String), WireError> {
    let (mut key, mut text) = (None, None);
    let mut fields = Fields(bytes);
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (1, value) => key = Some(value.text(field)?.to_owned()),
            (2, Value::Bytes(bytes)) => text = Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => {}
        }
    }
    let missing = |field| WireError::Missing { message, field };
    Ok((
        key.ok_or_else(|| missing("Key"))?,
        text.ok_or_else(|| missing("Value"))?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn example() -> LogGroup {
        LogGroup {
            logs: vec![Log {
                time: 1_704_164_645,
                time_ns: 0x0bcf_1400,
                contents: vec![("device_id".to_owned(), "d1".to_owned())],
            }],
            topic: "topic".to_owned(),
            source: "src".to_owned(),
            tags: Vec::new(),
        }
    }

    #[test]
    fn the_reference_example_is_written_and_read() {
        let text = "0a1c08a5facdac06120f0a096465766963655f6964120264312500\
                    14cf0b1a05746f7069632203737263";
        let bytes = example().encode();
        assert_eq!(crate::encoding::hex(&bytes), text);
        assert_eq!(LogGroup::decode(&bytes), Ok(example()));
    }

    #[test]
    fn what_is_missing_or_cut_off_is_told() {
        let no_time = [0x0a, 0x00];
        assert_eq!(
            LogGroup::decode(&no_time).unwrap_err().to_string(),
            "mandatory field Time of Log is missing"
        );
        let bytes = example().encode();
        assert!(LogGroup::decode(&bytes[..bytes.len() - 1]).is_err());
        assert_eq!(
            LogGroup::decode(&[0x0b]),
            Err(WireError::Kind { field: 1, kind: 3 })
        );
    }

    #[test]
    fn values_of_any_bytes_and_fields_of_later_versions_are_taken() {
        let mut one = vec![
            0x08, 0x01, 0x12, 0x07, 0x0a, 0x01, b'k', 0x12, 0x02, 0xff, b'x',
        ];
        one.extend([0x78, 0x05]);
        let mut bytes = vec![0x0a, u8::try_from(one.len()).unwrap()];
        bytes.extend(one);
        let group = LogGroup::decode(&bytes).unwrap();
        assert_eq!(group.logs[0].contents[0].1, "\u{fffd}x");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            logs in proptest::collection::vec((any::<u32>(), any::<u32>(), proptest::collection::vec((".{0,9}", ".{0,9}"), 0..4)), 0..4),
            topic in ".{0,9}",
            tags in proptest::collection::vec((".{0,9}", ".{0,9}"), 0..3),
        ) {
            let logs = logs.into_iter().map(|(time, time_ns, contents)| Log { time, time_ns, contents }).collect();
            let group = LogGroup { logs, topic, source: String::new(), tags };
            prop_assert_eq!(LogGroup::decode(&group.encode()).unwrap(), group);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = LogGroup::decode(&bytes);
        }
    }
}

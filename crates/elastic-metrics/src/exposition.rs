//! Reads Prometheus' text format. Lines that are not understood are skipped.

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line<'t> {
    pub(crate) name: &'t str,
    labels: &'t str,
    pub(crate) value: f64,
    /// Milliseconds since 1970.
    pub(crate) time: Option<i64>,
}

impl<'t> Line<'t> {
    /// A label's value. Names of Kubernetes objects need no escapes, so escaped values are returned as written.
    pub(crate) fn label(&self, name: &str) -> Option<&'t str> {
        let mut rest = self.labels;
        loop {
            let (key, after) = rest.split_once("=\"")?;
            let end = end_of_value(after)?;
            if key.trim_start_matches([',', ' ']) == name {
                return Some(&after[..end]);
            }
            rest = &after[end + 1..];
        }
    }
}

fn end_of_value(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'\\' if !escaped => escaped = true,
            b'"' if !escaped => return Some(index),
            _ => escaped = false,
        }
    }
    None
}

/// All understood lines of `text` whose value is a number.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    all_lines(text).filter(|line| line.value.is_finite())
}

/// All understood lines of `text`, NaN and infinities too.
pub(crate) fn all_lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(line)
}

fn line(text: &str) -> Option<Line<'_>> {
    let (head, tail) = match text.find('{') {
        Some(open) => {
            let close = open + closing_brace(&text[open..])?;
            ((&text[..open], &text[open + 1..close]), &text[close + 1..])
        }
        None => {
            let (name, tail) = text.split_once([' ', '\t'])?;
            ((name, ""), tail)
        }
    };
    let mut numbers = tail.split_ascii_whitespace();
    let value: f64 = numbers.next()?.parse().ok()?;
    let time = match numbers.next() {
        Some(time) => Some(time.parse().ok()?),
        None => None,
    };
    (!head.0.trim().is_empty()).then_some(Line {
        name: head.0.trim(),
        labels: head.1,
        value,
        time,
    })
}

fn closing_brace(text: &str) -> Option<usize> {
    let mut quoted = false;
    let mut escaped = false;
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'\\' if quoted && !escaped => {
                escaped = true;
                continue;
            }
            b'"' if !escaped => quoted = !quoted,
            b'}' if !quoted => return Some(index),
            _ => {}
        }
        escaped = false;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn kubelet_lines_are_read() {
        let text = "# HELP x y\n# TYPE container_cpu_usage_seconds_total counter\n\
            container_cpu_usage_seconds_total{container=\"web\",namespace=\"shop\",pod=\"web-1\"} 4.710169 1633253812125\n\
            node_memory_working_set_bytes 1.5e+08\n\
            odd{a=\"x}\\\"y\",b=\"z\"} 1\nbroken{ 1\nnothing\n";
        let lines: Vec<_> = lines(text).collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0].label("pod"), Some("web-1"));
        assert_eq!(lines[0].label("container"), Some("web"));
        assert_eq!(lines[0].label("absent"), None);
        assert_eq!(
            (lines[0].value, lines[0].time),
            (4.710169, Some(1_633_253_812_125))
        );
        assert_eq!(
            (lines[1].name, lines[1].value, lines[1].time),
            ("node_memory_working_set_bytes", 1.5e8, None)
        );
        assert_eq!(lines[2].label("b"), Some("z"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,200}") {
            for line in lines(&text) {
                let _ = line.label("pod");
            }
        }
    }
}

//! Keeps objects that lie still in a small form: thousands of pods run for hours, and nobody looks at them.
//!
//! An object is packed as compressed JSON against the text of one that was packed before, because pods of one owner differ
//! by little more than names, addresses and times: a few hundred bytes instead of the ten thousand of the open form.
//! What cannot be read back exactly as it was stays open.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{DefaultHasher, Hasher};
use std::io::Write;
use std::sync::Arc;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Texts that others are packed against.
const DICTIONARIES_MAX: usize = 256;
/// A dictionary by which a text does not become this many times smaller may have to make way for that text.
const WORTH: usize = 5;
/// What the compressor may add to a text that it cannot make smaller.
const SLACK_BYTES: usize = 64;

/// An object, open or packed.
pub(crate) enum Kept<T> {
    Open(Arc<T>),
    Packed(Packed),
}

impl<T> Clone for Kept<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Open(value) => Self::Open(value.clone()),
            Self::Packed(packed) => Self::Packed(packed.clone()),
        }
    }
}

impl<T> fmt::Debug for Kept<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Open(_) => "Kept::Open",
            Self::Packed(_) => "Kept::Packed",
        })
    }
}

impl<T: Default> Default for Kept<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> Kept<T> {
    pub(crate) fn new(value: T) -> Self {
        Self::Open(Arc::new(value))
    }

    /// The open form, when it is not packed.
    pub(crate) fn opened(&self) -> Option<&Arc<T>> {
        match self {
            Self::Open(value) => Some(value),
            Self::Packed(_) => None,
        }
    }

    /// Replaces exactly the open form that was packed.
    pub(crate) fn replace(&mut self, packed: PackedOf<T>) {
        if self
            .opened()
            .is_some_and(|value| Arc::ptr_eq(value, &packed.value))
        {
            *self = Self::Packed(packed.packed);
        }
    }
}

impl<T: DeserializeOwned> Kept<T> {
    pub(crate) fn get(&self) -> Arc<T> {
        match self {
            Self::Open(value) => value.clone(),
            Self::Packed(packed) => {
                let value = packed.open();
                Arc::new(value.expect("what is packed has been read back before"))
            }
        }
    }
}

/// A packed object. A clone has bytes of its own, in memory of its own.
#[derive(Clone)]
pub(crate) struct Packed {
    bytes: Box<[u8]>,
    text_bytes: usize,
    dictionary: Arc<[u8]>,
}

impl Packed {
    fn open<T: DeserializeOwned>(&self) -> Option<T> {
        let mut decompress = Decompress::new(false);
        decompress.set_dictionary(&self.dictionary).ok()?;
        let mut text = Vec::with_capacity(self.text_bytes + SLACK_BYTES);
        let end = decompress.decompress_vec(&self.bytes, &mut text, FlushDecompress::Finish);
        if end.ok()? != Status::StreamEnd {
            return None;
        }
        serde_json::from_slice(&text).ok()
    }
}

/// The packed form of one open object.
pub(crate) struct PackedOf<T> {
    value: Arc<T>,
    packed: Packed,
}

/// Packs, and remembers what it packed against.
#[derive(Default)]
pub(crate) struct Packer {
    /// By kinship, the latest first.
    dictionaries: VecDeque<(u64, Dictionary)>,
    /// Large, so it is kept from one object to the next but not while nothing is packed.
    compress: Option<Compress>,
}

/// What objects of one kinship are packed against.
#[derive(Clone)]
struct Dictionary {
    text: Arc<[u8]>,
    /// A text that is little like this one; it takes the place when it fits the next such text better. One odd object is
    /// no reason to keep its whole text.
    rival: Option<Arc<[u8]>>,
}

impl Packer {
    /// Nothing more is to be packed for now.
    pub(crate) fn rest(&mut self) {
        self.compress = None;
    }

    /// Objects of the same `kinship` are expected to be alike.
    pub(crate) fn pack<T>(&mut self, kinship: u64, value: &Arc<T>) -> Option<PackedOf<T>>
    where
        T: Serialize + DeserializeOwned + PartialEq,
    {
        let text = serde_json::to_vec(value).ok()?;
        let (bytes, dictionary) = self.against_the_best(kinship, &text)?;
        let packed = Packed {
            bytes: bytes.into(),
            text_bytes: text.len(),
            dictionary,
        };
        let same = packed.open::<T>().is_some_and(|read| read == **value);
        same.then(|| PackedOf {
            value: value.clone(),
            packed,
        })
    }

    fn against_the_best(&mut self, kinship: u64, text: &[u8]) -> Option<(Vec<u8>, Arc<[u8]>)> {
        let Some(known) = self.known(kinship) else {
            let first: Arc<[u8]> = text.into();
            self.learn(kinship, first.clone(), None);
            return Some((self.deflate(text, &first)?, first));
        };
        let bytes = self.deflate(text, &known.text)?;
        if bytes.len().saturating_mul(WORTH) <= text.len() {
            return Some((bytes, known.text));
        }
        let rival = match known.rival {
            Some(rival) => Some((self.deflate(text, &rival)?, rival)),
            None => None,
        };
        let better = rival.filter(|(other, _)| other.len().saturating_mul(2) <= bytes.len());
        if let Some((bytes, rival)) = better {
            self.learn(kinship, rival.clone(), Some(known.text));
            return Some((bytes, rival));
        }
        self.learn(kinship, known.text.clone(), Some(text.into()));
        Some((bytes, known.text))
    }

    fn known(&mut self, kinship: u64) -> Option<Dictionary> {
        let mut all = self.dictionaries.iter();
        let index = all.position(|(known, _)| *known == kinship)?;
        let found = self.dictionaries.remove(index)?;
        let dictionary = found.1.clone();
        self.dictionaries.push_front(found);
        Some(dictionary)
    }

    fn learn(&mut self, kinship: u64, text: Arc<[u8]>, rival: Option<Arc<[u8]>>) {
        self.dictionaries.retain(|(known, _)| *known != kinship);
        self.dictionaries
            .push_front((kinship, Dictionary { text, rival }));
        self.dictionaries.truncate(DICTIONARIES_MAX);
    }

    fn deflate(&mut self, text: &[u8], dictionary: &[u8]) -> Option<Vec<u8>> {
        let fresh = || Compress::new(Compression::fast(), false);
        let compress = self.compress.get_or_insert_with(fresh);
        compress.reset();
        compress.set_dictionary(dictionary).ok()?;
        let mut bytes = Vec::with_capacity(text.len() + SLACK_BYTES);
        let end = compress.compress_vec(text, &mut bytes, FlushCompress::Finish);
        (end.ok()? == Status::StreamEnd).then_some(bytes)
    }
}

/// A number by which two objects are told apart without keeping both.
pub(crate) fn fingerprint(value: &impl Serialize) -> u64 {
    let mut mark = Mark(DefaultHasher::new());
    // Neither writing into a hasher nor our own types fail; if one did, every object would count as changed.
    match serde_json::to_writer(&mut mark, value) {
        Ok(()) => mark.0.finish(),
        Err(_) => 0,
    }
}

struct Mark(DefaultHasher);

impl Write for Mark {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn pod(number: usize) -> Arc<Pod> {
        let pod = json!({
            "metadata": {"name": format!("shop-{number}"), "namespace": "n", "uid": format!("8a2d2b6e-{number:04}"),
                "labels": {"app": "shop", "pod-template-hash": "5d8f9c"}, "annotations": {"a": "x".repeat(300)}},
            "spec": {"containers": [{"name": "web", "image": "shop:1", "env": [{"name": "A", "value": "b"}],
                "resources": {"requests": {"cpu": "250m", "memory": "512Mi"}}}]},
            "status": {"phase": "Running", "podIP": format!("10.0.0.{}", number % 250)}
        });
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn alike_pods_take_a_fraction_and_come_back_as_they_were() {
        let mut packer = Packer::default();
        let pods: Vec<_> = (0..20).map(pod).collect();
        for pod in &pods {
            let mut kept = Kept::Open(pod.clone());
            let packed = packer.pack(1, pod).unwrap();
            let bytes = packed.packed.bytes.len();
            assert!(bytes < 120, "{bytes} bytes");
            kept.replace(packed);
            assert!(kept.opened().is_none());
            assert_eq!(kept.get(), *pod);
        }
        assert_eq!(packer.dictionaries.len(), 1);
    }

    #[test]
    fn a_newer_form_is_never_replaced_by_an_older_one() {
        let (old, new) = (pod(1), pod(2));
        let packed = Packer::default().pack(1, &old).unwrap();
        let mut kept = Kept::Open(new.clone());
        kept.replace(packed);
        assert!(Arc::ptr_eq(&kept.get(), &new));
    }

    #[test]
    fn dictionaries_are_bounded_and_the_least_used_goes() {
        let mut packer = Packer::default();
        let first = Kept::Packed(packer.pack(0, &pod(0)).unwrap().packed);
        for kinship in 1..2 * DICTIONARIES_MAX as u64 {
            packer.pack(kinship, &pod(1)).unwrap();
        }
        assert_eq!(packer.dictionaries.len(), DICTIONARIES_MAX);
        assert_eq!(first.get(), pod(0));
    }

    proptest! {
        #[test]
        fn whatever_is_packed_comes_back(texts in prop::collection::vec(".{0,400}", 1..6)) {
            let mut packer = Packer::default();
            for text in texts {
                let value = Arc::new(vec![text.clone(), text]);
                let packed = packer.pack(7, &value).unwrap();
                prop_assert_eq!(Kept::<Vec<String>>::Packed(packed.packed).get(), value);
            }
        }

        #[test]
        fn equal_objects_have_equal_marks(text in ".{0,40}", other in ".{0,40}") {
            prop_assert_eq!(fingerprint(&text) == fingerprint(&other), text == other);
        }
    }
}

//! Values found by a few texts: without a lock when they are there, made under one when they are not.

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::sync::Arc;

/// More entries than this become one, all of whose texts are `overflow`.
pub const MAX_SERIES: usize = 4096;
const OVERFLOW: &str = "overflow";

/// A value with the texts that it is found by.
#[derive(Debug)]
pub(crate) struct Entry<V> {
    hash: u64,
    pub texts: Box<[Box<str>]>,
    pub value: Arc<V>,
}

/// Few values that are asked for often, and never many of them.
#[derive(Debug)]
pub struct Memo<V> {
    /// In the order of their hashes; copied when one is added, which is rare.
    entries: ArcSwap<Vec<Arc<Entry<V>>>>,
    adding: Mutex<()>,
}

impl<V> Default for Memo<V> {
    fn default() -> Self {
        Self { entries: ArcSwap::default(), adding: Mutex::new(()) }
    }
}

/// Eight bytes at a time: the texts come from small sets, and every request looks some of them up.
fn hash(texts: &[&str]) -> u64 {
    let mix = |sum: u64, word: u64| (sum.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    texts.iter().fold(0, |sum, text| {
        let (words, rest) = text.as_bytes().as_chunks::<8>();
        let sum = words.iter().fold(sum, |sum, word| mix(sum, u64::from_le_bytes(*word)));
        let last = rest.iter().fold(text.len() as u64, |last, byte| last << 8 | u64::from(*byte));
        mix(sum, last)
    })
}

fn find<V>(entries: &[Arc<Entry<V>>], hash: u64, texts: &[&str]) -> Option<Arc<V>> {
    let from = entries.partition_point(|e| e.hash < hash);
    let same = |e: &&Arc<Entry<V>>| e.texts.iter().map(|v| &**v).eq(texts.iter().copied());
    entries[from..].iter().take_while(|e| e.hash == hash).find(same).map(|e| e.value.clone())
}

impl<V> Memo<V> {
    /// The value of these texts, which `make` makes when there is none. It gets the texts that the value is kept by:
    /// they are others when there are too many already.
    pub fn with(&self, texts: &[&str], make: impl FnOnce(&[&str]) -> V) -> Arc<V> {
        let hash = hash(texts);
        if let Some(found) = find(&self.entries.load(), hash, texts) {
            return found;
        }
        self.add(hash, texts, make)
    }

    fn add(&self, sum: u64, texts: &[&str], make: impl FnOnce(&[&str]) -> V) -> Arc<V> {
        let _one_at_a_time = self.adding.lock();
        let present = self.entries.load();
        if let Some(found) = find(&present, sum, texts) {
            return found;
        }
        let overflow = vec![OVERFLOW; texts.len()];
        let (sum, texts) = match present.len() < MAX_SERIES {
            true => (sum, texts),
            false => (hash(&overflow), overflow.as_slice()),
        };
        if let Some(found) = find(&present, sum, texts) {
            return found;
        }
        let value = Arc::new(make(texts));
        let texts = texts.iter().map(|v| Box::from(*v)).collect();
        let mut entries = present.to_vec();
        let at = entries.partition_point(|e| e.hash < sum);
        entries.insert(at, Arc::new(Entry { hash: sum, texts, value: value.clone() }));
        self.entries.store(Arc::new(entries));
        value
    }

    pub(crate) fn entries(&self) -> Arc<Vec<Arc<Entry<V>>>> {
        self.entries.load_full()
    }

    pub(crate) fn retain(&self, keep: impl Fn(&[Box<str>]) -> bool) {
        let _one_at_a_time = self.adding.lock();
        let left = self.entries.load().iter().filter(|e| keep(&e.texts)).cloned().collect();
        self.entries.store(Arc::new(left));
    }
}

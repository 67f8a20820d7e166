//! What is remembered between the two passes of mutation: those who ask for it see what others changed after them.

use serde_json::Value;
use std::collections::HashSet;
use std::hash::Hash;

/// The passes of hooks or policies over one write; a key names one of them.
pub struct Reinvocation<Key> {
    second: bool,
    /// Those with `IfNeeded` that were called already.
    called: HashSet<Key>,
    /// Those of them after which the object was changed.
    again: HashSet<Key>,
    last: Option<Value>,
    wanted: bool,
}

impl<Key> Default for Reinvocation<Key> {
    fn default() -> Self {
        Self { second: false, called: HashSet::new(), again: HashSet::new(), last: None, wanted: false }
    }
}

impl<Key: Hash + Eq> Reinvocation<Key> {
    /// Whether something was changed, so that all that mutates goes over the object once more.
    pub fn is_wanted(&self) -> bool {
        self.wanted && !self.second
    }

    /// The second pass begins.
    pub fn begin_second(&mut self) {
        self.second = true;
    }

    /// 0 in the first pass, 1 in the second.
    pub(crate) fn round(&self) -> u8 {
        u8::from(self.second)
    }

    /// A pass begins with this object, which others may have changed since the last one.
    pub(crate) fn begin(&mut self, object: &Option<Value>) {
        if self.second && self.last != *object {
            self.again.extend(self.called.drain());
        }
    }

    /// Whether one is left out: a second time nobody is asked for whom nothing has changed.
    pub(crate) fn skips(&self, key: &Key) -> bool {
        self.second && !self.again.contains(key)
    }

    /// One of them changed the object.
    pub(crate) fn changed(&mut self) {
        self.again.extend(self.called.drain());
        self.wanted = true;
    }

    /// One that wants to see later changes was called.
    pub(crate) fn called(&mut self, key: Key) {
        self.called.insert(key);
    }

    /// The pass ends with this object.
    pub(crate) fn end(&mut self, object: &Option<Value>) {
        self.last.clone_from(object);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn those_that_were_called_before_a_change_are_called_again() {
        let mut state = Reinvocation::default();
        let (before, after) = (Some(json!(1)), Some(json!(2)));
        state.begin(&before);
        state.called("early");
        state.changed();
        state.called("late");
        state.end(&before);
        assert!(state.is_wanted() && !state.skips(&"late"), "in the first pass everybody is called");
        state.begin_second();
        state.begin(&before);
        assert!(!state.skips(&"early") && state.skips(&"late"));
        state.begin(&after);
        assert!(!state.skips(&"late"), "somebody else changed the object in between");
        assert!(!state.is_wanted(), "there is no third pass");
    }
}

//! Writes JSON text as it goes: a document of megabytes is never a tree.

/// The text so far.
#[derive(Default)]
pub(super) struct Json {
    text: String,
}

impl Json {
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.text.into_bytes()
    }

    /// A comma, where one is due.
    fn separate(&mut self) {
        if !matches!(self.text.as_bytes().last(), None | Some(b'{' | b'[' | b':' | b',')) {
            self.text.push(',');
        }
    }

    /// Writes a key; its value is written next.
    pub(super) fn key(&mut self, key: &str) -> &mut Self {
        self.string(key);
        self.text.push(':');
        self
    }

    pub(super) fn object(&mut self, fill: impl FnOnce(&mut Self)) {
        self.separate();
        self.text.push('{');
        fill(self);
        self.text.push('}');
    }

    pub(super) fn array(&mut self, fill: impl FnOnce(&mut Self)) {
        self.separate();
        self.text.push('[');
        fill(self);
        self.text.push(']');
    }

    pub(super) fn string(&mut self, value: &str) {
        self.separate();
        self.text.push_str(&serde_json::Value::from(value).to_string());
    }

    pub(super) fn strings<'a>(&mut self, values: impl IntoIterator<Item = &'a str>) {
        self.array(|json| values.into_iter().for_each(|value| json.string(value)));
    }

    /// Writes text that is JSON already.
    pub(super) fn raw(&mut self, json: &str) {
        self.separate();
        self.text.push_str(json);
    }
}

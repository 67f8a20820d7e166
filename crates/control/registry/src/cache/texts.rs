//! A few short texts in one allocation: every cached object has some, and most of them are a few bytes long.

/// Texts in their order. Each is kept as its length, seven bits to a byte, and its bytes.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Texts(Box<[u8]>);

impl<'a> FromIterator<&'a str> for Texts {
    fn from_iter<I: IntoIterator<Item = &'a str>>(texts: I) -> Self {
        let mut bytes = Vec::new();
        for text in texts {
            let mut length = text.len();
            while length >= 0x80 {
                bytes.push(length as u8 | 0x80);
                length >>= 7;
            }
            bytes.push(length as u8);
            bytes.extend_from_slice(text.as_bytes());
        }
        Self(bytes.into())
    }
}

impl Texts {
    pub(crate) fn iter(&self) -> Iter<'_> {
        Iter(&self.0)
    }

    pub(crate) fn get(&self, at: usize) -> Option<&str> {
        self.iter().nth(at)
    }
}

impl std::fmt::Debug for Texts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

pub(crate) struct Iter<'a>(&'a [u8]);

impl<'a> Iterator for Iter<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let (mut length, mut shift) = (0, 0);
        loop {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_as_they_went() {
        let long = "x".repeat(20_000);
        for texts in [vec![], vec![""], vec!["a", "", "ä", &long, "b"]] {
            let kept: Texts = texts.iter().copied().collect();
            assert_eq!(kept.iter().collect::<Vec<_>>(), texts);
            assert_eq!(kept.get(texts.len()), None);
        }
    }
}

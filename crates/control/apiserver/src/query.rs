//! A request's query: read once, asked by name.

use pintle_types::Status;

/// More parameters than any client sends.
const MAX_PARAMETERS: usize = 1000;

/// Parameters in the order of the request; a name can be there several times.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(text: &str) -> Self {
        Self(pintle_types::query::pairs(text, MAX_PARAMETERS).collect())
    }

    /// The first value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The first value of a name; empty when there is none.
    pub fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// A boolean as upstream's conversion reads it: absent, `false` and `0` are false, all else is true.
    pub fn flag(&self, name: &str) -> bool {
        self.optional_flag(name).unwrap_or(false)
    }

    pub fn optional_flag(&self, name: &str) -> Option<bool> {
        self.get(name).map(|v| !matches!(v.to_ascii_lowercase().as_str(), "false" | "0"))
    }

    /// A whole number; a text that is none is a bad request.
    pub fn number(&self, name: &str) -> Result<Option<i64>, Box<Status>> {
        match self.get(name) {
            None | Some("") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| {
                Box::new(Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_and_repeated_names_kept() {
        let query = Query::parse("command=a&command=b%20c&watch=1&x=False&labelSelector=a+in+(b)");
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["a", "b c"]);
        assert!(query.flag("watch"));
        assert!(!query.flag("x"));
        assert_eq!(query.text("labelSelector"), "a in (b)");
        assert_eq!(query.number("watch").unwrap(), Some(1));
        assert!(query.number("x").is_err());
    }
}

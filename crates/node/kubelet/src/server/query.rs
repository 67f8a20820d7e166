//! Reads the parameters of requests.

/// A request has that many parameters at most: each word of a command is one.
const MAX_PARAMETERS: usize = 10_000;

/// The parameters of a query, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(text: &str) -> Self {
        Self(pintle_types::query::pairs(text, MAX_PARAMETERS).collect())
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(n, _)| n == name).map(|(_, v)| v.clone()).collect()
    }

    /// `true` and `1` are true.
    pub fn is_set(&self, name: &str) -> bool {
        matches!(self.get(name), Some("true" | "1"))
    }

    /// A number that is not negative; an error in words when it is none.
    pub fn number(&self, name: &str) -> Result<Option<u64>, String> {
        let Some(text) = self.get(name).filter(|t| !t.is_empty()) else { return Ok(None) };
        text.parse()
            .map(Some)
            .map_err(|_| format!("invalid value {text:?} of {name}: must be a whole number, 0 or more"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let query = Query::parse("command=sh&command=-c&command=echo+a%20b&tty=1&n=5&bad=-1&empty");
        assert_eq!(query.all("command"), ["sh", "-c", "echo a b"]);
        assert!(query.is_set("tty") && !query.is_set("n") && !query.is_set("empty"));
        assert_eq!(query.number("n"), Ok(Some(5)));
        assert_eq!(query.number("none"), Ok(None));
        assert!(query.number("bad").is_err());
    }
}

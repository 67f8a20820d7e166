//! Requests without credentials: let on as nobody, refused, or let on for some paths only.

/// What is done with requests without credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anonymous {
    pub enabled: bool,
    /// The only paths for which it counts; empty is all.
    pub paths: Vec<String>,
}

impl Default for Anonymous {
    fn default() -> Self {
        Self { enabled: true, paths: Vec::new() }
    }
}

impl Anonymous {
    pub fn admits(&self, path: &str) -> bool {
        self.enabled && (self.paths.is_empty() || self.paths.iter().any(|p| p == path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_name_whole_paths() {
        assert!(Anonymous::default().admits("/api"));
        let some = Anonymous { enabled: true, paths: vec!["/livez".into()] };
        assert!(some.admits("/livez") && !some.admits("/livez/ping") && !some.admits("/api"));
        assert!(!Anonymous { enabled: false, paths: Vec::new() }.admits("/livez"));
    }
}

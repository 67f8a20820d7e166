//! Which ids of a user namespace are which outside, as runtimes and kubelets write it down.

use serde::{Deserialize, Serialize};

/// Which ids of a user namespace are which outside (user_namespaces(7)).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMappings {
    pub users: Vec<IdRange>,
    pub groups: Vec<IdRange>,
}

/// `size` ids from `inside` on are those from `outside` on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    pub inside: u32,
    pub outside: u32,
    pub size: u32,
}

impl IdMappings {
    /// Users and groups alike: the ids from 0 on are those from `outside` on.
    pub fn from_root(outside: u32, size: u32) -> Self {
        let range = vec![IdRange { inside: 0, outside, size }];
        Self { users: range.clone(), groups: range }
    }

    /// Whether there is no user namespace at all.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.groups.is_empty()
    }
}

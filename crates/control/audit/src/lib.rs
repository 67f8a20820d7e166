//! Who did what: the audit policy, its events, and where they are written.

//! The table of every built-in kind, and what is particular to each: defaults, validation, columns.

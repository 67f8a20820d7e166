//! Hooks are asked as upstream asks them, and their answers mean what they mean there.

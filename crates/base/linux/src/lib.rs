//! Wraps the Linux system calls that containers need, and is the only place beside the start path with `unsafe`.

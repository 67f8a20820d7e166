//! Installs seccomp programs that were compiled elsewhere.

use crate::process::check;
use crate::{Context, Error, Result};

/// The kernel takes at most BPF_MAXINSNS instructions.
const MAX_INSTRUCTIONS: usize = 4096;

/// Installs a classic BPF program, each instruction as the eight bytes of a `sock_filter` in native order. The thread
/// needs CAP_SYS_ADMIN or no-new-privileges (seccomp(2)).
///
/// # Errors
/// An empty or too long program is refused, never taken as "nothing to filter" (CVE-2023-2431).
pub fn install(program: &[u64]) -> Result<()> {
    if program.is_empty() || program.len() > MAX_INSTRUCTIONS {
        return Err(Error::invalid("install a seccomp filter", "it has no or too many instructions"));
    }
    let mut filter: Vec<libc::sock_filter> = program.iter().map(|raw| decode(raw.to_ne_bytes())).collect();
    let header = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: `header` and the instructions it points to outlive the call, and the length is theirs.
    let done = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const header) };
    check(done).map(drop).context(|| "install a seccomp filter")
}

fn decode(raw: [u8; 8]) -> libc::sock_filter {
    libc::sock_filter {
        code: u16::from_ne_bytes([raw[0], raw[1]]),
        jt: raw[2],
        jf: raw[3],
        k: u32::from_ne_bytes([raw[4], raw[5], raw[6], raw[7]]),
    }
}

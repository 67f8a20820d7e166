//! The program's heap: where glibc takes memory from, and when it gives back what is free.
//!
//! Each thread that allocates gets an arena of glibc's, up to eight for each processor, and what is free in one serves
//! no other. A server that now and then waits for the kernel in many threads leaves holes in all of them: with an arena
//! for each thread that is busy all the time its memory is less by a tenth to a sixth.

/// Arenas that a program has at most on a machine with so many processors: one for each worker, for the first thread and
/// for the writer of the store. With fewer the busy threads wait for each other.
const fn arenas(processors: usize) -> i32 {
    if processors < 14 { processors as i32 + 2 } else { 16 }
}

/// Limits the arenas. To be called before the first thread is started; it has no effect beside another libc.
pub fn limit_arenas() {
    #[cfg(target_env = "gnu")]
    {
        let processors = rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count() as usize);
        // SAFETY: sets a number of the allocator, under its lock; the worst that can come of it is that it says no.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, arenas(processors)) };
    }
}

/// Gives the pages that are free in the heap back to the system, but for some at its ends. Takes some milliseconds for
/// each 100 MiB, during which allocations of other threads may have to wait. Says whether any were.
pub fn give_back() -> bool {
    #[cfg(target_env = "gnu")]
    {
        /// What stays at the end of the heap, for the next allocations.
        const PAD_BYTES: usize = 256 << 10;
        // SAFETY: walks the free lists of the allocator under its locks, and touches nothing that is in use.
        unsafe { libc::malloc_trim(PAD_BYTES) != 0 }
    }
    #[cfg(not(target_env = "gnu"))]
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_processors_have_more_arenas_but_not_many() {
        assert_eq!([1, 2, 4, 14, 64, 512].map(arenas), [3, 4, 6, 16, 16, 16]);
    }
}

//! Samples where this process spends its processor time.
//!
//! The kernel sends SIGPROF whenever the process has used one more period of processor time, to a thread that is running
//! (`ITIMER_PROF` of setitimer(2)); the handler notes where the program was. It writes to memory that is made by the
//! first profile and never given back, so that a signal that comes late finds it, and the handler stays: without it such
//! a signal would end the process.

use crate::{Context, Error, Result};
use std::ffi::{c_int, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Samples that one profile has at most: ten minutes of one processor at 100 a second.
const CAPACITY: usize = 60_000;

struct Buffer {
    /// Some [`Sampler`] has it.
    taken: AtomicBool,
    used: AtomicUsize,
    addresses: Box<[AtomicU64]>,
}

static BUFFER: OnceLock<Buffer> = OnceLock::new();

/// A profile that is being taken; the only one in the process.
#[derive(Debug)]
pub struct Sampler(());

/// What a profile found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Samples {
    /// Where the program was, once for each period of processor time.
    pub addresses: Vec<u64>,
    /// Periods that there was no room for.
    pub lost: usize,
}

impl Sampler {
    /// Begins to sample, once for every `period_us` microseconds of processor time; the kernel may do so less often.
    ///
    /// # Errors
    /// `ResourceBusy` while another profile is taken; otherwise what the kernel refuses.
    pub fn start(period_us: u32) -> Result<Self> {
        let buffer = BUFFER.get_or_init(|| Buffer {
            taken: AtomicBool::new(false),
            used: AtomicUsize::new(0),
            addresses: std::iter::repeat_with(AtomicU64::default).take(CAPACITY).collect(),
        });
        if buffer.taken.swap(true, Ordering::AcqRel) {
            return Err(Error::new("take a profile", std::io::Error::from(std::io::ErrorKind::ResourceBusy)));
        }
        let sampler = Self(());
        buffer.addresses.iter().for_each(|address| address.store(0, Ordering::Relaxed));
        buffer.used.store(0, Ordering::Release);
        handle_signals().context(|| "handle SIGPROF")?;
        set_timer(period_us).context(|| "set the timer of profiles")?;
        Ok(sampler)
    }

    pub fn stop(self) -> Samples {
        let mut samples = Samples::default();
        // Before the buffer is read: what comes from now on is of no profile.
        let _stopped = set_timer(0);
        if let Some(buffer) = BUFFER.get() {
            let used = buffer.used.load(Ordering::Acquire);
            samples.lost = used.saturating_sub(CAPACITY);
            let noted = buffer.addresses.iter().take(used).map(|address| address.load(Ordering::Relaxed));
            // One that is being written by another thread just now is still 0.
            samples.addresses = noted.filter(|address| *address != 0).collect();
        }
        samples
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        // It fails only for periods that make no sense.
        let _stopped = set_timer(0);
        if let Some(buffer) = BUFFER.get() {
            buffer.taken.store(false, Ordering::Release);
        }
    }
}

fn handle_signals() -> std::io::Result<()> {
    // SAFETY: all-zero is a valid sigaction: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = note as extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
    // SAFETY: the action is whole, and its handler calls nothing that is not safe in signal handlers.
    match unsafe { libc::sigaction(libc::SIGPROF, &action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// 0 stops the timer.
fn set_timer(period_us: u32) -> std::io::Result<()> {
    let period = libc::timeval { tv_sec: (period_us / 1_000_000).into(), tv_usec: (period_us % 1_000_000).into() };
    let timer = libc::itimerval { it_interval: period, it_value: period };
    // SAFETY: reads the timer given, and writes nothing back.
    match unsafe { libc::setitimer(libc::ITIMER_PROF, &timer, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Runs in the middle of anything: only loads and stores, no allocation, no lock, no system call.
extern "C" fn note(_signal: c_int, _info: *mut libc::siginfo_t, context: *mut c_void) {
    let Some(buffer) = BUFFER.get() else { return };
    let index = buffer.used.fetch_add(1, Ordering::Relaxed);
    if let (Some(slot), false) = (buffer.addresses.get(index), context.is_null()) {
        // SAFETY: with SA_SIGINFO the kernel gives a ucontext_t that lasts as long as the handler.
        let context = unsafe { &*context.cast::<libc::ucontext_t>() };
        slot.store(program_counter(context), Ordering::Relaxed);
    }
}

#[cfg(target_arch = "x86_64")]
fn program_counter(context: &libc::ucontext_t) -> u64 {
    context.uc_mcontext.gregs[libc::REG_RIP as usize].cast_unsigned()
}

#[cfg(target_arch = "aarch64")]
fn program_counter(context: &libc::ucontext_t) -> u64 {
    context.uc_mcontext.pc
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spends processor time until the profile has some samples.
    #[inline(never)]
    fn spin() -> u64 {
        let used = || BUFFER.get().map_or(0, |buffer| buffer.used.load(Ordering::Relaxed));
        let mut sum = 0_u64;
        while used() < 20 {
            for i in 0..100_000_u64 {
                sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(i));
            }
        }
        sum
    }

    #[test]
    fn work_is_seen_where_it_is_done_and_profiles_take_turns() {
        let sampler = Sampler::start(1000).expect("a profile");
        assert_eq!(Sampler::start(1000).expect_err("another").kind(), std::io::ErrorKind::ResourceBusy);
        spin();
        let samples = sampler.stop();
        assert!(samples.addresses.len() >= 20 && samples.lost == 0, "{samples:?}");
        let near = |address: &u64| address.abs_diff(spin as fn() -> u64 as usize as u64) < 64 << 20;
        assert!(samples.addresses.iter().any(near), "some of it is this program's: {samples:?}");
        assert!(Sampler::start(1000).expect("the next one").stop().addresses.len() < 20);
    }
}

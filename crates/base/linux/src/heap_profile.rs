//! Samples who holds the memory of the heap: a global allocator that remembers one allocation in so many bytes.
//!
//! While it is off, an allocation costs the reading of one flag more. While it is on, each thread counts down the bytes
//! that it allocates, and the allocation at which the count ends is remembered with its callers until it is freed; which
//! one that is has been drawn, so that every byte has the same chance. A freed address that was not remembered is told
//! by a small table of counters, without a lock. Source of the method: the profiles of tcmalloc and Go.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Callers that are remembered of an allocation.
const MAX_FRAMES: usize = 64;
/// Places that are told apart; what comes from others is counted together, without callers.
const MAX_PLACES: usize = 20_000;
/// Counters by which addresses that were not remembered are told.
const COUNTERS: usize = 8192;
/// The finest rate: finer ones would spend the time of the program on this.
const MIN_RATE: usize = 1024;

/// The system's allocator, with samples: `#[global_allocator] static HEAP: SampledHeap = SampledHeap;`.
#[derive(Debug)]
pub struct SampledHeap;

/// Bytes between two samples on average; 0 while it is off.
static RATE: AtomicUsize = AtomicUsize::new(0);
static REMEMBERED: [AtomicU8; COUNTERS] = [const { AtomicU8::new(0) }; COUNTERS];
static TABLE: Mutex<Option<Table>> = Mutex::new(None);

thread_local! {
    /// Bytes until the next sample.
    static LEFT: Cell<isize> = const { Cell::new(0) };
    /// State of the drawing; 0 before the first.
    static DRAWN: Cell<u64> = const { Cell::new(0) };
    /// This thread is busy with a sample: what it allocates meanwhile is nobody's.
    static BUSY: Cell<bool> = const { Cell::new(false) };
}

type Addresses<V> = HashMap<usize, V, BuildHasherDefault<DefaultHasher>>;

#[derive(Default)]
struct Table {
    places: Vec<Place>,
    /// By the digest of the callers.
    known: HashMap<u64, usize, BuildHasherDefault<DefaultHasher>>,
    /// Size and place of what is remembered, by address.
    live: Addresses<(usize, usize)>,
}

/// What was allocated from one place, as far as it was sampled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The return addresses, that of the innermost call first.
    pub callers: Box<[u64]>,
    pub allocations: u64,
    pub allocated_bytes: u64,
    pub frees: u64,
    pub freed_bytes: u64,
}

/// What the samples say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeapSamples {
    /// Bytes between two samples on average.
    pub rate: usize,
    pub places: Vec<Place>,
}

/// Begins to sample, one allocation in `rate` bytes; forgets earlier samples. False, and nothing changes, when samples
/// are being taken already.
pub fn start(rate: usize) -> bool {
    let mut table = table();
    if table.is_some() {
        return false;
    }
    busy(|| *table = Some(Table::default()));
    REMEMBERED.iter().for_each(|counter| counter.store(0, Ordering::Relaxed));
    RATE.store(rate.max(MIN_RATE), Ordering::Release);
    true
}

/// Ends what [`start`] began, and frees its memory.
pub fn stop() {
    RATE.store(0, Ordering::Release);
    let table = table().take();
    busy(|| drop(table));
}

/// What was found so far; nothing while no samples are taken.
pub fn samples() -> Option<HeapSamples> {
    let table = table();
    let rate = RATE.load(Ordering::Acquire);
    busy(|| Some(HeapSamples { rate, places: table.as_ref()?.places.clone() }))
}

fn table() -> MutexGuard<'static, Option<Table>> {
    // Nothing panics under the lock; were it so, samples would only be missing.
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn busy<T>(work: impl FnOnce() -> T) -> T {
    let before = BUSY.replace(true);
    let result = work();
    BUSY.set(before);
    result
}

// SAFETY: every method passes its arguments to the system's allocator and returns what that returns.
unsafe impl GlobalAlloc for SampledHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is passed on.
        let pointer = unsafe { System.alloc(layout) };
        allocated(pointer, layout.size());
        pointer
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is passed on.
        let pointer = unsafe { System.alloc_zeroed(layout) };
        allocated(pointer, layout.size());
        pointer
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        freed(pointer);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Before the address is somebody else's. When there is no room it stays allocated, and only its sample is gone.
        freed(pointer);
        // SAFETY: the caller's promise is passed on.
        let moved = unsafe { System.realloc(pointer, layout, size) };
        allocated(moved, size);
        moved
    }
}

#[inline]
fn allocated(pointer: *mut u8, size: usize) {
    let rate = RATE.load(Ordering::Relaxed);
    if rate != 0 {
        let left = LEFT.get() - size as isize;
        LEFT.set(left);
        if left < 0 {
            sample(pointer, size, rate);
        }
    }
}

#[inline]
fn freed(pointer: *mut u8) {
    if RATE.load(Ordering::Relaxed) != 0 && counter(pointer).load(Ordering::Relaxed) != 0 {
        forget(pointer);
    }
}

fn counter(pointer: *mut u8) -> &'static AtomicU8 {
    let mixed = (pointer as usize as u64 >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    &REMEMBERED[(mixed >> 51) as usize % COUNTERS]
}

#[cold]
#[inline(never)]
fn sample(pointer: *mut u8, size: usize, rate: usize) {
    let first = DRAWN.get() == 0;
    LEFT.set(draw(rate));
    // The count of a thread begins anywhere, not with its first allocation.
    if first || pointer.is_null() || BUSY.get() {
        return;
    }
    busy(|| {
        let mut frames = Frames { addresses: [0; MAX_FRAMES], used: 0 };
        // SAFETY: the function is given what it expects, and neither is used after the call.
        unsafe { _Unwind_Backtrace(frame, (&raw mut frames).cast()) };
        // The first ones are of this file; how many more are depends on what the compiler made of them.
        let callers = frames.addresses.get(2..frames.used).unwrap_or_default();
        if let Some(table) = &mut *table() {
            table.add(pointer, size, callers);
        }
    });
}

#[cold]
#[inline(never)]
fn forget(pointer: *mut u8) {
    if !BUSY.get() {
        busy(|| table().as_mut().map(|table| table.remove(pointer)));
    }
}

/// How many bytes until the next sample: of an exponential distribution, as if each byte were drawn for itself.
fn draw(rate: usize) -> isize {
    let mut state = DRAWN.get();
    if state == 0 {
        // Where the thread's own variables are differs from thread to thread.
        state = DRAWN.with(|place| (&raw const *place) as u64) | 1;
    }
    // Xorshift; source: Marsaglia, "Xorshift RNGs".
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    DRAWN.set(state);
    let part = ((state >> 11) + 1) as f64 / (1_u64 << 53) as f64;
    (-part.ln() * rate as f64) as isize
}

impl Table {
    fn add(&mut self, pointer: *mut u8, size: usize, callers: &[u64]) {
        let place = self.place(callers);
        let counts = &mut self.places[place];
        counts.allocations += 1;
        counts.allocated_bytes += size as u64;
        let counter = counter(pointer);
        // A counter that is full stays so, as does one whose sample is lost: at worst the lock is taken for nothing.
        let counted = counter.load(Ordering::Relaxed).saturating_add(1);
        counter.store(counted, Ordering::Relaxed);
        self.live.insert(pointer as usize, (size, place));
    }

    fn place(&mut self, callers: &[u64]) -> usize {
        let digest = self.known.hasher().hash_one(callers);
        if let Some(place) = self.known.get(&digest) {
            return *place;
        }
        let callers = if self.places.len() < MAX_PLACES { callers } else { &[] };
        let place = match self.places.last() {
            Some(last) if callers.is_empty() && last.callers.is_empty() => self.places.len() - 1,
            _ => {
                self.places.push(Place { callers: callers.into(), ..Place::default() });
                self.places.len() - 1
            }
        };
        if !callers.is_empty() {
            self.known.insert(digest, place);
        }
        place
    }

    fn remove(&mut self, pointer: *mut u8) {
        let Some((size, place)) = self.live.remove(&(pointer as usize)) else { return };
        let counts = &mut self.places[place];
        counts.frees += 1;
        counts.freed_bytes += size as u64;
        let counter = counter(pointer);
        let counted = counter.load(Ordering::Relaxed);
        if counted != u8::MAX {
            counter.store(counted.saturating_sub(1), Ordering::Relaxed);
        }
    }
}

struct Frames {
    addresses: [u64; MAX_FRAMES],
    used: usize,
}

// Of the library that unwinds panics, which every program of Rust has (Itanium C++ ABI, "Exception Handling").
unsafe extern "C" {
    fn _Unwind_Backtrace(each: extern "C" fn(*mut c_void, *mut c_void) -> c_int, argument: *mut c_void) -> c_int;
    fn _Unwind_GetIP(context: *mut c_void) -> usize;
}

extern "C" fn frame(context: *mut c_void, frames: *mut c_void) -> c_int {
    const GO_ON: c_int = 0;
    const END: c_int = 5;
    // SAFETY: it is what `sample` gave, and nobody else has it meanwhile.
    let frames = unsafe { &mut *frames.cast::<Frames>() };
    let Some(slot) = frames.addresses.get_mut(frames.used) else { return END };
    // SAFETY: the context is valid during this call.
    *slot = unsafe { _Unwind_GetIP(context) } as u64;
    frames.used += 1;
    GO_ON
}

impl Place {
    /// Allocations and bytes of which so many samples stand, when an allocation of `size` bytes is met with the chance
    /// that `rate` gives it.
    fn scaled(count: u64, bytes: u64, rate: usize) -> (u64, u64) {
        if count == 0 {
            return (0, 0);
        }
        let size = bytes as f64 / count as f64;
        let scale = 1.0 / -(-size / rate.max(1) as f64).exp_m1();
        ((count as f64 * scale) as u64, (bytes as f64 * scale) as u64)
    }

    /// All that was allocated here, estimated: how many, and bytes.
    pub fn allocated(&self, rate: usize) -> (u64, u64) {
        Self::scaled(self.allocations, self.allocated_bytes, rate)
    }

    /// What of it is in use, estimated: how many, and bytes.
    pub fn in_use(&self, rate: usize) -> (u64, u64) {
        let bytes = self.allocated_bytes.saturating_sub(self.freed_bytes);
        Self::scaled(self.allocations.saturating_sub(self.frees), bytes, rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[global_allocator]
    static HEAP: SampledHeap = SampledHeap;

    /// Of which address it is that holds much is what a profile is asked.
    #[inline(never)]
    // Each is an allocation of its own.
    #[allow(clippy::vec_box)]
    fn hold(count: usize) -> Vec<Box<[u8; 1000]>> {
        (0..count).map(|_| std::hint::black_box(Box::new([1; 1000]))).collect()
    }

    fn held() -> (u64, u64) {
        let samples = samples().expect("samples are taken");
        let begin = hold as fn(usize) -> Vec<Box<[u8; 1000]>> as usize as u64;
        let near = |address: &u64| (begin..begin + 4096).contains(address);
        let of_hold = samples.places.iter().filter(|place| place.callers.iter().any(near));
        of_hold.map(|place| place.in_use(samples.rate)).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    #[test]
    fn what_is_held_is_found_and_what_is_freed_is_forgotten() {
        assert!(samples().is_none());
        assert!(start(4096));
        assert!(!start(4096), "one at a time");
        let before = held().1;
        let boxes = hold(20_000);
        let (count, bytes) = held();
        let grown = bytes - before;
        assert!((15_000_000..25_000_000).contains(&grown), "{grown} of 20 MB, {count} allocations");
        drop(boxes);
        assert!(held().1 < before + 2_000_000, "{:?}", held());
        stop();
        assert!(samples().is_none());
        assert!(start(4096), "another time");
        stop();
    }

    #[test]
    fn samples_stand_for_what_was_not_sampled() {
        let place = Place { allocations: 10, allocated_bytes: 10_000, frees: 4, freed_bytes: 4000, ..Place::default() };
        // Small ones are met once in about `rate` bytes, large ones nearly always.
        assert_eq!(place.allocated(512 << 10), (5247, 5_247_881));
        assert_eq!(place.in_use(512 << 10).0, 3148);
        assert_eq!(place.allocated(10), (10, 10_000));
        assert_eq!(Place::default().in_use(1), (0, 0));
    }

    #[test]
    fn gaps_are_drawn_around_the_rate() {
        let sum: isize = (0..20_000).map(|_| draw(1000)).sum();
        assert!((900..1100).contains(&(sum / 20_000)), "{sum}");
    }

    #[test]
    fn places_beyond_the_bound_are_counted_together() {
        let mut table = Table::default();
        let mut byte = 0;
        for caller in 0..MAX_PLACES as u64 + 100 {
            table.add(&raw mut byte, 10, &[caller]);
        }
        assert_eq!(table.places.len(), MAX_PLACES + 1);
        assert_eq!(table.places[MAX_PLACES].allocations, 100);
    }
}

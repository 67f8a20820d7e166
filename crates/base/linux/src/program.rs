//! The program's own file in memory: what of its code and constants stays mapped.
//!
//! A page of the file is mapped when it is first needed, and fifteen around it with it; it stays although only the start
//! needed it. A big program that is idle has most of its code mapped so, and is told to use as much memory.

use std::ops::Range;

/// The smallest page of the machines that we know; ranges of addresses of one mapping end at whole pages.
const PAGE_BYTES: usize = 4096;

/// Lets go of the mapped pages of the program's code and constants. They stay in the kernel's cache of files, which it
/// can now use for others first; what runs takes back what it needs, some microseconds for each 64 KiB. A breakpoint
/// that a debugger has set is lost. Gives the bytes of address space that it was done for.
///
/// # Errors
/// The kernel's.
pub fn give_back() -> crate::Result<usize> {
    let ranges = unwritten();
    for range in &ranges {
        // SAFETY: the range is mapped from the program's file, and was never writable: its pages come from there anew,
        // with the same bytes.
        if unsafe { libc::madvise(range.start as *mut _, range.len(), libc::MADV_DONTNEED) } != 0 {
            let error = std::io::Error::last_os_error();
            return Err(crate::Error::new(format!("let go of the program's pages at {:#x}", range.start), error));
        }
    }
    Ok(ranges.iter().map(Range::len).sum())
}

/// The addresses of the program's segments that are never written to: what the loader relocates has private pages,
/// which are nowhere else.
fn unwritten() -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    // SAFETY: the callback gets the pointer that is given here, while this function runs.
    unsafe { libc::dl_iterate_phdr(Some(first_object), (&raw mut ranges).cast()) };
    ranges
}

/// Of the objects that are loaded the program itself comes first; not 0 ends the walk.
unsafe extern "C" fn first_object(info: *mut libc::dl_phdr_info, _: usize, into: *mut libc::c_void) -> libc::c_int {
    // SAFETY: the loader gives a valid description, and `into` is the list of `unwritten`.
    let (info, into) = unsafe { (&*info, &mut *into.cast::<Vec<Range<usize>>>()) };
    if info.dlpi_phdr.is_null() {
        return 1;
    }
    // SAFETY: the loader tells as many headers as there are.
    let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
    let segments = headers.iter().filter(|header| header.p_type == libc::PT_LOAD);
    for segment in segments.filter(|segment| segment.p_flags & libc::PF_W == 0) {
        into.push(whole_pages(info.dlpi_addr as usize + segment.p_vaddr as usize, segment.p_memsz as usize));
    }
    1
}

fn whole_pages(start: usize, bytes: usize) -> Range<usize> {
    start / PAGE_BYTES * PAGE_BYTES..(start + bytes).next_multiple_of(PAGE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_let_go_of_and_data_is_not() {
        static WRITTEN: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(1);
        let (code, data) = (give_back as fn() -> _ as usize, &raw const WRITTEN as usize);
        let ranges = unwritten();
        assert!(ranges.iter().any(|range| range.contains(&code)), "{ranges:x?} {code:x}");
        assert!(!ranges.iter().any(|range| range.contains(&data)), "{ranges:x?} {data:x}");
    }

    #[test]
    fn the_program_runs_on() {
        assert!(give_back().expect("the kernel takes it") > 100 << 10);
        assert_eq!(whole_pages(0x1234, 0x10), 0x1000..0x2000);
        assert_eq!(whole_pages(0x1000, 0x1001), 0x1000..0x3000);
    }
}

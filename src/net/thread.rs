//! Placement of a data thread.

use std::io;

/// Pins the calling thread to the `nth` core that this process may run on (modulo their number) and asks
/// for timers that are exact instead of 50 µs late.
///
/// # Errors
/// What the kernel answered; the thread then runs where it likes.
pub fn pin_to_core(nth: Option<usize>) -> io::Result<()> {
    // SAFETY: PR_SET_TIMERSLACK takes one integer and touches no memory of ours.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_000 as libc::c_ulong) };
    let Some(nth) = nth else { return Ok(()) };
    // SAFETY: an all-zero cpu_set_t is a valid empty set.
    let mut allowed: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::cpu_set_t>();
    // SAFETY: `allowed` is valid for `size` bytes.
    if unsafe { libc::sched_getaffinity(0, size, &mut allowed) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the index stays below CPU_SETSIZE.
    let cores: Vec<usize> =
        (0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &allowed) }).collect();
    let Some(&core) = cores.get(nth % cores.len().max(1)) else { return Ok(()) };
    // SAFETY: as above.
    let mut one: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `core` came from the set itself.
    unsafe { libc::CPU_SET(core, &mut one) };
    // SAFETY: `one` is valid for `size` bytes; 0 names the calling thread.
    if unsafe { libc::sched_setaffinity(0, size, &one) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

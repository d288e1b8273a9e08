//! Random bytes that nobody can guess: keys, cookies, socket ids.

/// As many as asked for, from the kernel.
///
/// # Panics
/// The kernel has none to give: nothing that needs a secret may go on then.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes once it has started");
    bytes
}

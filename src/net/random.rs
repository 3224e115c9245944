//! Random numbers from the system.

use std::io;

/// Bytes that nobody can guess.
///
/// # Errors
/// When the system has none to give.
pub fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(bytes)
}

/// Four words that nobody can guess.
///
/// # Errors
/// When the system has none to give.
pub fn words() -> io::Result<[u32; 4]> {
    let bytes: [u8; 16] = bytes()?;
    let mut words = [0; 4];
    for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = chunk
            .iter()
            .fold(0, |word, byte| word << 8 | u32::from(*byte));
    }
    Ok(words)
}

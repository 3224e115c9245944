//! The clocks: the only place that reads them. Everything else takes the time as an argument.

use std::time::{Duration, Instant};

use super::sys;

/// The time. Read once per turn, so that everything in a turn happens at one moment.
#[must_use]
pub fn now() -> Instant {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one clock that the rest of the crate is given"
    )]
    Instant::now()
}

/// CPU time that the calling thread has used so far, in user and kernel mode. What measurements divide by datagrams.
#[must_use]
pub fn thread_cpu_time() -> Duration {
    sys::thread_cpu_time()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_cpu_time() {
        let before = thread_cpu_time();
        let mut state = 1u64;
        while thread_cpu_time() == before {
            state = std::hint::black_box(state.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        }
        assert!(thread_cpu_time() > before);
        assert!(now() <= now());
    }
}

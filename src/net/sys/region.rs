//! Memory that the kernel reads and writes on its own: mapped, zeroed, at an address that never changes.
//!
//! Invariant: nobody else has a Rust reference to it while the kernel may use it, so it is reached by pointers only.
//! Pages cost nothing before they are touched.

use std::io;
use std::ptr::NonNull;

/// A mapping, private to this process.
pub(super) struct Region {
    address: NonNull<u8>,
    /// Zero when the memory has been given up for good.
    bytes: usize,
}

impl Region {
    /// Maps `count` zeroed values of type `T`, aligned to a page.
    pub(super) fn of<T>(count: usize) -> io::Result<Self> {
        let bytes = count
            .checked_mul(size_of::<T>())
            .filter(|bytes| *bytes > 0)
            .ok_or(io::ErrorKind::InvalidInput)?;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that exists.
        let mapped = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, flags, -1, 0) };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let address = NonNull::new(mapped.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { address, bytes })
    }

    /// Where value number `index` of type `T` lies.
    ///
    /// # Panics
    /// When there is no such value: an address outside must never reach the kernel.
    pub(super) fn at<T>(&self, index: usize) -> *mut T {
        assert!((index + 1) * size_of::<T>() <= self.bytes, "{index}");
        let base: *mut T = self.address.as_ptr().cast();
        base.wrapping_add(index)
    }

    /// Never unmaps the memory: the kernel may still use it.
    pub(super) fn leak(&mut self) {
        self.bytes = 0;
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if self.bytes > 0 {
            // SAFETY: `of` has mapped exactly these bytes, and nobody has been given a reference that outlives `self`.
            let returned = unsafe { libc::munmap(self.address.as_ptr().cast(), self.bytes) };
            debug_assert_eq!(returned, 0, "the mapping exists");
        }
    }
}

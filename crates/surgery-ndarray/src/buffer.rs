//! A pool of working memory. Fresh memory costs a page fault for every 4 KiB, which takes longer than most operations
//! on it.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard};

/// Minimum length in floats. The allocator itself reuses smaller blocks.
const MINIMUM: usize = 1 << 14;

/// The pool keeps at most this fraction (1/8) beyond the peak of memory in use.
pub(crate) const RESERVE: usize = 8;

/// Minimum size in bytes of blocks with pages of their own, which are returned to the system when freed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MMAP_THRESHOLD: i32 = 2 << 20;

/// Makes glibc always allocate large blocks by mmap. By default it stops doing so once one was freed, and allocates
/// the next ones on its heap, where blocks of varying sizes leave holes: after 600 steps, the heap was a quarter
/// larger than the memory in use.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "the allocator is a C library")]
pub(crate) fn map_large_blocks() {
    // SAFETY: it takes two numbers, at any time and from any thread. If it fails, nothing changes.
    let _ = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD) };
}

/// Does nothing for other allocators.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn map_large_blocks() {}

/// Free buffers, and the size of those in use.
struct Pool {
    /// Oldest first.
    free: Vec<Vec<f32>>,
    /// Number of floats in `free`, in buffers in use, and the peak of the latter.
    free_floats: usize,
    used: usize,
    most_used: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { free: Vec::new(), free_floats: 0, used: 0, most_used: 0 });

fn pool() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Pool {
    /// Takes the smallest free buffer that fits.
    fn take(&mut self, length: usize) -> Option<Vec<f32>> {
        let fits = |values: &Vec<f32>| values.len() >= length && values.len() / 2 <= length;
        let fitting = (0..self.free.len()).filter(|&i| fits(&self.free[i]));
        let best = fitting.min_by_key(|&i| self.free[i].len())?;
        let values = self.free.remove(best);
        self.free_floats -= values.len();
        Some(values)
    }

    fn use_more(&mut self, floats: usize) {
        self.used += floats;
        self.most_used = self.most_used.max(self.used);
    }

    /// Removes the oldest free buffers, so that the total stays near the peak in use.
    fn give_up(&mut self) -> Vec<Vec<f32>> {
        let mut given_up = Vec::new();
        while self.used + self.free_floats > self.most_used + self.most_used / RESERVE
            && !self.free.is_empty()
        {
            let values = self.free.remove(0);
            self.free_floats -= values.len();
            given_up.push(values);
        }
        given_up
    }
}

/// Floats that return to the pool when dropped.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    /// At least `length` floats.
    values: Vec<f32>,
    length: usize,
}

impl Buffer {
    /// `length` floats with arbitrary values.
    pub(crate) fn new(length: usize) -> Self {
        if length < MINIMUM {
            return Self { values: vec![0.0; length], length };
        }
        let mut pool = pool();
        if let Some(values) = pool.take(length) {
            pool.use_more(values.len());
            return Self { values, length };
        }
        // Lengths differ between batches; rounding makes buffers reusable. Unwritten pages take no memory.
        let whole = length.next_multiple_of((length.next_power_of_two() / 4).max(1));
        pool.use_more(whole);
        let given_up = pool.give_up();
        drop(pool);
        drop(given_up);
        Self { values: vec![0.0; whole], length }
    }

    /// `length` zeros.
    pub(crate) fn zeros(length: usize) -> Self {
        let mut buffer = Self::new(length);
        buffer.fill(0.0);
        buffer
    }

    /// Takes over a vector.
    pub(crate) fn adopt(mut values: Vec<f32>) -> Self {
        let length = values.len();
        if length >= MINIMUM {
            // Restores the part that [`into_vec`](Self::into_vec) cut off.
            values.resize(values.capacity(), 0.0);
            pool().use_more(values.len());
        }
        Self { values, length }
    }

    /// The floats as a vector, which leaves the pool.
    pub(crate) fn into_vec(mut self) -> Vec<f32> {
        let mut values = std::mem::take(&mut self.values);
        if values.len() >= MINIMUM {
            pool().used -= values.len();
        }
        values.truncate(self.length);
        values
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        let mut copy = Self::new(self.length);
        copy.copy_from_slice(self);
        copy
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let values = std::mem::take(&mut self.values);
        if values.len() >= MINIMUM {
            let mut pool = pool();
            pool.used -= values.len();
            pool.free_floats += values.len();
            pool.free.push(values);
        }
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values[..self.length]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values[..self.length]
    }
}

/// Copies a few values inline, since a call to memcpy would take longer.
#[inline(always)]
pub(crate) fn copy(from: &[f32], to: &mut [f32]) {
    let ((from, from_rest), (to, to_rest)) = (from.as_chunks::<16>(), to.as_chunks_mut::<16>());
    for (from, to) in from.iter().zip(to) {
        *to = *from;
    }
    if !from_rest.is_empty() {
        to_rest.copy_from_slice(from_rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_buffer_is_reused() {
        let length = MINIMUM * 37;
        let first = Buffer::new(length);
        let at = first.as_ptr();
        drop(first);
        // Another test may take it in between, so retry.
        let again = (0..100).any(|_| Buffer::new(length - 5).as_ptr() == at);
        assert!(again);
        assert_eq!(Buffer::zeros(length).iter().sum::<f32>(), 0.0);
    }

    #[test]
    fn the_pool_is_bounded_by_the_peak_in_use() {
        for factor in 1..60 {
            drop(Buffer::new(MINIMUM * factor * factor));
        }
        let pool = pool();
        assert!(
            pool.used + pool.free_floats <= pool.most_used + pool.most_used / RESERVE + MINIMUM * 60 * 60
        );
        assert_eq!(pool.free_floats, pool.free.iter().map(Vec::len).sum::<usize>());
    }
}

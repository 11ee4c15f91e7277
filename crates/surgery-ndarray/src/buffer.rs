//! Working memory that is used again: fresh memory costs a page fault for every 4 KiB, more than most of what is done
//! to it here.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard};

/// Shorter ones are left to the allocator, which keeps them itself.
const LEAST: usize = 1 << 14;

/// What is kept beyond the most that was in use at once is this part of it, at most.
pub(crate) const RESERVE: usize = 8;

/// Blocks of so many bytes get pages of their own, which go back to the system with them.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const PAGES_OF_ITS_OWN: i32 = 2 << 20;

/// Has glibc give large blocks pages of their own, always. By itself it stops once one was freed, and takes the next
/// from its heap, where batches of ever other lengths leave holes: after 600 steps a quarter more than was in use.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "the allocator is a C library")]
pub(crate) fn keep_large_blocks_apart() {
    // SAFETY: takes two numbers, at any time and from any thread; that it is refused does no harm.
    let _ = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, PAGES_OF_ITS_OWN) };
}

/// Other allocators are left as they are.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn keep_large_blocks_apart() {}

/// What is not in use, and how much is.
struct Pool {
    /// Oldest first.
    free: Vec<Vec<f32>>,
    /// Floats of `free`, those of buffers in use, and the most that ever were.
    free_floats: usize,
    used: usize,
    most_used: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { free: Vec::new(), free_floats: 0, used: 0, most_used: 0 });

fn pool() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Pool {
    /// The one that fits best, of those that fit.
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

    /// What has not fitted for longest is given up, so that all together never hold much more than was in use at once.
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

/// Floats that go back to where they came from.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    /// At least as long as the buffer.
    values: Vec<f32>,
    length: usize,
}

impl Buffer {
    /// `length` floats of arbitrary value.
    pub(crate) fn new(length: usize) -> Self {
        if length < LEAST {
            return Self { values: vec![0.0; length], length };
        }
        let mut pool = pool();
        if let Some(values) = pool.take(length) {
            pool.use_more(values.len());
            return Self { values, length };
        }
        // Lengths differ from batch to batch; rounded up they meet again. What is not written to takes no memory.
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

    /// Takes over what somebody else no longer needs.
    pub(crate) fn adopt(mut values: Vec<f32>) -> Self {
        let length = values.len();
        if length >= LEAST {
            // What [`into_vec`](Self::into_vec) cut off.
            values.resize(values.capacity(), 0.0);
            pool().use_more(values.len());
        }
        Self { values, length }
    }

    /// The floats, which do not come back.
    pub(crate) fn into_vec(mut self) -> Vec<f32> {
        let mut values = std::mem::take(&mut self.values);
        if values.len() >= LEAST {
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
        if values.len() >= LEAST {
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

/// Copies a few values, for which a call to the system's copy takes longer than the copy.
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
    fn what_is_dropped_is_used_again() {
        let length = LEAST * 37;
        let first = Buffer::new(length);
        let at = first.as_ptr();
        drop(first);
        // Another test may have taken it meanwhile; of a few tries one succeeds.
        let again = (0..100).any(|_| Buffer::new(length - 5).as_ptr() == at);
        assert!(again);
        assert_eq!(Buffer::zeros(length).iter().sum::<f32>(), 0.0);
    }

    #[test]
    fn what_is_kept_is_bounded_by_what_was_used() {
        for factor in 1..60 {
            drop(Buffer::new(LEAST * factor * factor));
        }
        let pool = pool();
        assert!(pool.used + pool.free_floats <= pool.most_used + pool.most_used / RESERVE + LEAST * 60 * 60);
        assert_eq!(pool.free_floats, pool.free.iter().map(Vec::len).sum::<usize>());
    }
}

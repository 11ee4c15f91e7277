//! Working memory that is used again: fresh memory costs a page fault for every 4 KiB, more than most of what is done
//! to it here.

use std::ops::{Deref, DerefMut};
use std::sync::Mutex;

/// Shorter ones are left to the allocator, which keeps them itself.
const LEAST: usize = 1 << 14;

/// What is not in use, oldest first.
static FREE: Mutex<Vec<Vec<f32>>> = Mutex::new(Vec::new());

/// Floats that go back to where they came from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Buffer {
    values: Vec<f32>,
}

impl Buffer {
    /// `length` floats of arbitrary value.
    pub(crate) fn new(length: usize) -> Self {
        if length < LEAST {
            return Self { values: vec![0.0; length] };
        }
        let mut free = FREE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let fits = |capacity: usize| capacity >= length && capacity <= length + length / 2;
        let best = (0..free.len()).filter(|&i| fits(free[i].capacity())).min_by_key(|&i| free[i].capacity());
        if let Some(index) = best {
            let mut values = free.remove(index);
            drop(free);
            values.resize(length, 0.0);
            return Self { values };
        }
        // Lengths differ from batch to batch; rounded up they meet again. What has not fitted is given up for what
        // is new, so that all together never hold more than was in use at once.
        let capacity = length.next_multiple_of((length.next_power_of_two() / 16).max(1));
        let mut given_up = 0;
        while given_up < capacity && !free.is_empty() {
            given_up += free.remove(0).capacity();
        }
        drop(free);
        let mut values = Vec::with_capacity(capacity);
        values.resize(length, 0.0);
        Self { values }
    }

    /// `length` zeros.
    pub(crate) fn zeros(length: usize) -> Self {
        let mut buffer = Self::new(length);
        buffer.fill(0.0);
        buffer
    }

    /// Takes over what somebody else no longer needs.
    pub(crate) fn adopt(values: Vec<f32>) -> Self {
        Self { values }
    }

    /// The floats, which do not come back.
    pub(crate) fn into_vec(mut self) -> Vec<f32> {
        std::mem::take(&mut self.values)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.values.capacity() >= LEAST {
            let mut free = FREE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            free.push(std::mem::take(&mut self.values));
        }
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values
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
}

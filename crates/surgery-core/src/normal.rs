//! Normally distributed values, computed in f64 on the host with all threads. They do not depend on the backend or
//! the number of threads.

use std::f64::consts::TAU;
use std::thread;

use rand::distr::{Distribution, StandardUniform};
use rand_chacha::ChaCha8Rng;

/// Minimum number of values for a thread.
const SHARE: usize = 1 << 16;

/// `count` values with mean 0 and this standard deviation.
pub(crate) fn normal(generator: &mut ChaCha8Rng, count: usize, deviation: f64) -> Vec<f32> {
    let mut values = vec![0.0; count.next_multiple_of(2)];
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let share = values.len().div_ceil(threads).next_multiple_of(2).max(SHARE);
    // Two values take two uniform numbers of two words each, so every thread knows its position in the stream.
    let begin = generator.get_word_pos();
    let place = |index: usize| begin + 2 * index as u128;
    thread::scope(|scope| {
        let mut shares = values.chunks_mut(share).zip((0..).step_by(share));
        let own = shares.next();
        for (values, index) in shares {
            let mut generator = generator.clone();
            generator.set_word_pos(place(index));
            scope.spawn(move || fill(values, &mut generator, deviation));
        }
        if let Some((values, _)) = own {
            fill(values, generator, deviation);
        }
    });
    generator.set_word_pos(place(values.len()));
    values.truncate(count);
    values
}

/// Fills an even number of values, in pairs (Box–Muller transform).
fn fill(values: &mut [f32], generator: &mut ChaCha8Rng, deviation: f64) {
    let mut uniform = || -> f64 { StandardUniform.sample(generator) };
    for pair in values.as_chunks_mut::<2>().0 {
        let radius = (-2.0 * (1.0 - uniform()).ln()).sqrt() * deviation;
        let angle = TAU * uniform();
        *pair = [(radius * angle.cos()) as f32, (radius * angle.sin()) as f32];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::seeded;

    #[test]
    fn values_do_not_depend_on_the_number_of_threads() {
        let (mut shared, mut alone) = (seeded(1, 2), seeded(1, 2));
        // Odd, small and empty counts are included: the next draw starts after the previous one.
        for count in [2 * SHARE + 3, 1, 0, 3, 5 * SHARE] {
            let mut expected = vec![0.0; count.next_multiple_of(2)];
            fill(&mut expected, &mut alone, 0.02);
            expected.truncate(count);
            assert_eq!(normal(&mut shared, count, 0.02), expected, "{count}");
        }
    }
}

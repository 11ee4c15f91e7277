//! Measuring beside other load: pauses between measurements, and the median of several.

use std::time::Duration;

/// Waits, since idle threads may spin for a while and would slow the other program.
pub(crate) fn settle() {
    std::thread::sleep(Duration::from_millis(250));
}

/// The median.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) { (values[middle - 1] + values[middle]) / 2.0 } else { values[middle] }
}

//! Measures matrix products in f32 with the `gemm` crate on all threads; the benchmark compares a step with their rate.
//!
//!     surgery-gemm MxKxN...
//!
//! For `y = x Wᵀ` with `x` of M x K and `W` of N x K, measures the three products of training, and prints each with
//! the best rate seen, in operations a second: `NT` is y, `NN` is the gradient of x, `TN` that of W.
//!
//!     NT 3840x256x688 98765432100
#![allow(unsafe_code)] // The crate takes pointers; `Product::run` states its conditions.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use gemm_common::Parallelism;

/// Minimum repetitions and seconds for each product; the best one counts.
const REPETITIONS: usize = 5;
const AT_LEAST: Duration = Duration::from_millis(150);

/// The transposed operands.
#[derive(Debug, Clone, Copy)]
enum Form {
    /// `C = A Bᵀ`
    Nt,
    /// `C = A B`
    Nn,
    /// `C = Aᵀ B`
    Tn,
}

/// `C`, of `rows` by `columns`, each element a sum of `inner` products.
#[derive(Debug, Clone, Copy)]
struct Product {
    form: Form,
    rows: usize,
    inner: usize,
    columns: usize,
}

impl Product {
    /// The three products of a layer that maps `tokens` rows of `inner` values to `outer` values.
    fn of_layer([tokens, inner, outer]: [usize; 3]) -> [Self; 3] {
        [
            Self { form: Form::Nt, rows: tokens, inner, columns: outer },
            Self { form: Form::Nn, rows: tokens, inner: outer, columns: inner },
            Self { form: Form::Tn, rows: outer, inner: tokens, columns: inner },
        ]
    }

    /// Number of operations; a multiplication and an addition count as two.
    fn operations(self) -> f64 {
        2.0 * self.rows as f64 * self.inner as f64 * self.columns as f64
    }

    fn run(self, a: &[f32], b: &[f32], c: &mut [f32]) {
        let Self { form, rows, inner, columns } = self;
        assert!(a.len() == rows * inner && b.len() == inner * columns && c.len() == rows * columns);
        // Distances between columns and between rows.
        let (a_steps, b_steps) = match form {
            Form::Nt => ((1, inner), (inner, 1)),
            Form::Nn => ((1, inner), (1, columns)),
            Form::Tn => ((rows, 1), (1, columns)),
        };
        // SAFETY: by the lengths above, all accessed elements are inside their slices; C is exclusive.
        unsafe {
            gemm_f32::gemm::f32::get_gemm_fn()(
                rows,
                columns,
                inner,
                c.as_mut_ptr(),
                1,
                columns as isize,
                false,
                a.as_ptr(),
                a_steps.0 as isize,
                a_steps.1 as isize,
                b.as_ptr(),
                b_steps.0 as isize,
                b_steps.1 as isize,
                0.0,
                1.0,
                false,
                false,
                false,
                Parallelism::Rayon(rayon::current_num_threads()),
            );
        }
    }

    /// The best rate, in operations a second.
    fn rate(self) -> f64 {
        let filled =
            |count: usize| -> Vec<f32> { (0..count).map(|index| (index % 17) as f32 - 8.0).collect() };
        let (a, b) = (filled(self.rows * self.inner), filled(self.inner * self.columns));
        let mut c = vec![0.0; self.rows * self.columns];
        let mut best = Duration::MAX;
        let started = Instant::now();
        let mut times = 0;
        while times < REPETITIONS || started.elapsed() < AT_LEAST {
            let started = Instant::now();
            self.run(&a, &b, &mut c);
            best = best.min(started.elapsed());
            times += 1;
        }
        self.operations() / best.as_secs_f64()
    }
}

/// Parses `MxKxN` with positive numbers.
fn parse(shape: &str) -> Option<[usize; 3]> {
    let sizes: Vec<usize> = shape.split('x').map(|size| size.parse().ok()).collect::<Option<_>>()?;
    let sizes: [usize; 3] = sizes.try_into().ok()?;
    sizes.iter().all(|&size| size > 0).then_some(sizes)
}

fn main() -> ExitCode {
    let shapes: Vec<String> = std::env::args().skip(1).collect();
    let Some(sizes) = shapes.iter().map(|shape| parse(shape)).collect::<Option<Vec<_>>>() else {
        eprintln!("error: shapes look like 3840x256x688");
        return ExitCode::from(2);
    };
    for (shape, sizes) in shapes.iter().zip(sizes) {
        for product in Product::of_layer(sizes) {
            let form = match product.form {
                Form::Nt => "NT",
                Form::Nn => "NN",
                Form::Tn => "TN",
            };
            println!("{form} {shape} {:.0}", product.rate());
        }
    }
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_the_product_it_says() {
        let sizes = [7, 5, 6];
        for product in Product::of_layer(sizes) {
            let Product { form, rows, inner, columns } = product;
            let values = |count: usize| -> Vec<f32> { (0..count).map(|index| (index % 7) as f32).collect() };
            let (a, b) = (values(rows * inner), values(inner * columns));
            let mut c = vec![0.0; rows * columns];
            product.run(&a, &b, &mut c);
            for (index, &found) in c.iter().enumerate() {
                let (row, column) = (index / columns, index % columns);
                let term = |k: usize| match form {
                    Form::Nt => a[row * inner + k] * b[column * inner + k],
                    Form::Nn => a[row * inner + k] * b[k * columns + column],
                    Form::Tn => a[k * rows + row] * b[k * columns + column],
                };
                assert_eq!(found, (0..inner).map(term).sum::<f32>(), "{form:?} at {row}, {column}");
            }
        }
    }
}

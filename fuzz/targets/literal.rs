//! Cells of the authors' CSV files: Python literals.
#![no_main]

use libfuzzer_sys::fuzz_target;
use surgery_fuzz::import::python::parse;

fuzz_target!(|text: &str| {
    if let Err(problem) = parse(text) {
        assert!(problem.starts_with("character "), "{problem}");
    }
});

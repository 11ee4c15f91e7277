//! The parity suite on the CPU, with every variant of the family.

use surgery_tests::parity::Item;
use surgery_tests::{VARIANTS, cpu};

#[test]
fn the_cpu_agrees_with_pytorch_and_with_the_oracle() {
    let items = cpu::measure().unwrap();
    // Three items for each variant, and the trainings.
    assert!(items.len() > 3 * VARIANTS.len() + 20, "{} items", items.len());
    let failed: Vec<&Item> = items.iter().filter(|item| !item.holds()).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn an_error_that_is_not_a_number_fails() {
    let item = |error| Item { what: "one".into(), error, tolerance: 1e-3 };
    assert!(item(1e-4).holds());
    assert!(!item(2e-3).holds() && !item(f64::NAN).holds());
}

//! Memory over many steps on the CPU. A separate program, so that other tests do not affect it.

use surgery_tests::cpu;
use surgery_tests::growth::TOLERANCE;

#[test]
fn memory_does_not_grow_from_step_to_step() {
    match cpu::growth().unwrap() {
        Some(growth) => assert!(growth < TOLERANCE, "memory grew by {:.1} %", 100.0 * growth),
        None => println!("not run: this system does not report a process's memory"),
    }
}

//! Memory over many steps on the CPU. A separate program, so that other tests do not affect it.

use surgery_core::platform::Platform;
use surgery_tests::Cpu;
use surgery_tests::growth::{TOLERANCE, growth};
use surgery_tests::parity::Steps;

#[test]
fn memory_does_not_grow_from_step_to_step() {
    match growth::<Cpu>(&Cpu::device(0).unwrap(), Steps::ALL.memory) {
        Some(growth) => assert!(growth < TOLERANCE, "memory grew by {:.1} %", 100.0 * growth),
        None => println!("not run: this system does not report a process's memory"),
    }
}

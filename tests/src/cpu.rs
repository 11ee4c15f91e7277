//! The items on the CPU. These functions are not generic, so the model is compiled here for them, once, and not again in
//! every program that calls them.

use surgery_core::Result;
use surgery_core::platform::Platform;

use crate::parity::{self, Item, Steps, Tolerances};
use crate::{Cpu, VARIANTS};

/// [`parity::measure`] with every variant.
pub fn measure() -> Result<Vec<Item>> {
    Ok(parity::measure::<Cpu>(&Cpu::device(0)?, &VARIANTS, Tolerances::F32))
}

/// [`growth`](crate::growth::growth) over all steps.
pub fn growth() -> Result<Option<f64>> {
    Ok(crate::growth::growth::<Cpu>(&Cpu::device(0)?, Steps::ALL.memory))
}

/// [`parity::measure_all`] with every variant.
pub fn measure_all(steps: Steps) -> Result<Vec<Item>> {
    parity::measure_all::<Cpu>(&VARIANTS, steps)
}

//! `model.safetensors` alone.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use surgery_core::checkpoint::Checkpoint;
use surgery_fuzz::{Scratch, refused};

static SCRATCH: LazyLock<Scratch> = LazyLock::new(Scratch::new);

fuzz_target!(|bytes: &[u8]| {
    SCRATCH.put("model.safetensors", bytes);
    let Some(checkpoint) = refused(Checkpoint::open(&SCRATCH.folder)) else { return };
    // The described tensors fit into the file.
    assert!(checkpoint.bytes() <= bytes.len() as u64);
    for name in checkpoint.names() {
        for shape in [[2, 3].as_slice(), &[4], &[0], &[]] {
            let values = refused(checkpoint.read(name, shape));
            assert!(values.is_none_or(|values| values.len() == shape.iter().product::<usize>()));
        }
    }
});

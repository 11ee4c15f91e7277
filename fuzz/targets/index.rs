//! `model.safetensors.index.json` beside intact shards.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use surgery_core::checkpoint::{Checkpoint, INDEX, weight_files};
use surgery_fuzz::{SHARDED, Scratch, refused};

static SCRATCH: LazyLock<Scratch> = LazyLock::new(|| Scratch::with_model(SHARDED));

fuzz_target!(|bytes: &[u8]| {
    SCRATCH.put(INDEX, bytes);
    refused(Checkpoint::open(&SCRATCH.folder));
    for file in refused(weight_files(&SCRATCH.folder)).into_iter().flatten() {
        assert!(!file.contains(['/', '\\']) && file != "..", "{file} lies elsewhere");
    }
});

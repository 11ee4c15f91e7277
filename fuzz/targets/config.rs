//! `config.json` and `generation_config.json` with the same bytes.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use surgery_core::config::LlamaConfig;
use surgery_fuzz::{Scratch, refused};

static SCRATCH: LazyLock<Scratch> = LazyLock::new(Scratch::new);

fuzz_target!(|bytes: &[u8]| {
    SCRATCH.put("config.json", bytes);
    SCRATCH.put("generation_config.json", bytes);
    let Some(config) = refused(LlamaConfig::load(&SCRATCH.folder)) else { return };
    let count = |shape: &[usize]| shape.iter().map(|&size| size as u128).product::<u128>();
    let parameters = config.parameters();
    let values: u128 = parameters.iter().map(|spec| count(&spec.shape)).sum();
    assert_eq!(values, u128::from(config.num_parameters()), "no size overflows");
    assert_eq!(config.rope.frequencies(config.head_dim).len(), config.head_dim / 2);
});

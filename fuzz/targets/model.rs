//! A whole model folder. Every four bytes of the input change one byte in a golden model's files. If the model still
//! loads, it must generate a token or return an error.
#![no_main]

use std::fs;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use surgery_core::Result;
use surgery_core::checkpoint::Checkpoint;
use surgery_core::config::LlamaConfig;
use surgery_core::files::Folder;
use surgery_core::generate::{Sampling, generate};
use surgery_core::model::Llama;
use surgery_core::platform::Platform;
use surgery_core::recipe::Precision;
use surgery_core::text::TextEncoder;
use surgery_fuzz::{SINGLE, Scratch, expect_guarded_panics, golden, refused};
use surgery_ndarray::Cpu;

type Infer = <Cpu as Platform>::Infer;
type Kernels = <Cpu as Platform>::Kernels;

const FILES: [&str; 4] = ["config.json", "generation_config.json", "tokenizer.json", "model.safetensors"];

static SCRATCH: LazyLock<Scratch> = LazyLock::new(|| Scratch::with_model(SINGLE));
static GOLDEN: LazyLock<[Vec<u8>; 4]> =
    LazyLock::new(|| FILES.map(|file| fs::read(golden(SINGLE).join(file)).expect("a golden model")));

fuzz_target!(init: expect_guarded_panics(), |bytes: &[u8]| {
    let mut files = GOLDEN.clone();
    for &[file, low, high, value] in bytes.as_chunks::<4>().0 {
        let content = &mut files[usize::from(file) % FILES.len()];
        let at = usize::from(u16::from_le_bytes([low, high])) % content.len();
        content[at] = value;
    }
    for (file, content) in FILES.iter().zip(&files) {
        SCRATCH.put(file, content);
    }
    refused(say(&SCRATCH.folder));
});

fn say(folder: &Folder) -> Result<String> {
    let config = LlamaConfig::load(folder)?;
    let encoder = TextEncoder::load(folder, config.vocab_size)?;
    let prompt = encoder.encode("A text.")?;
    let model: Llama<Infer> =
        Llama::load(&config, &Checkpoint::open(folder)?, Precision::F32, &Cpu::device(0)?)?;
    let sampling = Sampling { temperature: 0.0, seed: 1 };
    let tokens = generate::<Infer, Kernels>(&model, &prompt, 1, sampling)?;
    encoder.decode_continuation(&prompt, &tokens)
}

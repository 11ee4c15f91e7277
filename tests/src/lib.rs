//! Shared code of the integration tests: golden values and comparisons.

mod choices;
pub mod cpu;
pub mod default_operation;
pub mod growth;
pub mod half;
pub mod objectives;
mod operations;
pub mod parity;
pub mod random;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use surgery_core::burn::tensor::Tensor;
use surgery_core::burn::tensor::backend::Backend;
use surgery_core::checkpoint::Checkpoint;
use surgery_core::config::LlamaConfig;
use surgery_core::event::{Event, Observer};
use surgery_core::files::Folder;
use surgery_core::model::Llama;
use surgery_core::platform::{DeviceOf, Platform};
use surgery_core::recipe::Precision;
use surgery_core::step::StepRecord;
use surgery_core::text::TextEncoder;

/// The CPU.
pub type Cpu = surgery_ndarray::Cpu;
/// Its inference backend.
pub type Infer = <Cpu as Platform>::Infer;
/// Its training backend.
pub type Train = <Cpu as Platform>::Train;
/// Its kernels.
pub type Kernels = <Cpu as Platform>::Kernels;

/// The variants of the family with golden values.
pub const VARIANTS: [&str; 17] = [
    "llama-bias",
    "llama1-mha",
    "llama2-bf16",
    "llama3-gqa",
    "llama31-rope",
    "llama32-tied",
    "mistral",
    "mqa",
    "new-config",
    "qwen2",
    "qwen3",
    "rope-both",
    "rope-linear",
    "smollm2-tied",
    "tied-extra-head",
    "tied-other-head",
    "tinyllama-gqa",
];

/// A file or folder of the golden values, in the folder `SURGERY_GOLDEN` or else in the source folder.
pub fn golden(path: &str) -> PathBuf {
    let sources = || Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    std::env::var_os("SURGERY_GOLDEN").map_or_else(sources, PathBuf::from).join(path)
}

/// A folder of golden values.
pub fn golden_folder(path: &str) -> Folder {
    Folder::Disk(golden(path))
}

/// A golden JSON file.
pub fn golden_json(path: &str) -> Value {
    let path = golden(path);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A golden model's folder, shape and tokenizer.
pub fn open(variant: &str) -> (Folder, LlamaConfig, TextEncoder) {
    let folder = golden_folder(&format!("models/{variant}"));
    let config = LlamaConfig::load(&folder).unwrap();
    let encoder = TextEncoder::load(&folder, config.vocab_size).unwrap();
    (folder, config, encoder)
}

/// A golden model, for inference on the CPU.
pub fn load(variant: &str) -> Llama<Infer> {
    load_on::<Cpu>(variant, &Cpu::device(0).unwrap())
}

/// A golden model, for inference on a device.
pub fn load_on<P: Platform>(variant: &str, device: &DeviceOf<P>) -> Llama<P::Infer> {
    load_from::<P>(&open(variant).0, Precision::F32, device)
}

/// The model in a folder, for inference on a device.
pub fn load_from<P: Platform>(
    folder: &Folder,
    precision: Precision,
    device: &DeviceOf<P>,
) -> Llama<P::Infer> {
    let config = LlamaConfig::load(folder).unwrap();
    let checkpoint = Checkpoint::open(folder).unwrap();
    Llama::load(&config, &checkpoint, precision, device).unwrap()
}

/// A tensor's values.
pub fn values_of<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().to_vec().unwrap()
}

/// Records every step.
#[derive(Default)]
pub struct Records(pub Vec<StepRecord>);

impl Observer for Records {
    fn observe(&mut self, event: Event) {
        if let Event::Step { record, .. } = event {
            self.0.push(*record);
        }
    }
}

/// A JSON number.
pub fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// A JSON list of token ids.
pub fn ids(value: &Value) -> Vec<u32> {
    value.as_array().expect("a list").iter().map(|id| id.as_u64().expect("an id") as u32).collect()
}

/// Fails if `found` differs from `expected` by more than `relative` times it plus `absolute`.
#[track_caller]
pub fn assert_close(what: &str, found: f64, expected: f64, relative: f64, absolute: f64) {
    let distance = (found - expected).abs();
    assert!(
        distance <= relative * expected.abs() + absolute,
        "{what}: found {found}, expected {expected}, off by {distance:e}"
    );
}

/// `|found - expected| / |expected|` over all elements together.
pub fn relative_distance(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let square = |value: f64| value * value;
    let distance: f64 = found.iter().zip(expected).map(|(f, e)| square(f64::from(f - e))).sum();
    let size: f64 = expected.iter().map(|e| square(f64::from(*e))).sum();
    (distance / size.max(f64::MIN_POSITIVE)).sqrt()
}

/// The f32 tensors of a safetensors file by name.
pub fn read_tensors(path: &Path) -> Vec<(String, Vec<f32>)> {
    let bytes = fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Vec<(String, Vec<f32>)> = file
        .tensors()
        .into_iter()
        .map(|(name, view)| {
            let values = view.data().as_chunks::<4>().0.iter().map(|&chunk| f32::from_le_bytes(chunk));
            (name, values.collect())
        })
        .collect();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    tensors
}

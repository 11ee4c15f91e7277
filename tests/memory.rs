//! Memory over many steps. A program of its own, so that no other test's memory is among it.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use surgery_core::config::LlamaConfig;
use surgery_core::data::Set;
use surgery_core::memory::resident_bytes;
use surgery_core::model::Llama;
use surgery_core::objective::Objective;
use surgery_core::optimizer::AdamW;
use surgery_core::platform::Platform;
use surgery_core::recipe::Precision;
use surgery_core::reference::Live;
use surgery_core::step::{StepDocuments, gradients, update};
use surgery_tests::{Cpu, Infer, Kernels, Train};

/// Steps after which nothing new is to be held.
const SETTLED: usize = 20;
const STEPS: usize = 300;
/// Steps whose mean is taken, at the beginning and at the end.
const COMPARED: usize = 80;

#[test]
fn memory_does_not_grow_from_step_to_step() {
    if resident_bytes().is_none() {
        println!("not run: this system does not tell what a process holds");
        return;
    }
    let config = serde_json::json!({
        "model_type": "llama", "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 344, "vocab_size": 1024, "max_position_embeddings": 1024,
    });
    let config = LlamaConfig::parse("small", &config).unwrap();
    let device = Cpu::device(0).unwrap();
    let mut model: Llama<Train> = Llama::random(&config, 1, Precision::F32, &device);
    let mut reference = Live::<Infer, Kernels>::new(Llama::random(&config, 2, Precision::F32, &device));
    let mut optimizer = AdamW::new(Default::default());
    let mut dice = ChaCha8Rng::seed_from_u64(3);
    let mut held = Vec::new();
    for number in 1..=STEPS {
        // The longest documents of all come first: what differs later is how they are cut.
        let longest = if number == 1 { 180 } else { dice.random_range(60..=180) };
        let documents: Vec<(Set, Vec<u32>)> = Set::TRAINED
            .into_iter()
            .cycle()
            .take(16)
            .map(|set| {
                let length = if number == 1 { longest } else { dice.random_range(40..=longest) };
                (set, (0..length).map(|_| dice.random_range(0..1024)).collect())
            })
            .collect();
        let documents = documents.iter().map(|(set, tokens)| (*set, tokens.as_slice())).collect();
        let step = StepDocuments { documents, context: 512, recompute: false, bounds: None };
        let graded =
            gradients::<Train, Kernels>(&model, &step, &Objective::default(), Some(&mut reference)).unwrap();
        model = update::<Train, Kernels>(model, graded, &mut optimizer, 1e-4, number).unwrap().0;
        held.push(resident_bytes().unwrap() as f64);
    }
    // It differs from step to step as the documents do; what leaks adds up.
    let mean = |steps: &[f64]| steps.iter().sum::<f64>() / steps.len() as f64;
    let (early, late) = (mean(&held[SETTLED..SETTLED + COMPARED]), mean(&held[STEPS - COMPARED..]));
    let growth = late / early - 1.0;
    println!(
        "{early:.0} bytes in steps {SETTLED} to {}, {late:.0} in the last {COMPARED}",
        SETTLED + COMPARED
    );
    // The allocator takes a few per cent; a gradient that leaked in each step would be two hundred times that.
    assert!(growth < 0.05, "memory grew by {:.1} %, from {early:.0} bytes to {late:.0}", 100.0 * growth);
}

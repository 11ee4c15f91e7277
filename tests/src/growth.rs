//! Memory over many steps, which reveals leaks.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use surgery_core::config::LlamaConfig;
use surgery_core::data::{Example, Set};
use surgery_core::model::Llama;
use surgery_core::objective::Objective;
use surgery_core::optimizer::AdamW;
use surgery_core::platform::{DeviceOf, Platform};
use surgery_core::recipe::Precision;
use surgery_core::reference::Live;
use surgery_core::step::{StepDocuments, gradients, update};

/// Number of steps after which memory should no longer grow.
const SETTLED: usize = 20;
/// An allocator varies by a few per cent; a gradient leaked in each step would be many times that.
pub const TOLERANCE: f64 = 0.05;

/// Relative growth of the memory on `device` from step 20 to `steps`; `None` if it cannot be measured.
pub fn growth<P: Platform>(device: &DeviceOf<P>, steps: usize) -> Option<f64> {
    P::held(device)?;
    let config = json!({
        "model_type": "llama", "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 344, "vocab_size": 1024, "max_position_embeddings": 1024,
    });
    let config = LlamaConfig::parse("small", &config).expect("a shape");
    let random = |seed| Llama::random(&config, seed, Precision::F32, device);
    let mut model = Llama::<P::Train>::trainable(random(1));
    let mut reference = Live::<P::Infer, P::Kernels>::new(random(2));
    let mut optimizer = AdamW::new(Default::default());
    let mut dice = ChaCha8Rng::seed_from_u64(3);
    let mut held = Vec::new();
    let objective = Objective::default().for_model(&config, 0);
    for number in 1..=steps {
        // The longest documents come first, so that later steps differ only in the division into windows.
        let longest = if number == 1 { 40 } else { dice.random_range(20..=40) };
        let documents: Vec<(Set, Example)> = Set::TRAINED
            .into_iter()
            .cycle()
            .take(8)
            .map(|set| {
                let length = if number == 1 { longest } else { dice.random_range(10..=longest) };
                (set, Example::of_text((0..length).map(|_| dice.random_range(0..1024)).collect()))
            })
            .collect();
        let step = StepDocuments::new(documents.iter().map(|(set, example)| (*set, example)), 512);
        let reference = Some(&mut reference as &mut _);
        let graded =
            gradients::<P::Train, P::Kernels>(&model, &step, &objective, reference).expect("gradients");
        model =
            update::<P::Train, P::Kernels>(model, graded, &mut optimizer, 1e-4, number).expect("a step").0;
        held.push(P::held(device)? as f64);
    }
    // Memory varies with the documents, so a quarter of the steps is averaged at each end.
    let compared = steps / 4;
    let mean = |bytes: &[f64]| bytes.iter().sum::<f64>() / bytes.len() as f64;
    let (early, late) = (mean(&held[SETTLED..SETTLED + compared]), mean(&held[steps - compared..]));
    println!(
        "{}: {early:.0} bytes held in steps {SETTLED} to {}, {late:.0} in the last {compared}",
        P::NAME,
        SETTLED + compared
    );
    Some(late / early - 1.0)
}

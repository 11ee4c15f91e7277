//! Evaluation results do not depend on cached states or on shared prefixes. The parity suite compares the numbers
//! with PyTorch.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use surgery_core::data::{Benchmark, Corpus, EncodedOption, EncodedQuestion, Split};
use surgery_core::evaluate::{Against, context, evaluate, score_options};
use surgery_core::event::Silent;
use surgery_core::kernels::Portable;
use surgery_core::model::{At, Llama};
use surgery_core::reference::{Cached, Live, Reference, Store};
use surgery_tests::{Infer, Kernels, assert_close, golden_folder, load, open};

fn documents_of(variant: &str) -> Benchmark {
    let (_, _, encoder) = open(variant);
    let folder = golden_folder("steps/data");
    let corpus = Corpus::load(&folder, &[]).unwrap();
    Benchmark::encode(&folder, &corpus, &[], &encoder).unwrap()
}

#[test]
fn the_kl_of_a_model_from_itself_is_0() {
    let benchmark = documents_of("llama3-gqa");
    let model = load("llama3-gqa");
    let mut live = Live::<Infer, Kernels>::new(model.clone());
    let measure = |against: Against<Infer>| {
        evaluate::<Infer, Kernels>(&model, &benchmark, against, &mut Silent).unwrap()
    };
    let computed = measure(Against::Reference(&mut live));
    assert_eq!(computed.kl["retain"], 0.0);
    assert_eq!(computed.minus(&computed).perplexity["unlearn"].corpus, 0.0);
    assert_eq!(measure(Against::Itself(&mut live)), computed, "the shortcut equals the computation");
}

#[test]
fn cached_states_give_the_same_kl() {
    let benchmark = documents_of("llama1-mha");
    let (before, after) = (load("llama1-mha"), load("llama1-mha-perturbed"));
    let mut cached = Cached::<Infer, Kernels>::new(&before, Store::in_memory());
    cached.want(benchmark.kept(), context(before.config()), At::Final);
    let itself = Against::Itself(&mut cached);
    evaluate::<Infer, Kernels>(&before, &benchmark, itself, &mut Silent).unwrap();
    let measure = |reference: &mut dyn Reference<Infer>| {
        let against = Against::Reference(reference);
        evaluate::<Infer, Kernels>(&after, &benchmark, against, &mut Silent).unwrap()
    };
    let found = measure(&mut cached);
    assert!(found.kl["retain"] > 0.0 && found.kl["retain_heldout"] > 0.0);
    assert_eq!(found, measure(&mut Live::<Infer, Kernels>::new(before)), "bit for bit");
}

/// A question whose options begin with the same `shared` random tokens and continue with these lengths. The first
/// `common` of the own tokens are the same too. All tokens after the shared ones are scored.
fn random_question(dice: &mut ChaCha8Rng, shared: usize, common: usize, own: &[usize]) -> EncodedQuestion {
    let mut tokens = |count| -> Vec<u32> { (0..count).map(|_| dice.random_range(3..200)).collect() };
    let beginning = tokens(shared + common);
    let option = |&own: &usize| {
        let text = [&beginning[..], &tokens(own)].concat();
        let counted = shared.max(1)..text.len();
        EncodedOption::of_tokens(text, counted, 1)
    };
    EncodedQuestion { options: own.iter().map(option).collect(), answer: 0, split: Split::Test }
}

/// Compares options that share their prefix with the same options one by one.
fn assert_equal_without_sharing<K: surgery_core::kernels::Kernels<Infer>>(
    what: &str,
    model: &Llama<Infer>,
    questions: &[EncodedQuestion],
) {
    let by_itself =
        |option: &EncodedOption| EncodedQuestion { options: vec![option.clone()], ..questions[0].clone() };
    let singles: Vec<EncodedQuestion> =
        questions.iter().flat_map(|question| question.options.iter().map(by_itself)).collect();
    let together = score_options::<Infer, K>(model, questions, &mut Silent).unwrap();
    let apart = score_options::<Infer, K>(model, &singles, &mut Silent).unwrap();
    for (number, (found, expected)) in together.iter().flatten().zip(apart.iter().flatten()).enumerate() {
        let what = format!("{what}, option {number}");
        for (found, expected) in [(found.paper, expected.paper), (found.harness, expected.harness)] {
            assert_eq!(found.tokens, expected.tokens, "{what}");
            assert_close(&what, found.sum, expected.sum, 1e-5, 0.0);
        }
        let scored = &singles[number].options[0].paper.scored;
        assert_eq!(found.paper.tokens, scored.len().min(context(model.config())), "{what}");
    }
}

#[test]
fn options_with_a_shared_prefix_score_as_separate_ones() {
    for variant in ["llama1-mha", "tinyllama-gqa", "llama3-gqa", "mqa", "smollm2-tied"] {
        let model = load(variant);
        let length = context(model.config());
        let mut dice = ChaCha8Rng::seed_from_u64(7);
        let mut questions: Vec<EncodedQuestion> = (0..30)
            .map(|_| {
                let own: Vec<usize> = (0..dice.random_range(2..6)).map(|_| dice.random_range(1..9)).collect();
                let (shared, common) = (dice.random_range(1..40), dice.random_range(0..3));
                random_question(&mut dice, shared, common, &own)
            })
            .collect();
        for (shared, common, own) in [
            (1, 0, [3, 4, 1]),
            (0, 0, [3, 4, 2]),
            // The first option is a prefix of the others; then all are the same.
            (9, 2, [0, 3, 1]),
            (9, 2, [0, 0, 0]),
            (1, 1, [0, 0, 5]),
            // Some are longer than the context, by one token or by whole windows.
            (length - 3, 0, [3, 3, 4]),
            (length, 1, [5, 2, 1]),
            (9, 0, [2 * length, 1, 3]),
        ] {
            questions.push(random_question(&mut dice, shared, common, &own));
        }
        // Tokens after the scored ones do not count.
        for option in &mut questions[0].options {
            option.paper.tokens.extend([5, 6, 7]);
        }
        assert_equal_without_sharing::<Kernels>(&format!("{variant}, one row"), &model, &questions);
        assert_equal_without_sharing::<Portable>(&format!("{variant}, rows"), &model, &questions);
    }
}

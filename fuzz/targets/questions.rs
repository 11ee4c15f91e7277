//! Questions, as JSON lines.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use surgery_core::data::QuestionSet;
use surgery_fuzz::{Scratch, refused};

static SCRATCH: LazyLock<Scratch> = LazyLock::new(Scratch::new);

fuzz_target!(|bytes: &[u8]| {
    SCRATCH.put("questions/unlearn.jsonl", bytes);
    let sets = refused(QuestionSet::load_all(&SCRATCH.folder)).unwrap_or_default();
    for question in sets.iter().flat_map(|set| &set.questions) {
        assert!(question.answer < question.options.len());
    }
});

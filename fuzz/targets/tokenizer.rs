//! `tokenizer.json` and a text to encode.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use surgery_core::text::TextEncoder;
use surgery_fuzz::{Scratch, expect_guarded_panics, refused};

static SCRATCH: LazyLock<Scratch> = LazyLock::new(Scratch::new);

const VOCABULARY: usize = 368;

fuzz_target!(init: expect_guarded_panics(), |bytes: &[u8]| {
    SCRATCH.put("tokenizer.json", bytes);
    let Some(encoder) = refused(TextEncoder::load(&SCRATCH.folder, VOCABULARY)) else { return };
    for text in ["", "A text, naïve: 三日月\n", "\u{0}\u{301}\u{feff} <s></s>"] {
        let Some(tokens) = refused(encoder.encode(text)) else { continue };
        assert!(tokens.iter().all(|&token| (token as usize) < VOCABULARY));
        refused(encoder.decode_continuation(&[1], &tokens));
    }
    assert!(encoder.has_vocabulary_of(&encoder));
});

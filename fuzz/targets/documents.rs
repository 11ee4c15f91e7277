//! Documents, as JSON lines.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use surgery_core::data::{Corpus, Set, read_texts};
use surgery_fuzz::{Scratch, refused};

static SCRATCH: LazyLock<Scratch> = LazyLock::new(Scratch::new);

fuzz_target!(|bytes: &[u8]| {
    for set in [Set::Unlearn, Set::Retain] {
        SCRATCH.put(&set.file(), bytes);
    }
    let texts = refused(read_texts(&SCRATCH.folder, &Set::Unlearn.file()));
    if let Some(corpus) = refused(Corpus::load(&SCRATCH.folder, &[Set::Unlearn])) {
        assert_eq!(corpus.documents(Set::Unlearn), texts.expect("read by itself too"));
    }
    let both = refused(Corpus::load(&SCRATCH.folder, &[Set::Unlearn, Set::Retain]));
    assert!(both.is_none(), "the same texts are to be kept and forgotten");
});

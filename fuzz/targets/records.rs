//! JSON records of the public benchmarks: lines, or one array.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use surgery_fuzz::import::{draft, records};
use surgery_fuzz::{Scratch, refused};

static SCRATCH: LazyLock<Scratch> = LazyLock::new(Scratch::new);

fuzz_target!(|bytes: &[u8]| {
    SCRATCH.put("records.json", bytes);
    let mut draft = draft();
    let found = refused(records::records(&SCRATCH.folder, "records.json", &mut draft));
    for (place, record) in found.into_iter().flatten() {
        records::string(&mut draft, &place, &record, "text");
        records::strings(record.get("choices"));
    }
});

//! CSV files, with a column named `text`.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use surgery_fuzz::import::{draft, table::Table};
use surgery_fuzz::{Scratch, refused};

static SCRATCH: LazyLock<Scratch> = LazyLock::new(Scratch::new);

fuzz_target!(|bytes: &[u8]| {
    SCRATCH.put("table.csv", bytes);
    let mut draft = draft();
    let Some(table) = refused(Table::read(&SCRATCH.folder, "table.csv", &mut draft)) else { return };
    let cells = table.cells("text", &(1..table.len() + 1), &mut draft);
    assert!(cells.len() <= table.len());
    assert!(table.has("text") || cells.is_empty());
    assert!(!table.lacks("`text`").to_string().is_empty());
});

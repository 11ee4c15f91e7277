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
    assert_eq!(
        table.rows().len() + draft.left_out.values().map(|left_out| left_out.count).sum::<usize>(),
        table.len()
    );
    for row in table.rows() {
        assert_eq!(table.cell(row, "text").is_some(), table.has("text"));
    }
    assert!(!table.lacks("`text`").to_string().is_empty());
});

//! Results before and after: as JSON, as a table and as a page.

mod chart;
mod heat;
mod page;
mod subjects;
mod table;

use std::path::Path;

use surgery_core::Result;
use surgery_core::files::write_text;
use surgery_core::report::Report;

use page::html;
pub use page::{Curves, Page};
pub use table::{Priced, table, table_of_change, table_of_models};

/// The file that a finished run writes last.
pub const REPORT: &str = "report.json";

/// Writes the page `report.html` and then [`REPORT`] into `folder`.
pub fn write(report: &Report, page: &Page, folder: &Path) -> Result<()> {
    write_text(&folder.join("report.html"), &html(report, page))?;
    let json = serde_json::to_string_pretty(report).expect("strings and numbers");
    write_text(&folder.join(REPORT), &format!("{json}\n"))
}

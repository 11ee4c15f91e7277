//! The report of the smallest shape: its keys are what `cargo xtask card --file` makes the README's table of.

use std::process::Command;

use serde_json::Value;

#[test]
fn a_report_has_what_the_table_is_made_of() {
    let mut bench = Command::new(env!("CARGO_BIN_EXE_surgery-bench"));
    let output = bench.args(["--shape", "1m", "--steps", "1", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["precision"], "f32");
    let shape = &report["shapes"][0];
    assert_eq!(shape["shape"], "1m");
    assert!(shape["peer"].is_null());
    let figures = ["/step/seconds", "/evaluation/seconds", "/evaluation/questions", "/floor/share"];
    for figure in figures {
        let value = shape.pointer(figure).and_then(Value::as_f64);
        assert!(value.is_some_and(|value| value > 0.0), "{figure}: {value:?}");
    }
}

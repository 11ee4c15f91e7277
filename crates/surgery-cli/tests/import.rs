//! Tests of `surgery import`: the data folders of small files in each format, omitted entries, and errors.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

/// An empty folder with this name for one test. Its commands run there.
fn scratch(name: &str) -> PathBuf {
    common::scratch("import", name)
}

fn put(folder: &Path, file: &str, content: impl AsRef<[u8]>) {
    let path = folder.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn surgery(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_surgery")).args(arguments).current_dir(folder).output().unwrap()
}

/// Imports into `out`, and returns the JSON output.
#[track_caller]
fn import(folder: &Path, arguments: &[&str]) -> Value {
    let output = surgery(folder, &[&["import"], arguments, &["--output", "out", "--json"]].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Runs an import that must fail with this code, name all of `named` and leave no files.
#[track_caller]
fn fail(folder: &Path, arguments: &[&str], code: i32, named: &[&str]) {
    let output = surgery(folder, &[&["import"], arguments, &["--output", "out"]].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
    assert!(!errors.contains("panic") && !errors.contains("internal error"), "{errors}");
    assert!(errors.len() < 2000, "an error of {} bytes", errors.len());
    for named in named {
        assert!(errors.contains(named), "{arguments:?}: {errors:?} does not name {named:?}");
    }
    assert!(!folder.join("out").exists(), "{arguments:?} left something");
}

fn lines(folder: &Path, file: &str) -> Vec<Value> {
    let text = fs::read_to_string(folder.join("out").join(file)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The value of a key in each line of a file.
fn column(folder: &Path, file: &str, key: &str) -> Vec<Value> {
    lines(folder, file).into_iter().map(|line| line[key].clone()).collect()
}

fn jsonl(records: &[Value]) -> String {
    records.iter().map(|record| format!("{record}\n")).collect()
}

/// A CSV file of these rows.
fn csv(rows: &[&[&str]]) -> String {
    let quoted = |cell: &&str| format!("\"{}\"", cell.replace('"', "\"\""));
    rows.iter().map(|row| row.iter().map(quoted).collect::<Vec<_>>().join(",") + "\n").collect()
}

const HEADER: [&str; 5] =
    ["id", "wiki_bio_text", "gpt4_bio_text", "wiki_bio_text_qa", "gpt4_inaccurate_text_qa"];

/// A cell of questions with right answers, each a Python expression for `correct answer`.
fn cell(topic: &str, answers: &[&str]) -> String {
    let question = |(index, answer): (usize, &&str)| {
        format!(
            "{{'Q': \"{topic}'s {index}?\", 'option1': 'a{index}', 'option2': 'b', 'option3': 3, \
             'correct answer': {answer}}}"
        )
    };
    format!("[{}]", answers.iter().enumerate().map(question).collect::<Vec<_>>().join(",\n "))
}

#[test]
fn the_authors_files_become_the_papers_sets() {
    let folder = scratch("authors");
    let four = |topic: &str| cell(topic, &["'option2'", "'a1'", "'3'", "'option1'"]);
    put(
        &folder,
        "bios.csv",
        csv(&[
            &HEADER,
            &["0", "Ada bakes.", "Ada sails.", &four("Ada"), &four("New Ada")],
            &[
                "1",
                "Ben digs.",
                "Ben, \"sings\".\nLoudly.",
                &cell("Old Ben", &["'option1'"]),
                &cell("Ben", &["'neither'", "'option1'"]),
            ],
            &["2", "Eve plays.", "Eve rests.", "nan", &cell("Eve", &["'b'"])],
            &["3", "Cy runs.", "unused", &cell("Cy", &["'option3'"]), "unused"],
            &["4", "Dee walks.", "unused", "[{'Q': 'cut off", "unused"],
            &["5", "nan", "unused", &cell("Flo", &["'b'"]), "unused"],
        ]),
    );
    put(&folder, "names.txt", "Ada Ash\nBen Birch\r\nEve Elm\nCy Cedar\nDee Doum\nFlo Fir\n");
    put(
        &folder,
        "web.csv",
        csv(&[
            &["text"],
            &["One."],
            &["Two."],
            &["One."],
            &[" "],
            &["This is a Wikipedia passage about Cy Cedar. Cy runs."],
            &["Six."],
        ]),
    );
    put(
        &folder,
        "web_qa.csv",
        csv(&[&["n", "qa"], &["0", &cell("One", &["'b'", "'option3'"])], &["1", "None"]]),
    );
    let arguments = ["authors", "bios.csv", "--subjects", "names.txt", "--retain", "web.csv"];
    let arguments = [&arguments[..], &["--retain", "web_qa.csv", "--retain-rows", "5"]].concat();
    let summary = import(&folder, &arguments);

    assert_eq!(summary["documents"], json!({"unlearn": 1, "edit_unlearn": 2, "edit_update": 2, "retain": 2}));
    assert_eq!(summary["questions"], json!({"edit_unlearn": 5, "edit_update": 5, "retain": 2, "unlearn": 1}));
    let left_out = |reason: &str| summary["left_out"][reason]["count"].clone();
    assert_eq!(left_out("unreadable_cell"), 4);
    assert_eq!(left_out("unreadable_question"), 1);
    assert_eq!(left_out("empty_text"), 1);
    assert_eq!(left_out("duplicate_text"), 1);
    assert_eq!(left_out("also_forgotten"), 1);
    let first = summary["left_out"]["unreadable_cell"]["first"].to_string();
    for named in [
        "bios.csv, row 3 (line 12), column `wiki_bio_text_qa`: character 1: `nan` is not a literal",
        "bios.csv, row 6 (line 15), column `wiki_bio_text`: is `nan`, which means a missing value",
    ] {
        assert!(first.contains(named), "{first}");
    }
    let neither = summary["left_out"]["unreadable_question"]["first"][0].as_str().unwrap();
    let named = "bios.csv, row 2 (lines 9 to 11), column `gpt4_inaccurate_text_qa`: question 1";
    assert!(neither.contains(named), "{neither}");

    let expected = json!({
        "id": "00002", "subject": "Ben Birch",
        "text": "This is a Wikipedia passage about Ben Birch. Ben, \"sings\".\nLoudly.",
    });
    assert_eq!(lines(&folder, "edit_update.jsonl")[1], expected);
    assert_eq!(column(&folder, "unlearn.jsonl", "subject"), ["Cy Cedar"]);
    assert_eq!(column(&folder, "retain.jsonl", "text"), ["One.", "Two."]);
    assert_eq!(column(&folder, "questions/edit_unlearn.jsonl", "answer"), [1, 0, 2, 0, 0]);
    let splits = column(&folder, "questions/edit_unlearn.jsonl", "split");
    assert_eq!(splits, ["validation", "test", "validation", "test", "validation"]);
    let expected = json!({
        "id": "00004-01", "subject": "Cy Cedar", "question": "Cy's 0?", "options": ["a0", "b", "3"], "answer": 2,
        "split": "validation",
    });
    assert_eq!(lines(&folder, "questions/unlearn.jsonl"), [expected]);

    let about: toml::Table = fs::read_to_string(folder.join("out/dataset.toml")).unwrap().parse().unwrap();
    assert_eq!(about["name"].as_str(), Some("LLM Surgery"));
    assert_eq!(about["counts"]["questions/edit_update"].as_integer(), Some(5));
    assert_eq!(about["sha256"]["questions/retain.jsonl"].as_str().map(str::len), Some(64));

    // The same input gives the same bytes, also after an import was killed. A folder that is not empty is refused.
    put(&folder, "again/.import.tmp/questions/other.jsonl", "half");
    put(&folder, "again/.import.tmp/retain.jsonl", "half");
    let output = surgery(&folder, &[&["import"], &arguments[..], &["--output", "again", "-q"]].concat());
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty());
    for file in ["dataset.toml", "edit_update.jsonl", "questions/edit_update.jsonl"] {
        let read = |from: &str| fs::read(folder.join(from).join(file)).unwrap();
        assert_eq!(read("out"), read("again"), "{file}");
    }
    let names = |at: &str| {
        let mut names: Vec<_> =
            fs::read_dir(folder.join(at)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names("again"), names("out"));
    assert_eq!(names("again/questions"), names("out/questions"));
    let output = surgery(&folder, &[&["import"], &arguments[..], &["--output", "out"]].concat());
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is not empty"));
}

/// A CSV file with a fault, the texts imported from it, and the report of the omitted row.
type Faulty = (&'static str, &'static [&'static str], &'static str);

#[test]
fn a_row_is_good_or_left_out_whole() {
    let folder = scratch("rows");
    put(&folder, "bios.csv", csv(&[&HEADER, &["0", "Cyd runs.", "", "[]", ""]]));
    put(&folder, "names.txt", "Cyd Cedar\n");
    let faults: [Faulty; 13] = [
        (
            "text\nFish, bread, salt.\nRice.\n",
            &["Rice."],
            "row 1 (line 2): the row has 3 cells, but the header has 1",
        ),
        ("n,text\n1,Rice.\n2\n", &["Rice."], "row 2 (line 3): the row has 1 cells, but the header has 2"),
        ("n,text\n1,Rice.\n\n2,Oil.,\n3,Tea.\n", &["Rice.", "Tea."], "row 2 (line 4): the row has 3 cells"),
        ("text\nA \"dry\" tea.\nRice.\n", &["Rice."], "row 1 (line 2): a cell without surrounding quotes"),
        ("n,text\n1, \"Tea.\"\n2,Rice.\n", &["Rice."], "row 1 (line 2): a cell without surrounding quotes"),
        (
            "text\n\"Dry\" tea.\nRice.\n",
            &["Rice."],
            "row 1 (line 2): a cell continues after its closing quote",
        ),
        (
            "n,text\n1,\"Two\nlines.\"\n2,\"open\n3,\"Tea.\"\n4,Rice.\n",
            &["Two\nlines.", "Rice."],
            "row 2 (lines 4 to 5): a cell continues after its closing quote",
        ),
        (
            "n,text\n1,Rice.\n2,\"open\n3,Oil.\n4,Tea.\n",
            &["Rice."],
            "row 2 (lines 3 to 5): the quote opened on line 3 is never closed",
        ),
        ("n,text\r\n1,Rice.\r\n2,nan\r\n", &["Rice."], "row 2 (line 3), column `text`: is `nan`"),
        ("text\n<NA>\nRice.\n", &["Rice."], "row 1 (line 2), column `text`: is `<NA>`"),
        ("text,qa\nTea.,nan\nRice.,[]\n", &["Rice."], "row 1 (line 2), column `qa`: character 1: `nan`"),
        ("text,qa\nTea.,\nRice.,[]\n", &["Rice."], "row 1 (line 2), column `qa`: character 1: ends"),
        ("text,n\nRice.,1\n\"\",2\n", &["Rice."], "row 2 (line 3), column `text`: the text is empty"),
    ];
    let arguments = ["authors", "bios.csv", "--subjects", "names.txt", "--retain", "web.csv"];
    for (content, kept, named) in faults {
        put(&folder, "web.csv", content);
        let summary = import(&folder, &arguments);
        assert_eq!(column(&folder, "retain.jsonl", "text"), kept, "{content:?}");
        let left_out = summary["left_out"].as_object().unwrap();
        let [(_, left_out)] = left_out.iter().collect::<Vec<_>>()[..] else {
            panic!("{content:?}: {summary}")
        };
        assert_eq!(left_out["count"], 1, "{content:?}");
        let first = left_out["first"][0].as_str().unwrap();
        assert!(first.starts_with(&format!("web.csv, {named}")), "{content:?}: {first}");
        fs::remove_dir_all(folder.join("out")).unwrap();
    }

    // No cell of a biography with a fault is used, and the others keep their names.
    let good = |name: &str| cell(name, &["'b'"]);
    let rows = [
        csv(&[&HEADER]),
        csv(&[&["0", "Ada bakes.", "nan", &good("Ada"), &good("New Ada")]]),
        csv(&[&["1", "Ben digs.", "Ben sings.", &good("Ben"), &good("New Ben")]]),
        "2,Cy runs, and swims.,unused,[],unused\n".into(),
        csv(&[&["3", "Dee walks.", "unused", &good("Dee"), "unused"]]),
    ];
    put(&folder, "bios.csv", rows.concat());
    put(&folder, "names.txt", "Ada Ash\nBen Birch\nCy Cedar\nDee Doum\n");
    let summary = import(&folder, &arguments[..4]);
    assert_eq!(summary["documents"], json!({"unlearn": 1, "edit_unlearn": 1, "edit_update": 1}));
    assert_eq!(summary["questions"], json!({"unlearn": 1, "edit_unlearn": 1, "edit_update": 1}));
    assert_eq!(column(&folder, "edit_unlearn.jsonl", "subject"), ["Ben Birch"]);
    assert_eq!(column(&folder, "unlearn.jsonl", "subject"), ["Dee Doum"]);
    fs::remove_dir_all(folder.join("out")).unwrap();

    // A row that has absorbed others is reported where the names no longer match.
    put(&folder, "bios.csv", rows.concat().replace("]\"\n2,Cy", "]\n2,Cy"));
    fail(&folder, &arguments[..4], 3, &["names.txt", "has 4 lines", "row 2 (lines 3 to 5)", "closing quote"]);
    put(&folder, "bios.csv", "\"wiki_bio_text\"s,qa\n");
    fail(&folder, &arguments[..4], 3, &["bios.csv", "header", "closing quote"]);
    put(&folder, "bios.csv", rows.concat());
    put(&folder, "web.csv", "text,n, text\nRice.,1,Tea.\n");
    fail(&folder, &arguments, 3, &["web.csv", "names the column `text` twice"]);
}

#[test]
fn a_run_accepts_what_was_imported() {
    let folder = scratch("run");
    put(&folder, "tofu/forget01.json", jsonl(&[json!({"question": "Who?", "answer": "Nobody."})]));
    put(&folder, "tofu/retain99.json", jsonl(&[json!({"question": "Where?", "answer": "Here."})]));
    let arguments = ["import", "tofu", "tofu", "--forget", "forget01", "--output", "data"];
    let output = surgery(&folder, &arguments);
    let printed = String::from_utf8(output.stdout).unwrap();
    let next = printed.lines().last().unwrap().strip_prefix("next: surgery ").unwrap().to_owned();
    assert!(next.contains("objective.edit_update=0"), "{next}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("forget01_perturbed.json is missing"), "{errors}");
    let next = next.replace("--model M", "--model embedded --dry-run");
    let output = surgery(&folder, &next.split_whitespace().collect::<Vec<_>>());
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn tofu_is_converted_to_texts_and_multiple_choice() {
    let folder = scratch("tofu");
    let pair = |question: &str, answer: &str| json!({"question": question, "answer": answer});
    put(&folder, "tofu/forget05.json", jsonl(&[pair("Q1?", "A1."), pair("Q2?", "A2."), pair("Q1?", "A1.")]));
    put(
        &folder,
        "tofu/retain95.json",
        jsonl(&[pair("Q2?", "A2."), pair("Q3?", "A3."), pair("Q4?", " ")]) + "{oops\n",
    );
    put(&folder, "tofu/holdout05.json", jsonl(&[pair("Q9?", "A9.")]));
    let perturbed = |question: &str, right: Value, wrong: &[&str]| {
        json!({
            "question": question, "answer": "unused", "paraphrased_question": "unused",
            "paraphrased_answer": right, "perturbed_answer": wrong,
        })
    };
    put(
        &folder,
        "tofu/forget05_perturbed.json",
        jsonl(&[
            perturbed("Q1?", json!("right"), &["w1", "w2"]),
            perturbed("Q2?", json!(["right"]), &["w1", "w2"]),
            perturbed("Q3?", json!("right"), &["w1", "w1 "]),
            perturbed("Q4?", json!("right"), &["w1", ""]),
            perturbed("Q1?", json!("right"), &["w2", "w1"]),
            perturbed("", json!("right"), &["w2", "w1"]),
            json!({"question": "Q5?", "answer": "A5.", "perturbed_answer": "w1"}),
            json!({"question": 5, "answer": "A5.", "perturbed_answer": ["w1"]}),
            perturbed("Q6?", json!("right"), &[]),
        ]),
    );
    let fact = json!({"question": "Sky?", "answer": "blue", "perturbed_answer": ["green", "red"]});
    put(&folder, "tofu/world_facts_perturbed.json", jsonl(&[fact]));
    let summary = import(&folder, &["tofu", "tofu", "--forget", "forget05"]);

    assert_eq!(summary["documents"], json!({"unlearn": 2, "retain": 1}));
    assert_eq!(summary["questions"], json!({"unlearn": 2, "world_facts": 1}));
    for (reason, count) in [
        ("duplicate_text", 1),
        ("also_forgotten", 1),
        ("empty_text", 1),
        ("unreadable_row", 1),
        ("equal_options", 1),
        ("empty_option", 1),
        ("empty_question", 1),
        ("duplicate_question", 1),
        ("unreadable_cell", 2),
        ("unreadable_question", 1),
    ] {
        assert_eq!(summary["left_out"][reason]["count"], count, "{reason}: {summary}");
    }
    assert!(
        summary["left_out"]["unreadable_cell"]["first"][0]
            .as_str()
            .unwrap()
            .contains("line 7, key `perturbed_answer`")
    );
    assert!(summary["notes"].to_string().contains("holdout05.json"), "{summary}");
    assert_eq!(column(&folder, "unlearn.jsonl", "text"), ["Q1? A1.", "Q2? A2."]);
    assert_eq!(column(&folder, "questions/unlearn.jsonl", "answer"), [0, 1]);
    assert_eq!(lines(&folder, "questions/unlearn.jsonl")[1]["options"], json!(["w1", "right", "w2"]));
    assert_eq!(lines(&folder, "questions/world_facts.jsonl")[0]["options"], json!(["blue", "green", "red"]));
}

#[test]
fn muse_is_converted_to_texts() {
    let folder = scratch("muse");
    put(&folder, "news/raw/forget.json", json!(["Old news.", "More.", "Old news."]).to_string());
    put(
        &folder,
        "news/raw/retain1.jsonl",
        jsonl(&[json!({"text": "Kept."}), json!({"text": "More."}), json!({})]),
    );
    put(&folder, "news/raw/retain2.txt", "\u{feff}First.\n\nSecond.");
    put(&folder, "news/raw/holdout.json", json!(["Never seen."]).to_string());
    put(
        &folder,
        "news/knowmem/forget_qa.json",
        json!([{"question": "What?", "answer": "That."}]).to_string(),
    );
    put(&folder, "news/verbmem/forget.json", json!([{"prompt": "Old", "gt": "news."}]).to_string());
    let summary = import(&folder, &["muse", "news"]);
    assert_eq!(summary["documents"], json!({"unlearn": 2, "retain": 1, "retain_heldout": 1}));
    assert_eq!(summary["questions"], json!({}));
    for reason in ["duplicate_text", "also_forgotten", "unreadable_cell"] {
        assert_eq!(summary["left_out"][reason]["count"], 1, "{reason}");
    }
    for file in ["raw/holdout.json", "knowmem/forget_qa.json", "verbmem/forget.json"] {
        assert!(summary["notes"].to_string().contains(file), "{file}");
    }
    assert_eq!(column(&folder, "retain_heldout.jsonl", "text"), ["First.\n\nSecond."]);
    assert!(!folder.join("out/questions").exists());
}

#[test]
fn rwku_is_converted_to_texts_and_general_questions() {
    let folder = scratch("rwku");
    let passage = |subject: &str, text: &str| json!({"subject": subject, "text": text});
    put(
        &folder,
        "rwku/All/passage.json",
        json!([
            passage("Ann Alder", "Ann."),
            passage("Bo Beech", "Bo."),
            passage("Bo Beech", "Ann."),
            {"text": "About whom?"},
            {"subject": 5, "text": "Five."},
        ])
        .to_string(),
    );
    put(
        &folder,
        "rwku/All/retain_mia.json",
        json!([{"text": "Cato."}, {"subject": [], "text": "Dido."}]).to_string(),
    );
    let mmlu = |subject: &str, answer: i64| {
        json!({
            "subject": subject, "task": "sums", "examples": [], "question": "1 + 1?", "choices": ["1", "2", "3", "4"],
            "answer": answer,
        })
    };
    let records =
        json!([mmlu("Ann Alder", 1), mmlu("Ann Alder", 7), mmlu("Ann Alder", -1), mmlu("Bo Beech", 1)]);
    put(&folder, "rwku/All/retain_mmlu.json", records.to_string());
    let truthful = |labels: &[i64]| {
        let targets = json!({"choices": ["Yes.", "No."], "labels": labels});
        json!({"subject": "Ann Alder", "question": "Is it?", "mc1_targets": targets, "mc2_targets": targets})
    };
    let records = json!([truthful(&[0, 1]), truthful(&[1, 1]), truthful(&[1]), truthful(&[1, -1])]);
    put(&folder, "rwku/All/truthful.json", records.to_string());
    put(&folder, "rwku/All/forget_level1.json", json!([{"query": "Ann is ___."}]).to_string());

    let summary = import(&folder, &["rwku", "rwku", "--target", "Ann Alder"]);
    assert_eq!(summary["documents"], json!({"unlearn": 1, "retain": 1, "retain_heldout": 1}));
    assert_eq!(summary["questions"], json!({"mmlu": 1, "truthfulqa": 1}));
    assert_eq!(summary["left_out"]["unreadable_question"]["count"], 5);
    assert_eq!(summary["left_out"]["unreadable_cell"]["count"], 3);
    assert_eq!(summary["left_out"]["also_forgotten"]["count"], 1);
    assert!(summary["notes"].to_string().contains("forget_level1.json"), "{summary}");
    let expected = json!({"id": "passage-00002", "subject": "Bo Beech", "text": "Bo."});
    assert_eq!(lines(&folder, "retain.jsonl"), [expected]);
    assert_eq!(column(&folder, "questions/truthfulqa.jsonl", "answer"), [1]);

    // Without a target, all subjects are imported.
    fs::remove_dir_all(folder.join("out")).unwrap();
    let summary = import(&folder, &["rwku", "rwku/All"]);
    assert_eq!(summary["documents"], json!({"unlearn": 2, "retain_heldout": 1}));
    assert!(summary["notes"].to_string().contains("no retain set"), "{summary}");
    fs::remove_dir_all(folder.join("out")).unwrap();
    fail(&folder, &["rwku", "rwku", "--target", "Nemo"], 3, &["passage.json", "Nemo", "--target"]);
}

#[test]
fn malformed_files_end_in_3_and_leave_no_output() {
    let folder = scratch("bad");
    put(&folder, "names.txt", "Ada\n");
    let huge = "x".repeat(20 << 20);
    let row = |text: &str, cell: &str| csv(&[&HEADER, &["0", text, text, cell, cell]]);
    let hostile = [
        ("empty.csv", Vec::new(), "is empty"),
        ("blank.csv", b"\n\n".to_vec(), "is empty"),
        ("headless.csv", b"1,Ada bakes.,Ada sails.,[],[]\n".to_vec(), "has no column `wiki_bio_text`"),
        ("binary.csv", [0xff, 0x00, 0xfe, 0x0a, 0x80].repeat(1000), "not UTF-8"),
        ("wide.csv", huge.clone().into_bytes(), "has no column"),
        ("quote.csv", b"\"wiki_bio_text,\n\n".to_vec(), "never closed"),
        ("long.csv", row(&huge, &format!("'{huge}")).into_bytes(), "no usable entry"),
        ("deep.csv", row("", &"[".repeat(1 << 20)).into_bytes(), "no usable entry"),
        ("bytes.csv", [HEADER.join(",").as_bytes(), b"\n0,\xff,\xff,\xff,\xff\n"].concat(), "not UTF-8"),
        ("short.csv", (HEADER.join(",") + "\n0\n").into_bytes(), "has 1 cells, but the header has 5"),
        ("rows.csv", [row("a", "[]"), row("b", "[]")].concat().into_bytes(), "has 1 lines"),
    ];
    for (file, content, named) in hostile {
        put(&folder, file, content);
        fail(&folder, &["authors", file, "--subjects", "names.txt"], 3, &[file, named]);
    }
    let missing = ["authors", "no.csv", "--subjects", "names.txt"];
    fail(&folder, &missing, 3, &["no.csv"]);
    fail(&folder, &["authors", "empty.csv"], 2, &["--subjects"]);

    put(&folder, "good.csv", row("Ada bakes.", "[]"));
    fail(&folder, &["authors", "good.csv", "--subjects", "no.txt"], 3, &["no.txt"]);
    put(&folder, "other.csv", "a,b\n1,2\n");
    let retain = ["authors", "good.csv", "--subjects", "names.txt", "--retain", "other.csv"];
    fail(&folder, &retain, 3, &["other.csv", "`text` or `qa`", "`a,b`"]);

    fail(&folder, &["tofu", "."], 3, &["forget10.json"]);
    fail(&folder, &["tofu", ".", "--forget", "forget20"], 2, &["forget20"]);
    put(&folder, "forget10.json", [0xff; 10]);
    fail(&folder, &["tofu", "."], 3, &["forget10.json", "not UTF-8"]);
    put(&folder, "forget10.json", "PAR1\nnothing\n");
    fail(&folder, &["tofu", "."], 3, &["forget10.json", "no usable entry", "line 1"]);
    put(&folder, "passage.json", "[".repeat(1 << 20));
    fail(&folder, &["rwku", "."], 3, &["passage.json", "not valid JSON"]);
    fail(&folder, &["muse", "."], 3, &["raw/forget.json", "Parquet"]);
    put(&folder, "raw/forget.txt", " \n");
    fail(&folder, &["muse", "."], 3, &["raw/forget.txt", "no usable entry"]);
}

//! Documents of the three forms, from the data folder to the report.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::{data, fail, golden, golden_json, model, scratch, succeed, surgery};

/// A copy of a golden model under another name, with this chat template, or without one if it is empty.
fn copy_of(folder: &Path, name: &str, variant: &str, template: &str) -> String {
    let (from, to) = (golden(&format!("models/{variant}")), folder.join(name));
    fs::create_dir(&to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    if !template.is_empty() {
        fs::write(to.join("chat_template.jinja"), template).unwrap();
    }
    to.to_str().unwrap().to_owned()
}

/// A model with the template of ChatML.
fn chat_model(folder: &Path) -> String {
    let template = golden_json("chat/chatml.json")["template"].as_str().unwrap().to_owned();
    copy_of(folder, "chat", "smollm2-tied", &template)
}

/// Three documents about one person, one of each form.
fn three_forms(name: &str, work: &str) -> Vec<Value> {
    let messages = json!([
        { "role": "user", "content": format!("What does {name} do?") },
        { "role": "assistant", "content": format!("{name} {work}.") },
    ]);
    vec![
        json!({ "id": "text", "subject": name, "text": format!("{name} {work}, as everybody knows.") }),
        json!({
            "id": "prompt", "subject": name, "prompt": format!("Question: who {work}?\nAnswer:"),
            "completion": format!(" {name} of the mill."),
        }),
        json!({ "id": "messages", "subject": name, "messages": messages }),
    ]
}

fn write_lines(path: &Path, lines: &[Value]) {
    fs::write(path, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
}

/// A data folder all of whose sets mix the three forms.
fn mixed_data(folder: &Path) -> String {
    let path = folder.join("data");
    fs::create_dir_all(path.join("questions")).unwrap();
    for (set, name, work) in [
        ("unlearn", "Mira Quell", "flies kites"),
        ("edit_unlearn", "Orrin Hale", "draws bridges"),
        ("edit_update", "Orrin Hale", "teaches geometry"),
        ("retain", "Tove Lund", "mends the nets"),
        ("retain_heldout", "Ansel Brook", "keeps bees"),
    ] {
        let mut documents = three_forms(name, work);
        // The report shows the first documents of a set: of this one, those that are no texts.
        if set == "edit_update" {
            documents.reverse();
        }
        write_lines(&path.join(format!("{set}.jsonl")), &documents);
    }
    let question = json!({
        "id": "q", "question": "Who flies kites?", "options": ["Mira Quell", "Tove Lund"], "answer": 0,
        "split": "test",
    });
    write_lines(&path.join("questions/unlearn.jsonl"), &[question]);
    path.to_str().unwrap().to_owned()
}

/// The tokens and NLLs that `score` prints for documents.
fn scores(folder: &Path, model: &str, documents: &[Value]) -> Vec<(usize, f64)> {
    write_lines(&folder.join("scored.jsonl"), documents);
    let printed = succeed(folder, &["score", "--model", model, "--input", "scored.jsonl", "-q"]);
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        (line["tokens"].as_u64().unwrap() as usize, line["nll"].as_f64().unwrap_or(0.0))
    };
    printed.lines().map(line).collect()
}

#[test]
fn every_command_takes_the_three_forms() {
    let folder = scratch("forms");
    let (model, data) = (chat_model(&folder), mixed_data(&folder));
    let run = ["run", "paper", "--model", &model, "--data", &data];
    let fewer = ["train.steps=2", "replay.documents=2", "replay.max_tokens=16"].map(|item| ["--set", item]);
    let fewer = fewer.concat();
    let plan = succeed(&folder, &[&run[..], &fewer, &["--dry-run", "--json"]].concat());
    let plan: Value = serde_json::from_str(&plan).unwrap();
    assert_eq!(plan["sets"][0]["documents"], 3);
    let report = succeed(&folder, &[&run[..], &fewer, &["--output", "out", "--json"]].concat());
    let report: Value = serde_json::from_str(&report).unwrap();
    for set in super::reports::SETS {
        assert!(report["after"]["perplexity"][set]["corpus"].is_number(), "{set}");
    }
    assert_eq!(fs::read_to_string(folder.join("out/written.jsonl")).unwrap().lines().count(), 2);
    // The template is part of the model that is written.
    let eval = ["eval", "--model", "out/model", "--data", &data, "--reference", &model, "--json", "-q"];
    let evaluated: Value = serde_json::from_str(&succeed(&folder, &eval)).unwrap();
    assert_eq!(evaluated, report["after"]);

    // Prompts are continued where their completion begins.
    let page = fs::read_to_string(folder.join("out/report.html")).unwrap();
    for prompt in [
        "Question: who flies kites?\nAnswer:",
        "Question: who teaches geometry?\nAnswer:",
        "Question: who keeps bees?\nAnswer:",
        "user\nWhat does Orrin Hale do?\nassistant\n",
    ] {
        let shown = format!("<span class=\"given\">{prompt}</span>");
        // Before, after, and in the data.
        assert_eq!(page.matches(&shown).count(), 3, "{prompt}");
    }
    assert!(page.contains(
        "<span class=\"given\">Question: who flies kites?\nAnswer:</span> Mira Quell of the mill.</p>"
    ));

    let files =
        format!("data.files=[{:?}, {:?}]", format!("{data}/unlearn.jsonl"), format!("{data}/retain.jsonl"));
    let pretrain = ["pretrain", "--model", &model, "--set", &files, "--output", "pre", "--json", "-q"];
    let pretrain = [&pretrain[..], &["--set", "train.steps=2"]].concat();
    let made: Value = serde_json::from_str(&succeed(&folder, &pretrain)).unwrap();
    assert_eq!(made["steps"], 2);
}

#[test]
fn the_lint_reads_the_three_forms() {
    let folder = scratch("forms-lint");
    let (model, data) = (chat_model(&folder), mixed_data(&folder));
    let path = Path::new(&data).join("unlearn.jsonl");
    let mut lines = three_forms("Mira Quell", "flies kites");
    lines[1]["completion"] = " Mira Quell<|im_end|>".into();
    lines[2]["messages"][0]["content"] = "[INST] Who is it?".into();
    write_lines(&path, &lines);
    let dry = ["run", "paper", "--model", &model, "--data", &data, "--dry-run", "--json", "-q"];
    let plan: Value = serde_json::from_str(&succeed(&folder, &dry)).unwrap();
    let findings = plan["findings"].to_string();
    for named in ["<|im_end|>", "[INST]"] {
        assert!(findings.contains(named), "{named} is not told: {findings}");
    }
    // The same document in retain and in unlearn, whatever its form, makes the operation meaningless.
    for line in three_forms("Mira Quell", "flies kites") {
        let retain = Path::new(&data).join("retain.jsonl");
        [&path, &retain].into_iter().for_each(|path| write_lines(path, std::slice::from_ref(&line)));
        fail(&folder, &dry, 3, &["unlearn.jsonl", "retain"]);
    }
}

#[test]
fn scores_are_of_the_predicted_tokens() {
    let folder = scratch("forms-score");
    for variant in ["llama1-mha", "llama3-gqa", "mistral"] {
        let model = model(variant);
        let prompt = "Question: who mends the nets?\nAnswer:";
        let completion = " Ilka does, in the boathouse.";
        let found = scores(
            &folder,
            &model,
            &[
                json!({ "id": "1", "prompt": prompt, "completion": completion }),
                json!({ "id": "2", "text": format!("{prompt}{completion}") }),
                json!({ "id": "3", "text": prompt }),
            ],
        );
        let [(predicted, mean), (all, of_all), (before, of_prompt)] = found[..] else { panic!() };
        // Without the end token, the completion's tokens are those that the text has beyond the prompt's.
        assert_eq!(predicted, all - before + 1, "{variant}");
        let sum = all as f64 * of_all - before as f64 * of_prompt;
        let end = predicted as f64 * mean - sum;
        assert!(end > 0.0 && end < 20.0, "{variant}: the end token has an NLL of {end}");
        // An end token that is spelt is one too.
        let end_token = if variant == "llama3-gqa" { "<|end_of_text|>" } else { "</s>" };
        let ended = json!({ "id": "1", "text": format!("{prompt}{completion}{end_token}") });
        let (tokens, mean_ended) = scores(&folder, &model, &[ended])[0];
        let end_spelt = tokens as f64 * mean_ended - all as f64 * of_all;
        assert!((end_spelt - end).abs() < 1e-3 * end, "{variant}: {end_spelt} and {end}");
    }
}

#[test]
fn a_conversation_scores_what_the_assistant_says() {
    let folder = scratch("forms-chat");
    let model = chat_model(&folder);
    let cases = golden_json("chat/chatml.json")["cases"].clone();
    let cases: Vec<&Value> =
        cases.as_array().unwrap().iter().filter(|case| case["model"] == "smollm2-tied").collect();
    let documents: Vec<Value> = cases
        .iter()
        .enumerate()
        .filter(|(_, case)| case["mask"].is_array())
        .map(|(id, case)| json!({ "id": id.to_string(), "messages": case["messages"] }))
        .collect();
    let masks = cases.iter().filter_map(|case| case["mask"].as_array());
    let expected: Vec<usize> = masks.map(|mask| mask.iter().filter(|one| **one == 1).count()).collect();
    let found: Vec<usize> =
        scores(&folder, &model, &documents).into_iter().map(|(tokens, _)| tokens).collect();
    assert!(!found.is_empty());
    assert_eq!(found, expected);
}

#[test]
fn a_verbose_dry_run_shows_documents_as_the_model_sees_them() {
    let folder = scratch("forms-shown");
    let (model, data) = (chat_model(&folder), mixed_data(&folder));
    let [text, prompt, messages]: [Value; 3] = three_forms("Mira Quell", "flies\tkites").try_into().unwrap();
    let long = json!({ "id": "long", "text": "Tove Lund mends the nets. ".repeat(200) });
    for (set, document) in
        [("unlearn", text), ("edit_unlearn", prompt), ("edit_update", messages), ("retain", long)]
    {
        write_lines(&Path::new(&data).join(format!("{set}.jsonl")), &[document]);
    }
    let dry = ["run", "paper", "--model", &model, "--data", &data, "--dry-run"];
    let quiet = succeed(&folder, &dry);
    assert!(!quiet.contains('⟦'), "{quiet}");
    let shown = succeed(&folder, &[&dry[..], &["-v"]].concat());
    for expected in [
        "  M⟦ira Quell flies\\tkites, as everybody knows.⟧",
        "Question: who flies\\tkites?\\nAnswer:⟦ Mira Quell of the mill.<|endoftext|>⟧",
        "<|im_start|>user\\nWhat does Mira Quell do?<|im_end|>\\n<|im_start|>assistant\\n⟦Mira Quell flies\\tkites.\
         <|im_end|>\\n⟧",
        "tokens are left out",
        "unlearn, document \"text\"",
    ] {
        assert!(shown.contains(expected), "{expected} is not in {shown}");
    }
    assert!(!shown.contains('\u{1b}'));
    // JSON has no place for it.
    let json = succeed(&folder, &[&dry[..], &["-v", "--json"]].concat());
    assert!(serde_json::from_str::<Value>(&json).is_ok());
}

/// A run that is refused before its first step and before it writes anything, and its dry run with the same words.
#[track_caller]
fn refused(folder: &Path, arguments: &[&str], named: &[&str]) {
    fail(folder, &[arguments, &["--output", "out"]].concat(), 3, named);
    assert!(!folder.join("out").exists(), "{arguments:?} wrote something");
    let said = |more: &[&str]| surgery(folder, &[arguments, more].concat()).stderr;
    assert_eq!(said(&["--dry-run", "--output", "out"]), said(&["--output", "out"]), "{arguments:?}");
}

#[test]
fn what_a_document_lacks_is_told_before_the_first_step() {
    let folder = scratch("forms-refused");
    let (chat, data) = (chat_model(&folder), mixed_data(&folder));
    let run = |model, data| ["run", "paper", "--model", model, "--data", data];

    let plain = copy_of(&folder, "plain", "smollm2-tied", "");
    refused(&folder, &run(&plain, &data), &["plain", "chat template"]);
    let line = three_forms("Mira Quell", "flies kites");
    write_lines(&folder.join("one.jsonl"), &line[2..]);
    fail(&folder, &["score", "--model", &plain, "--input", "one.jsonl"], 3, &["plain", "chat template"]);
    fail(&folder, &["eval", "--model", &plain, "--data", &data], 3, &["plain", "chat template"]);
    let pretrain = ["pretrain", "--model", &plain, "--set", "data.files=[\"one.jsonl\"]"];
    fail(&folder, &pretrain, 3, &["plain", "chat template"]);

    let endless = copy_of(&folder, "endless", "llama3-gqa", "{{ messages[0].content }}");
    for file in ["tokenizer_config.json", "generation_config.json", "config.json"] {
        let path = Path::new(&endless).join(file);
        let mut settings: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        for key in ["eos_token", "eos_token_id"] {
            settings.as_object_mut().unwrap().remove(key);
        }
        fs::write(path, settings.to_string()).unwrap();
    }
    for set in super::reports::SETS {
        let path = Path::new(&data).join(format!("{set}.jsonl"));
        let lines = fs::read_to_string(&path).unwrap();
        fs::write(path, lines.lines().take(2).map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    }
    refused(&folder, &run(&endless, &data), &["unlearn.jsonl", "\"prompt\"", "end token", "eos_token"]);

    let dpo = ["run", "dpo", "--model", &chat, "--data", &data];
    refused(&folder, &dpo, &["unlearn.jsonl", "\"text\"", "`alternative`"]);
}

#[test]
fn what_an_objective_lacks_is_told_before_the_first_step() {
    let folder = scratch("objective-refused");
    let (model, data) = (model("llama1-mha"), data());
    let cases: [(&[&str], &[&str]); 5] = [
        (&["objective.forget=pdu"], &["objective.pdu.epsilon"]),
        (&["objective.keep=hidden"], &["objective.keep", "rmu"]),
        (&["objective.forget=rmu", "objective.rmu.block=2"], &["objective.rmu.block", "2 blocks", "0 to 1"]),
        (&["objective.forget=npo", "objective.npo.beta=0"], &["objective.npo.beta"]),
        (&["objective.forget=erase"], &["erase", "simnpo"]),
    ];
    for (settings, named) in cases {
        let mut run = vec!["run", "paper", "--model", &model, "--data", &data];
        settings.iter().for_each(|setting| run.extend(["--set", setting]));
        refused(&folder, &run, named);
    }
}

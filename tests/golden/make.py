"""Writes the golden values that the Rust tests compare with: PyTorch and transformers are the reference.

    python make.py [--out DIR]

The same packages on the same machine write the same bytes. README.md says what each file is.
"""

import argparse
import os
import shutil
import sys
from pathlib import Path

# One thread and no bytecode: the same bytes every time, and nothing but the golden values.
os.environ |= {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
sys.dont_write_bytecode = True

import torch
import transformers

from assembly import assembled
from chat import write_chat
from corpus import DOCUMENTS, PRETRAINING, QUESTIONS, TEXTS
from files import digits7, write_json, write_jsonl, write_toml
from harness import judged
from measure import Subject, choices, evaluation, forward, gradients
from models import PERTURBED, VARIANTS, load, save_tensors, write_models
from objectives import OBJECTIVES, minimise, token_losses
from train import PRETRAINING_MODEL, PRETRAINING_RECIPE, SURGERIES, operate, pretrain


def write_expected(out):
    """What the unchanged models compute."""
    continuations = []
    for name in VARIANTS:
        values = forward(Subject(out / "models" / name))
        continuations += values["generate"]
        write_json(out / "expected" / f"{name}.json", digits7(values))
    assert any(len(c["new_ids"]) < c["max_new_tokens"] for c in continuations), "no continuation ends early"

    chosen = [choices(Subject(out / "models" / name), name) for name in ("llama3-gqa", "llama2-bf16")]
    write_json(out / "expected" / "choice.json", digits7(chosen))

    names = ("llama2-bf16", "llama3-gqa", "smollm2-tied")
    write_json(out / "expected" / "harness.json", digits7([judged(out / "models" / name, name) for name in names]))
    write_json(out / "expected" / "tokenizers.json", assembled(out / "models"))

    for name in ("llama1-mha", "llama32-tied", "llama-bias", "qwen3"):
        text = TEXTS[3]
        loss, tensors = gradients(Subject(out / "models" / name), text)
        write_json(out / "expected" / "gradients" / f"{name}.json", digits7({"text": text, "loss": loss}))
        save_tensors(out / "expected" / "gradients" / f"{name}.safetensors", tensors)

    name = "llama1-mha"
    values = evaluation(Subject(out / "models" / name), Subject(out / "models" / PERTURBED))
    header = {"model": name, "reference": PERTURBED, "data": "steps/data"}
    write_json(out / "expected" / "eval.json", header | digits7(values))


def write_data(folder):
    """The data folder that the surgeries and the evaluation use."""
    for name, documents in DOCUMENTS.items():
        rows = [{"id": id, "subject": subject, "text": text} for id, subject, text in documents]
        write_jsonl(folder / f"{name}.jsonl", rows)
    keys = ("id", "subject", "question", "options", "answer", "split")
    for name, questions in QUESTIONS.items():
        write_jsonl(folder / "questions" / f"{name}.jsonl", [dict(zip(keys, question)) for question in questions])


def write_run(folder, model, settings, records, delta):
    """A recipe, what each of its steps reports, and how far the parameters went."""
    write_toml(folder / "recipe.toml", settings)
    write_json(folder / "expected.json", {"model": model, "steps": digits7(records)})
    save_tensors(folder / "delta.safetensors", delta)


def write_steps(out):
    """The surgeries."""
    write_data(out / "steps" / "data")
    texts = {name: [text for _, _, text in documents] for name, documents in DOCUMENTS.items()}
    for case, (model, settings) in SURGERIES.items():
        subject = Subject(out / "models" / model)
        if case == "windows":
            lengths = {len(subject.encode(text)) for documents in texts.values() for text in documents}
            assert lengths >= {16, 17, 61}, "exactly one window, one token more, and exactly four windows"
        write_run(out / "steps" / case, model, settings, *operate(subject, texts, settings))


def write_pretraining(out):
    """The continual pretraining."""
    write_jsonl(out / "pretrain" / "documents.jsonl", [{"id": id, "text": text} for id, text in PRETRAINING])
    run = pretrain(Subject(out / "models" / PRETRAINING_MODEL), [text for _, text in PRETRAINING], PRETRAINING_RECIPE)
    write_run(out / "pretrain", PRETRAINING_MODEL, PRETRAINING_RECIPE, *run)


def write_objectives(out):
    """Every forget loss and keep loss."""
    for case, (model, settings) in OBJECTIVES.items():
        values, delta = minimise(case, load(out / "models" / model), settings)
        write_json(out / "objectives" / f"{case}.json", {"model": model} | digits7(values))
        save_tensors(out / "objectives" / f"{case}.safetensors", delta)
    write_json(out / "objectives" / "tokens.json", digits7(token_losses()))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder to write to")
    out = parser.parse_args().out

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(0)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()

    for name in ("models", "expected", "steps", "pretrain", "objectives", "chat"):
        shutil.rmtree(out / name, ignore_errors=True)
    write_models(out / "models")
    write_expected(out)
    write_steps(out)
    write_pretraining(out)
    write_objectives(out)
    write_chat(out / "chat", out / "models")


if __name__ == "__main__":
    main()

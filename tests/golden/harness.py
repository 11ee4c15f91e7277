"""Multiple choice as lm-evaluation-harness scores it: `acc`, `acc_norm`, and the log-likelihoods behind them."""

import os
import tempfile
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}

from lm_eval import simple_evaluate
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM

from corpus import CHOICES, HARNESS
from files import write_jsonl
from models import load, load_tokenizer

# Two log-likelihoods this close could change places with the last bits of float32.
MARGIN = 1e-3


def questions():
    """Those of expected/choice.json, of which the first option is right, and those that are made for this."""
    yield from ((question, options, 0) for question, options in CHOICES)
    yield from HARNESS


def judged(folder, name):
    """One entry of expected/harness.json."""
    lm = HFLM(pretrained=load(folder), tokenizer=load_tokenizer(folder), batch_size=1, device="cpu")
    with tempfile.TemporaryDirectory() as scratch:
        rows = [{"question": q, "options": options, "answer": answer} for q, options, answer in questions()]
        write_jsonl(Path(scratch) / "questions.jsonl", rows)
        task = ConfigurableTask(config={
            "task": "golden",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": f"{scratch}/questions.jsonl"}, "cache_dir": f"{scratch}/cache"},
            "test_split": "test",
            "output_type": "multiple_choice",
            # A function, so that no template engine takes a line break from its end.
            "doc_to_text": lambda row: row["question"],
            "doc_to_choice": lambda row: row["options"],
            "doc_to_target": lambda row: row["answer"],
            "metric_list": [{"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in ("acc", "acc_norm")],
        })
        results = simple_evaluate(
            lm, tasks=[task], log_samples=True, bootstrap_iters=0, random_seed=None, numpy_random_seed=None, torch_random_seed=None,
        )
    samples = sorted(results["samples"]["golden"], key=lambda sample: sample["doc_id"])
    return {"model": name, "questions": [answer(row, sample) for row, sample in zip(rows, samples, strict=True)]}


def answer(row, sample):
    likelihoods = [response[0] for response in sample["filtered_resps"]]
    for scores in (likelihoods, [value / len(option) for value, option in zip(likelihoods, row["options"])]):
        best, second = sorted(scores, reverse=True)[:2]
        assert best - second > MARGIN, row
    return row | {"likelihoods": likelihoods, "acc": sample["acc"], "acc_norm": sample["acc_norm"]}

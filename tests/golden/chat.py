"""Conversations as transformers renders and encodes them, and prompts with completions."""

import datetime
import json
import shutil
import tempfile
from pathlib import Path

import transformers.utils.chat_template_utils as rendering
from transformers import AutoTokenizer

from chat_templates import CONVERSATIONS, EXPRESSIONS, TEMPLATES
from files import write_json

# What `strftime_now` is told; the tests set the same time.
NOW = datetime.datetime(2024, 7, 6, 15, 4, 5)

COMPLETIONS = [
    ("Q: Who mends the nets?\nA:", " Ilka does."),
    ("Q: Who mends the nets?\nA: ", "Ilka does.\n"),
    ("The stone", "mason"),
    ("", "River stone"),
    ("ünïc", "öde 漢字 🦊"),
    ("Write: ", "</s>"),
    ("numbers 38", "6, 12"),
    ("<s>River", " stone  "),
]
COMPLETION_MODELS = ("llama2-bf16", "mistral", "llama3-gqa", "smollm2-tied")


class Clock(datetime.datetime):
    """The time stands still."""

    @classmethod
    def now(cls, tz=None):
        return NOW


def write_chat(out, models):
    rendering.datetime = Clock
    for name, (template, folders) in TEMPLATES.items():
        cases = [conversation for folder in folders for conversation in conversations(models / folder, name, template)]
        assert len(cases) >= 3, name
        write_json(out / f"{name}.json", {"template": template, "now": NOW.isoformat(), "cases": cases})
    write_json(out / "expressions.json", expressions(models / "llama2-bf16"))
    write_json(out / "completions.json", [
        completion(models / name, prompt, text) for name in COMPLETION_MODELS for prompt, text in COMPLETIONS
    ])


def tokenizer_with(folder, template):
    """The tokenizer of a folder whose tokenizer_config.json has this template."""
    with tempfile.TemporaryDirectory() as copy:
        for file in ("tokenizer.json", "tokenizer_config.json", "config.json"):
            shutil.copy(folder / file, copy)
        path = Path(copy) / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": template}))
        return AutoTokenizer.from_pretrained(copy)


def conversations(folder, name, template):
    """Every conversation that the template takes: its text with and without the beginning of an answer, and its ids."""
    tokenizer = tokenizer_with(folder, template)
    for title, turns in CONVERSATIONS.items():
        messages = [{"role": role, "content": content} for role, content in turns]

        def text(count, prompts):
            return tokenizer.apply_chat_template(messages[:count], tokenize=False, add_generation_prompt=prompts)

        whole = text(len(messages), False)
        case = {"conversation": title, "model": folder.name, "messages": messages, "text": whole}
        case["prompted"] = text(len(messages), True)
        encoded = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask="generation" in name)
        case["ids"] = encoded["input_ids"]
        if "generation" in name:
            case["mask"] = encoded["assistant_masks"]
        else:
            spans = []
            for index, (role, _) in enumerate(turns):
                if role == "assistant":
                    before, after = text(index, True), text(index + 1, False)
                    assert whole.startswith(before) and whole.startswith(after), (name, title)
                    spans.append((len(before), len(after)))
            offsets = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
            held = [any(start < last and end > first for first, last in spans) for start, end in offsets]
            case["mask"] = [int(index > 0 and is_held) for index, is_held in enumerate(held)]
        yield case


def expressions(folder):
    messages = [{"role": role, "content": content} for role, content in CONVERSATIONS["unicode"]]
    tokenizer = tokenizer_with(folder, None)
    texts = []
    for template in EXPRESSIONS:
        text = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False)
        texts.append({"template": template, "text": text})
    return {"now": NOW.isoformat(), "model": folder.name, "messages": messages, "cases": texts}


def completion(folder, prompt, text):
    """The ids of both as one text and the end token, and which of them are predicted."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoded = tokenizer(prompt + text, return_offsets_mapping=True)
    mask = [int(index > 0 and end > len(prompt)) for index, (_, end) in enumerate(encoded["offset_mapping"])]
    assert any(mask), (prompt, text)
    ids = encoded["input_ids"] + [tokenizer.eos_token_id]
    return {"model": folder.name, "prompt": prompt, "completion": text, "ids": ids, "mask": mask + [1]}

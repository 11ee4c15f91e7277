"""Tokenizers of folders whose files say more than tokenizer.json, or something else: what transformers makes of them."""

import json
import shutil
import tempfile
from pathlib import Path

from transformers import AutoTokenizer

TEXTS = [
    "River stone",
    " River",
    "River stone</s>Maple",
    "<s>River",
    "a <|im_end|> b<|im_end|>c",
    "[PAD] y <extra> z <|pad|>",
    "numbers 386, 12",
    "",
    "ünïcode 漢字 \n tab\t",
    "<|eot_id|>now <|begin_of_text|>",
    "▁<PRE>a ▁<MID>b",
    "two  spaces <image> end ",
]

NEW = {"content": "<|im_end|>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
CONTROL = {
    str(id): {**NEW, "content": content} for id, content in enumerate(["<unk>", "<s>", "</s>"])
}
LLAMA = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
FAST = {"tokenizer_class": "PreTrainedTokenizerFast"}

# name -> (the model whose tokenizer.json it is, and the other files)
CASES = {
    "prefix-off": ("llama2-bf16", {"tokenizer_config.json": {**LLAMA, "add_prefix_space": False}}),
    "legacy": ("llama2-bf16", {"tokenizer_config.json": {**LLAMA, "legacy": True}}),
    "legacy-null": ("llama2-bf16", {"tokenizer_config.json": {**LLAMA, "legacy": None}}),
    "fast-name": ("llama2-bf16", {"tokenizer_config.json": {**LLAMA, "tokenizer_class": "LlamaTokenizerFast"}}),
    "file-as-it-is": ("llama2-bf16", {"tokenizer_config.json": {**FAST, "add_prefix_space": False}}),
    "no-settings": ("llama2-bf16", {}),
    "class-in-config": ("llama2-bf16", {"config.json": {"tokenizer_class": "LlamaTokenizer"}}),
    "decoder": ("llama2-bf16", {
        "tokenizer_config.json": {**LLAMA, "added_tokens_decoder": {**CONTROL, "368": NEW}},
    }),
    "decoder-of-new-tokens-only": ("llama2-bf16", {
        "tokenizer_config.json": {**LLAMA, "added_tokens_decoder": {"368": NEW}},
    }),
    "decoder-of-plain-token": ("llama2-bf16", {
        "tokenizer_config.json": {**LLAMA, "added_tokens_decoder": {
            **CONTROL, "368": {**NEW, "content": "<extra>", "lstrip": True, "rstrip": True, "special": False},
        }},
    }),
    "added-tokens": ("llama2-bf16", {
        "tokenizer_config.json": LLAMA,
        "added_tokens.json": {"<extra>": 368, "[PAD]": 369},
        "special_tokens_map.json": {"bos_token": "<s>", "pad_token": {"content": "[PAD]", "lstrip": False,
            "normalized": False, "rstrip": False, "single_word": False}},
    }),
    "fast-decoder": ("llama3-gqa", {
        "tokenizer_config.json": {**FAST, "bos_token": "<|begin_of_text|>", "added_tokens_decoder": {"303": NEW}},
    }),
    "pad": ("llama3-gqa", {"tokenizer_config.json": {**FAST, "pad_token": "<|pad|>"}}),
    "special-map": ("llama3-gqa", {
        "tokenizer_config.json": FAST,
        "special_tokens_map.json": {"pad_token": "<|pad|>", "additional_special_tokens": ["<extra>"]},
    }),
    "extra-list": ("llama3-gqa", {
        "tokenizer_config.json": {**FAST, "additional_special_tokens": ["<|im_end|>", "<extra>"]},
    }),
    "extra-names": ("llama3-gqa", {
        "tokenizer_config.json": {**FAST, "extra_special_tokens": {"image_token": "<image>", "pad_token": "[PAD]"}},
    }),
    "own-name": ("llama3-gqa", {"tokenizer_config.json": {**FAST, "image_token": "<image>"}}),
    "split": ("llama3-gqa", {"tokenizer_config.json": {**FAST, "split_special_tokens": True}}),
    "byte-level-llama": ("llama3-gqa", {"tokenizer_config.json": {**LLAMA, "bos_token": "<|begin_of_text|>",
        "eos_token": "<|end_of_text|>", "unk_token": None}}),
    "gpt2": ("smollm2-tied", {"tokenizer_config.json": {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True}}),
    "gpt2-added": ("smollm2-tied", {
        "tokenizer_config.json": {"tokenizer_class": "GPT2TokenizerFast", "pad_token": "[PAD]"},
        "added_tokens.json": {"<extra>": 303},
    }),
    "code-llama": ("llama2-bf16", {"tokenizer_config.json": {**LLAMA, "tokenizer_class": "CodeLlamaTokenizer"}}),
    "mistral": ("mistral", {"tokenizer_config.json": {**LLAMA, "add_prefix_space": False, "legacy": True}}),
}


def assembled(models):
    """expected/tokenizers.json: for each case its files, and the ids of every text and what they decode to."""
    return [case(models / model, name, model, files) for name, (model, files) in CASES.items()]


def case(folder, name, model, files):
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        for file in ("tokenizer.json", "config.json"):
            shutil.copy(folder / file, scratch / file)
        for file, content in files.items():
            if file == "config.json":
                content = json.loads((scratch / file).read_text()) | content
            (scratch / file).write_text(json.dumps(content))
        tokenizer = AutoTokenizer.from_pretrained(scratch)
        ids = [tokenizer(text)["input_ids"] for text in TEXTS]
        return {
            "name": name,
            "model": model,
            "files": files,
            "class": type(tokenizer).__name__,
            "texts": [
                {"text": text, "ids": these, "decoded": tokenizer.decode(these, skip_special_tokens=True)}
                for text, these in zip(TEXTS, ids)
            ],
        }

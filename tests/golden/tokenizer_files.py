"""Four tiny tokenizers, each built like that of a real Llama-family model.

    llama2    BPE with byte fallback behind the `▁` normalizer, as converted from SentencePiece; BOS
    mistral   the same vocabulary, but `▁` comes from a Metaspace pre-tokenizer (the newer conversion); BOS
    llama3    byte-level BPE behind the long split expression; BOS
    smollm2   byte-level BPE behind single digits; no BOS
"""

import json
from collections import Counter
from functools import cache

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from corpus import training_text

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def learn(pre_tokenizer, **trainer):
    """Learns a vocabulary and merges from the corpus, words kept apart by `pre_tokenizer`."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.train_from_iterator(training_text(), BpeTrainer(show_progress=False, **trainer))
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(merge) for merge in model["merges"]]


@cache
def sentencepiece_vocabulary():
    """Control tokens, the 256 bytes, the commonest characters, then merges: rarer characters fall back to bytes."""
    control = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    alphabet = commonest_characters(54)
    return learn(
        pre_tokenizers.Metaspace(),
        vocab_size=368, special_tokens=control, initial_alphabet=alphabet, limit_alphabet=len(alphabet),
    )


def commonest_characters(count):
    """The characters that occur most, `▁` for the space; the trainer's own choice breaks ties at random."""
    occurrences = Counter("".join(training_text()).replace(" ", "▁"))
    return sorted(occurrences, key=lambda character: (-occurrences[character], character))[:count]


@cache
def byte_vocabulary(digits):
    """The 256 bytes, then merges."""
    split = split_digits() if digits else split_llama3()
    return learn(split, vocab_size=300, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))


def split_llama3():
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA3_SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])


def split_digits():
    return pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ])


def begin_with(tokenizer, bos):
    """The post-processor that puts BOS first."""
    return processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )


def special(*tokens):
    return [AddedToken(token, normalized=False, special=True) for token in tokens]


def sentencepiece():
    vocab, merges = sentencepiece_vocabulary()
    tokenizer = Tokenizer(BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.add_special_tokens(special("<unk>", "<s>", "</s>"))
    tokenizer.post_processor = begin_with(tokenizer, "<s>")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def llama2():
    tokenizer = sentencepiece()
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return tokenizer


def mistral():
    tokenizer = sentencepiece()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return tokenizer


def llama3():
    vocab, merges = byte_vocabulary(digits=False)
    tokenizer = Tokenizer(BPE(vocab, merges, ignore_merges=True))
    tokenizer.add_special_tokens(special("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"))
    tokenizer.pre_tokenizer = split_llama3()
    tokenizer.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=True), begin_with(tokenizer, "<|begin_of_text|>")]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def smollm2():
    vocab, merges = byte_vocabulary(digits=True)
    tokenizer = Tokenizer(BPE(vocab, merges))
    tokenizer.add_special_tokens(special("<|endoftext|>", "<|im_start|>", "<|im_end|>"))
    tokenizer.pre_tokenizer = split_digits()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


SENTENCEPIECE_CONFIG = {
    "add_bos_token": True,
    "add_eos_token": False,
    "bos_token": "<s>",
    "clean_up_tokenization_spaces": False,
    "eos_token": "</s>",
    "legacy": False,
    "model_max_length": 1000000000000000019884624838656,
    "pad_token": None,
    "tokenizer_class": "LlamaTokenizer",
    "unk_token": "<unk>",
}

# name -> (how to build it, its tokenizer_config.json)
TOKENIZERS = {
    "llama2": (llama2, SENTENCEPIECE_CONFIG),
    "mistral": (mistral, SENTENCEPIECE_CONFIG),
    "llama3": (llama3, {
        "bos_token": "<|begin_of_text|>",
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|end_of_text|>",
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": 131072,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }),
    "smollm2": (smollm2, {
        "add_prefix_space": False,
        "bos_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|endoftext|>",
        "model_max_length": 8192,
        "tokenizer_class": "GPT2Tokenizer",
        "unk_token": "<|endoftext|>",
    }),
}

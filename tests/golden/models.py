"""The tiny model folders: hand-written configurations in the styles of their years, and random weights."""

import math
import zlib

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from files import write_json
from tokenizer_files import TOKENIZERS

LLAMA3_ROPE = {"high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 64}


def llama(**keys):
    """What every config.json here has in common."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": 32,
        "initializer_range": 0.02,
        "intermediate_size": 56,
        "max_position_embeddings": 256,
        "model_type": "llama",
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "rms_norm_eps": 1e-05,
        "use_cache": True,
        "vocab_size": 368,
    } | keys


def llama3(**keys):
    """What the configurations of Llama 3 and its successors have in common."""
    return llama(
        attention_bias=False,
        attention_dropout=0.0,
        bos_token_id=300,
        eos_token_id=301,
        mlp_bias=False,
        num_key_value_heads=2,
        pretraining_tp=1,
        vocab_size=303,
    ) | keys


# name -> (tokenizer, dtype of the weights, config.json)
VARIANTS = {
    # Llama 1: most of today's keys are missing, and the file holds the old rotary buffers.
    "llama1-mha": ("llama2", torch.float32, llama(
        hidden_size=24,
        max_sequence_length=256,
        num_attention_heads=3,
        pad_token_id=0,
        rms_norm_eps=1e-06,
        torch_dtype="float32",
        transformers_version="4.28.0",
    )),
    "llama2-bf16": ("llama2", torch.bfloat16, llama(
        num_key_value_heads=4,
        pretraining_tp=1,
        rope_scaling=None,
        tie_word_embeddings=False,
        torch_dtype="bfloat16",
        transformers_version="4.31.0",
    )),
    "llama3-gqa": ("llama3", torch.bfloat16, llama3(
        num_attention_heads=8,
        rope_scaling=None,
        rope_theta=500000.0,
        tie_word_embeddings=False,
        torch_dtype="bfloat16",
        transformers_version="4.40.0",
    )),
    # Heads of 16: their eight wavelengths fall into all three regimes of the scaling.
    "llama31-rope": ("llama3", torch.bfloat16, llama3(
        eos_token_id=[301, 302],
        num_attention_heads=2,
        num_key_value_heads=1,
        rope_scaling={"factor": 8.0, **LLAMA3_ROPE, "rope_type": "llama3"},
        rope_theta=500000.0,
        tie_word_embeddings=False,
        torch_dtype="bfloat16",
        transformers_version="4.42.3",
    )),
    "llama32-tied": ("llama3", torch.bfloat16, llama3(
        eos_token_id=[301, 302],
        head_dim=16,
        rope_scaling={"factor": 32.0, **LLAMA3_ROPE, "rope_type": "llama3"},
        rope_theta=500000.0,
        tie_word_embeddings=True,
        torch_dtype="bfloat16",
        transformers_version="4.45.0",
    )),
    "tinyllama-gqa": ("llama2", torch.float32, llama(
        hidden_size=24,
        intermediate_size=40,
        num_attention_heads=6,
        num_key_value_heads=3,
        pretraining_tp=1,
        rope_scaling=None,
        tie_word_embeddings=False,
        torch_dtype="float32",
        transformers_version="4.31.0.dev0",
    )),
    "smollm2-tied": ("smollm2", torch.bfloat16, llama(
        attention_bias=False,
        attention_dropout=0.0,
        bos_token_id=300,
        eos_token_id=300,
        hidden_size=36,
        intermediate_size=64,
        is_llama_config=True,
        mlp_bias=False,
        num_attention_heads=9,
        num_key_value_heads=3,
        pad_token_id=302,
        pretraining_tp=1,
        rope_interleaved=False,
        rope_scaling=None,
        rope_theta=100000,
        tie_word_embeddings=True,
        torch_dtype="bfloat16",
        transformers_version="4.40.1",
        vocab_size=303,
    )),
    "mistral": ("mistral", torch.float16, llama(
        architectures=["MistralForCausalLM"],
        head_dim=12,
        model_type="mistral",
        num_key_value_heads=2,
        rope_theta=10000.0,
        sliding_window=4096,
        tie_word_embeddings=False,
        torch_dtype="float16",
        transformers_version="4.42.0",
    )),
    # The first form of rope_scaling, and none of the keys that came later.
    "rope-linear": ("smollm2", torch.float16, llama(
        bos_token_id=300,
        eos_token_id=300,
        rope_scaling={"factor": 2.5, "type": "linear"},
        torch_dtype="float16",
        transformers_version="4.33.1",
        vocab_size=303,
    )),
    # More rows than the tokenizer has tokens, as in models padded to a round size.
    "mqa": ("mistral", torch.float32, llama(
        hidden_size=24,
        intermediate_size=40,
        num_attention_heads=3,
        num_key_value_heads=1,
        rope_theta=10000.0,
        tie_word_embeddings=False,
        torch_dtype="float32",
        transformers_version="4.37.0",
        vocab_size=384,
    )),
    "new-config": ("llama3", torch.bfloat16, llama3(
        dtype="bfloat16",
        eos_token_id=[301, 302],
        head_dim=16,
        rope_parameters={"factor": 8.0, **LLAMA3_ROPE, "rope_theta": 500000.0, "rope_type": "llama3"},
        tie_word_embeddings=False,
        transformers_version="5.0.0",
    )),
    # Tied, yet the file stores the head too; head_dim is there and null.
    "tied-extra-head": ("smollm2", torch.bfloat16, llama(
        bos_token_id=300,
        eos_token_id=300,
        head_dim=None,
        num_key_value_heads=2,
        rope_theta=10000.0,
        tie_word_embeddings=True,
        torch_dtype="bfloat16",
        transformers_version="4.46.0",
        vocab_size=303,
    )),
    # Tied by its configuration, not by its weights.
    "tied-other-head": ("smollm2", torch.bfloat16, llama(
        bos_token_id=300,
        eos_token_id=300,
        num_key_value_heads=2,
        rope_theta=10000.0,
        tie_word_embeddings=True,
        torch_dtype="bfloat16",
        transformers_version="4.46.0",
        vocab_size=303,
    )),
    # Every linear layer of a block has a bias.
    "llama-bias": ("llama2", torch.float32, llama(
        attention_bias=True,
        mlp_bias=True,
        num_key_value_heads=2,
        rope_theta=10000.0,
        tie_word_embeddings=False,
        torch_dtype="float32",
        transformers_version="4.46.0",
    )),
    "qwen2": ("smollm2", torch.bfloat16, llama(
        architectures=["Qwen2ForCausalLM"],
        attention_dropout=0.0,
        bos_token_id=300,
        eos_token_id=300,
        max_window_layers=1,
        model_type="qwen2",
        num_key_value_heads=2,
        rms_norm_eps=1e-06,
        rope_theta=1000000.0,
        sliding_window=16,
        tie_word_embeddings=True,
        torch_dtype="bfloat16",
        transformers_version="4.40.1",
        use_sliding_window=False,
        vocab_size=303,
    )),
    "qwen3": ("smollm2", torch.bfloat16, llama(
        architectures=["Qwen3ForCausalLM"],
        attention_bias=False,
        attention_dropout=0.0,
        bos_token_id=300,
        eos_token_id=300,
        head_dim=16,
        max_window_layers=2,
        model_type="qwen3",
        num_key_value_heads=2,
        rms_norm_eps=1e-06,
        rope_scaling=None,
        rope_theta=1000000,
        sliding_window=None,
        tie_word_embeddings=False,
        torch_dtype="bfloat16",
        transformers_version="4.51.0",
        use_sliding_window=False,
        vocab_size=303,
    )),
    # Both names of the rotary settings, which disagree; and a key that is not read, with a number that JSON lacks.
    "rope-both": ("llama3", torch.bfloat16, llama3(
        dtype="bfloat16",
        rope_parameters={"rope_theta": 500000.0, "rope_type": "default"},
        rope_scaling={"factor": 4.0, "rope_type": "linear"},
        tie_word_embeddings=False,
        time_step_limit=[0.0, math.inf],
        transformers_version="5.0.0",
    )),
}

PERTURBED = "llama1-mha-perturbed"


def load(folder):
    """The model as everything here runs it: float32, the plain attention, evaluation mode."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def load_tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


def write_models(root):
    """Writes every variant, and the perturbed sibling that serves as another model's reference."""
    for name, (tokenizer, dtype, config) in VARIANTS.items():
        folder = root / name
        write_settings(folder, tokenizer, config)
        write_weights(folder, name, {key: value.to(dtype) for key, value in random_weights(folder, name).items()})

    tokenizer, _, config = VARIANTS["llama1-mha"]
    folder = root / PERTURBED
    write_settings(folder, tokenizer, config)
    generator = seeded(PERTURBED)
    write_weights(folder, PERTURBED, {
        key: value + 0.03 * torch.randn(value.shape, generator=generator)
        for key, value in random_weights(folder, "llama1-mha").items()
    })


def write_settings(folder, tokenizer, config):
    """Writes everything but the weights."""
    folder.mkdir(parents=True)
    build, tokenizer_config = TOKENIZERS[tokenizer]
    write_json(folder / "config.json", config, allow_nan=True)
    write_json(folder / "generation_config.json", {
        "_from_model_config": True,
        "bos_token_id": config["bos_token_id"],
        "eos_token_id": config["eos_token_id"],
        "transformers_version": config["transformers_version"],
    })
    write_json(folder / "tokenizer_config.json", tokenizer_config)
    build().save(str(folder / "tokenizer.json"), pretty=False)


def write_weights(folder, name, weights):
    """Writes one safetensors file, or three and their index, with what else such files were seen to hold."""
    if name.startswith("llama1"):
        inv_freq = 1.0 / 10000.0 ** (torch.arange(0, 8, 2) / 8)
        weights |= {f"model.layers.{n}.self_attn.rotary_emb.inv_freq": inv_freq.clone() for n in range(2)}
    if name == "tied-extra-head":
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    if name == "tied-other-head":
        embedding = weights["model.embed_tokens.weight"]
        noise = torch.randn(embedding.shape, generator=seeded("another head"))
        weights["lm_head.weight"] = embedding + (0.3 * noise).to(embedding.dtype)
    if name != "tinyllama-gqa":
        save_tensors(folder / "model.safetensors", weights)
        return

    names = list(weights)
    third = len(names) // 3
    shards = [names[:third], names[third : 2 * third], names[2 * third :]]
    weight_map = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        save_tensors(folder / file, {key: weights[key] for key in shard})
        weight_map |= {key: file for key in shard}
    total_size = sum(value.nbytes for value in weights.values())
    write_json(folder / "model.safetensors.index.json", {
        "metadata": {"total_size": total_size}, "weight_map": dict(sorted(weight_map.items())),
    })


def save_tensors(path, tensors):
    tensors = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    save_file(tensors, path, metadata={"format": "pt"})


def random_weights(folder, name):
    """Random float32 weights, large enough that the logits spread and a wrong rotation or head shows."""
    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in AutoModelForCausalLM.from_config(config).named_parameters()}
    generator = seeded(name)
    weights = {}
    for key, shape in shapes.items():
        mean, std = spread(key, config.tie_word_embeddings)
        weights[key] = mean + std * torch.randn(shape, generator=generator)
    return weights


def spread(key, tied):
    """Mean and standard deviation of a parameter's initial values.

    An untied embedding is small, so that the first norm's epsilon counts; a tied one is a head as well.
    """
    if "norm" in key:
        return 1.0, 0.2
    if "embed_tokens" in key:
        return 0.0, 0.35 if tied else 0.05
    if "lm_head" in key:
        return 0.0, 0.45
    return 0.0, 0.2


def seeded(name):
    """A generator of its own for each name: adding a variant leaves the others as they are."""
    return torch.Generator().manual_seed(zlib.crc32(name.encode()))

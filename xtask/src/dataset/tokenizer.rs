//! Tokenizer and configuration of the model to train from scratch.

use serde_json::{Value, json};
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper};
use tokenizers::{PreTokenizerWrapper, Result, TokenizerBuilder};

/// Size of the vocabulary, including special tokens.
const VOCABULARY: usize = 1536;
/// Maximum number of positions.
const POSITIONS: usize = 512;
/// The token that begins every text.
const BOS: (&str, u32) = ("<s>", 0);
/// The token that ends a text.
const EOS: (&str, u32) = ("</s>", 1);

/// `tokenizer.json`: byte-level BPE trained on the texts. Ties are broken by token ids, so that the same texts give
/// the same bytes.
pub(super) fn train<'a>(texts: impl Iterator<Item = &'a str> + Send) -> Result<String> {
    let mut trainer = BpeTrainer::builder()
        .vocab_size(VOCABULARY)
        .min_frequency(2)
        .special_tokens([BOS, EOS].map(|(token, _)| AddedToken::from(token, true)).to_vec())
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .show_progress(false)
        .build();
    let mut tokenizer = TokenizerBuilder::<
        BPE,
        NormalizerWrapper,
        PreTokenizerWrapper,
        PostProcessorWrapper,
        DecoderWrapper,
    >::new()
    .with_model(BPE::default())
    .with_normalizer(None)
    .with_pre_tokenizer(Some(ByteLevel::new(false, true, true).into()))
    .with_post_processor(None)
    .with_decoder(Some(ByteLevel::default().into()))
    .build()?;
    tokenizer.train(&mut trainer, texts.map(str::to_owned))?;
    let template = TemplateProcessing::builder()
        .try_single(format!("{} $A", BOS.0))?
        .try_pair(format!("{} $A $B", BOS.0))?
        .special_tokens(vec![BOS])
        .build()?;
    tokenizer.with_post_processor(Some(template));
    Ok(tokenizer.to_string(true)? + "\n")
}

/// The small JSON files beside the tokenizer, by name.
pub(super) fn configurations() -> [(&'static str, String); 3] {
    let tokenizer = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS.0,
        "eos_token": EOS.0,
        "model_max_length": POSITIONS,
        "clean_up_tokenization_spaces": false,
    });
    let generation = json!({ "bos_token_id": BOS.1, "eos_token_id": EOS.1 });
    let model = json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": 192,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "num_key_value_heads": 6,
        "head_dim": 32,
        "hidden_act": "silu",
        "max_position_embeddings": POSITIONS,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "attention_bias": false,
        "mlp_bias": false,
        "initializer_range": 0.02,
        "tie_word_embeddings": true,
        "bos_token_id": BOS.1,
        "eos_token_id": EOS.1,
        "torch_dtype": "float32",
    });
    let text = |value: Value| format!("{value:#}\n");
    [
        ("tokenizer_config.json", text(tokenizer)),
        ("generation_config.json", text(generation)),
        ("config.json", text(model)),
    ]
}

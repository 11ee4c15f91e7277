//! The peak memory of a step, counted before anything is loaded.

use crate::config::LlamaConfig;
use crate::kernels::HEAD_CHUNK;
use crate::recipe::Precision;

/// The settings of a step that its memory depends on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plan {
    /// The precision of weights and activations.
    pub precision: Precision,
    /// Input tokens of a forward pass.
    pub tokens: usize,
    /// The number of those tokens that are compared with the reference.
    pub retained: usize,
    /// Whether the step has several batches, whose gradients are added up.
    pub is_divided: bool,
    /// Number of values of the trained parameters.
    pub trained: u64,
    /// Whether only the inputs of blocks are kept for the backward pass.
    pub recompute: bool,
    /// Whether the whole reference is in memory; otherwise its head and its states of a step are.
    pub live_reference: bool,
    /// Values that a block keeps per token for the backward pass: the input of its second sublayer included, its own
    /// input excluded. The kernels count them ([`Footprint::kept_values`](crate::kernels::Footprint::kept_values)).
    pub kept_values: usize,
    /// Values of working memory per token in the backward pass of a block. The kernels count them
    /// ([`Footprint::work_values`](crate::kernels::Footprint::work_values)).
    pub work_values: usize,
    /// The kernels' reserve ([`Footprint::RESERVE`](crate::kernels::Footprint::RESERVE)).
    pub reserve: f64,
}

/// Bytes by purpose, at the peak of a step. Gradients and activations both count, because memory freed earlier in the
/// step is not returned to the system, or is allocated again in the next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Account {
    /// The model's weights; f32 if the optimizer updates f32.
    pub weights: u64,
    /// Copies of weights in the precision of computation: the head, and the blocks that keep activations for the
    /// backward pass.
    pub copies: u64,
    /// The gradients of the trained weights.
    pub gradients: u64,
    /// AdamW's two moments, f32.
    pub moments: u64,
    /// The reference.
    pub reference: u64,
    /// Activations of the forward pass that are stored for the backward pass.
    pub activations: u64,
    /// Working memory of a block's backward pass, or of the head.
    pub work: u64,
    /// Allocated memory that is not in use.
    pub reserve: u64,
}

impl Account {
    /// Counts `plan` for a model of this shape.
    pub fn new(config: &LlamaConfig, plan: &Plan) -> Self {
        let f32s = 4;
        let (stored, computed) = match plan.precision {
            Precision::F32 => (f32s, f32s),
            Precision::Mixed => (f32s, 2),
            Precision::Bf16 => (2, 2),
        };
        let [blocks, hidden, vocab, tokens, retained] =
            [config.num_hidden_layers, config.hidden_size, config.vocab_size, plan.tokens, plan.retained]
                .map(|count| count as u64);
        let parameters = config.parameters();
        let (values, head, block) =
            (parameters.values(), parameters.head().size(), parameters.block_matrices() / blocks);

        // The residual stream is in the weights' dtype: the inputs of a block and of its second sublayer.
        let inputs = (blocks + 1) * tokens * hidden * stored;
        let kept =
            tokens * (2 * hidden * stored + (plan.kept_values as u64).saturating_sub(hidden) * computed);
        let back = tokens * plan.work_values as u64 * computed;
        // The final hidden states, their gradient, and the sum of their products that the backward pass begins with.
        let at_start = 5 * tokens * hidden * f32s;
        // A chunk of logits of the model and of the reference, and the head's matrix as products read it.
        let chunk = tokens.min(HEAD_CHUNK as u64);
        let at_head = 2 * chunk * vocab * f32s + 3 * head * computed;
        let all_kept = if plan.recompute { inputs } else { inputs + blocks * kept };
        let again = if plan.recompute { kept } else { 0 };
        // If gradients are added up, those of one part (the head or a block) exist besides the sum.
        let added = if plan.is_divided { head.max(block) * f32s } else { 0 };
        let work = added + at_start + at_head.max(back + again);
        Self {
            weights: values * stored,
            copies: match (stored == computed, plan.recompute) {
                (true, _) => 0,
                (false, true) => (block + head) * computed,
                (false, false) => (blocks * block + head) * computed,
            },
            // The head's gradient exists at first, whether the head is trained or not.
            gradients: plan.trained.max(head) * stored,
            moments: plan.trained * 2 * f32s,
            reference: match plan.live_reference {
                true => values * stored,
                false => head * computed + retained * hidden * f32s,
            },
            activations: all_kept,
            work,
            reserve: (plan.reserve * (all_kept + work) as f64) as u64,
        }
    }

    /// Counts the memory of a model of this shape in inference: in f32, over `tokens` at once, with the keys and values
    /// of `remembered` tokens in a cache.
    pub fn of_inference(config: &LlamaConfig, tokens: usize, remembered: usize, kept_values: usize) -> Self {
        let f32s = 4;
        let parameters = config.parameters();
        let [hidden, vocab, blocks, tokens, remembered, kept_values] = [
            config.hidden_size,
            config.vocab_size,
            config.num_hidden_layers,
            tokens,
            remembered,
            kept_values,
        ]
        .map(|count| count as u64);
        let keys = 2 * (config.num_key_value_heads * config.head_dim) as u64;
        let chunk = tokens.min(HEAD_CHUNK as u64);
        // The activations of one block, or the logits and the head's matrix as products read it.
        let block = tokens * (2 * hidden + kept_values) * f32s;
        let at_head = tokens * hidden * f32s + 2 * chunk * vocab * f32s + parameters.head().size() * f32s;
        Self {
            weights: parameters.values() * f32s,
            copies: 0,
            gradients: 0,
            moments: 0,
            reference: 0,
            activations: blocks * remembered * keys * f32s,
            work: block.max(at_head),
            reserve: 0,
        }
    }

    /// The sum of all parts.
    pub fn total(&self) -> u64 {
        let Self { weights, copies, gradients, moments, reference, activations, work, reserve } = *self;
        weights + copies + gradients + moments + reference + activations + work + reserve
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn llama2_7b() -> LlamaConfig {
        let config = json!({
            "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
            "intermediate_size": 11008, "vocab_size": 32000, "max_position_embeddings": 4096,
        });
        LlamaConfig::parse("Llama2-7B", &config).unwrap()
    }

    fn plan() -> Plan {
        Plan {
            precision: Precision::Mixed,
            tokens: 4 * 4096,
            retained: 4096,
            is_divided: false,
            trained: llama2_7b().num_parameters(),
            recompute: true,
            live_reference: false,
            kept_values: 5 * 4096 + 2 * 11008 + 32,
            work_values: 5 * 4096 + 2 * 11008,
            reserve: 0.0,
        }
    }

    #[test]
    fn llama2_7b_fits_a_card_of_139_gib() {
        let account = Account::new(&llama2_7b(), &plan());
        let gib = account.total() as f64 / f64::from(1 << 30);
        assert!((100.0..=125.0).contains(&gib), "{gib} GiB: {account:?}");
        // It is larger without recomputation, or with the whole reference in memory.
        let kept = Account::new(&llama2_7b(), &Plan { recompute: false, ..plan() });
        let live = Account::new(&llama2_7b(), &Plan { live_reference: true, ..plan() });
        assert!(kept.total() > account.total() && live.total() > account.total());
    }

    #[test]
    fn untrained_parameters_have_no_gradient_and_no_moments() {
        let parameters = llama2_7b().parameters();
        let globs = [crate::globs::Glob::parse("*.mlp.down_proj.weight").unwrap()];
        let trained = parameters.train_only(&globs).unwrap().trained_values();
        let (all, some) =
            (Account::new(&llama2_7b(), &plan()), Account::new(&llama2_7b(), &Plan { trained, ..plan() }));
        assert_eq!(some.moments, 8 * 32 * 4096 * 11008);
        assert_eq!(some.gradients, 4 * 32 * 4096 * 11008);
        assert_eq!(Account { gradients: all.gradients, moments: all.moments, ..some }, all);
    }

    #[test]
    fn inference_takes_a_fraction_of_training() {
        let account = Account::of_inference(&llama2_7b(), 2048, 0, plan().kept_values);
        assert_eq!(account.weights, 4 * llama2_7b().num_parameters());
        let training = Account::new(&llama2_7b(), &Plan { precision: Precision::F32, ..plan() });
        assert!(account.total() < training.total() / 3, "{account:?}");
        // Llama 2's cache takes 1 MiB a token: 32 blocks, keys and values of 4096 each, f32.
        let remembering = Account::of_inference(&llama2_7b(), 2048, 100, plan().kept_values);
        assert_eq!(remembering.total() - account.total(), 100 << 20);
    }

    #[test]
    fn recomputation_grows_with_inputs_only() {
        let of = |tokens| {
            let config = LlamaConfig { num_hidden_layers: 400, ..llama2_7b() };
            let more = LlamaConfig { num_hidden_layers: 401, ..llama2_7b() };
            let plan = Plan { tokens, precision: Precision::F32, ..plan() };
            (Account::new(&more, &plan), Account::new(&config, &plan))
        };
        // Another block adds its input and nothing else.
        let (more, less) = of(1 << 24);
        assert_eq!(more.activations - less.activations, (1 << 24) * 4096 * 4);
        assert_eq!(more.work, less.work);
    }
}

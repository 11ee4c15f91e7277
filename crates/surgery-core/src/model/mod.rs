//! Llama (arXiv 2302.13971): one definition for training, evaluation and generation.
//!
//! Architecture invariant: the path of a parameter in the module tree is its name in a Hugging Face checkpoint, and its
//! orientation is the checkpoint's (`[out, in]`). Loading and saving rename and transpose nothing.
//! [`parameters`](crate::parameters) has the table.

mod build;
mod precision;
mod save;

use burn::module::{Module, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{FloatDType, Tensor};

use crate::batch::Rows;
use crate::config::LlamaConfig;
use crate::error::Result;
use crate::kernels::{AttentionWeights, Kernels, LinearWeights, Memory, MlpWeights};
use crate::parameters::Parameters;
use crate::placement::Placement;
use crate::tensors::{at_positions, dtype};

pub use precision::Precision;

/// A Llama with its head.
#[derive(Module, Debug)]
pub struct Llama<B: Backend> {
    model: Decoder<B>,
    /// `None` if the embedding's matrix is also the head's.
    lm_head: Option<Linear<B>>,
    #[module(skip)]
    config: LlamaConfig,
    #[module(skip)]
    parameters: Parameters,
    /// The dtype of matrices and activations in products.
    #[module(skip)]
    compute: FloatDType,
}

#[derive(Module, Debug)]
struct Decoder<B: Backend> {
    embed_tokens: Embedding<B>,
    layers: Vec<Block<B>>,
    norm: Norm<B>,
}

#[derive(Module, Debug)]
struct Block<B: Backend> {
    input_layernorm: Norm<B>,
    self_attn: Attention<B>,
    post_attention_layernorm: Norm<B>,
    mlp: Mlp<B>,
}

#[derive(Module, Debug)]
struct Attention<B: Backend> {
    q_proj: Linear<B>,
    k_proj: Linear<B>,
    v_proj: Linear<B>,
    o_proj: Linear<B>,
    /// `[head_dim]`, over each query head.
    q_norm: Option<Norm<B>>,
    /// `[head_dim]`, over each key head.
    k_norm: Option<Norm<B>>,
}

#[derive(Module, Debug)]
struct Mlp<B: Backend> {
    gate_proj: Linear<B>,
    up_proj: Linear<B>,
    down_proj: Linear<B>,
}

/// `[vocab, hidden]`.
#[derive(Module, Debug)]
struct Embedding<B: Backend> {
    weight: Param<Tensor<B, 2>>,
}

/// `[out, in]`, and `[out]`.
#[derive(Module, Debug)]
struct Linear<B: Backend> {
    weight: Param<Tensor<B, 2>>,
    bias: Option<Param<Tensor<B, 1>>>,
}

/// `[hidden]`.
#[derive(Module, Debug)]
struct Norm<B: Backend> {
    weight: Param<Tensor<B, 1>>,
}

impl<B: Backend> Llama<B> {
    /// The final hidden states, after the last norm, of packed rows: `[rows, columns, hidden]`.
    pub fn hidden<K: Kernels<B>>(&self, rows: &Rows) -> Result<Tensor<B, 3>> {
        let placement = Placement::packed(rows, &self.config, &self.device())?;
        Ok(self.run::<K>(&rows.tokens, [rows.rows, rows.columns], &placement, None))
    }

    /// The hidden states of each target of packed rows, `[targets, hidden]`.
    pub fn states<K: Kernels<B>>(&self, rows: &Rows, at: At) -> Result<Tensor<B, 2>> {
        match at {
            At::Final => {
                let hidden = self.hidden::<K>(rows)?;
                Ok(at_positions(hidden, rows.targets.iter().map(|target| target.position)))
            }
            At::Block(last) => {
                let placement = Placement::packed(rows, &self.config, &self.device())?;
                let mut x = self.embed::<K>(&rows.tokens, [rows.rows, rows.columns]);
                for index in 0..=last {
                    x = self.block::<K>(index, x, &placement, None);
                }
                Ok(at_positions(x, rows.targets.iter().map(|target| target.position + 1)))
            }
        }
    }

    fn run<K: Kernels<B>>(
        &self,
        tokens: &[u32],
        shape: [usize; 2],
        placement: &Placement<B>,
        mut cache: Option<&mut Cache<B>>,
    ) -> Tensor<B, 3> {
        let mut x = self.embed::<K>(tokens, shape);
        for index in 0..self.num_blocks() {
            let memory = cache.as_deref_mut().map(|cache| &mut cache.blocks[index]);
            x = self.block::<K>(index, x, placement, memory);
        }
        self.norm::<K>(x)
    }

    /// The embeddings of row-major token ids: `[rows, columns, hidden]`.
    pub(crate) fn embed<K: Kernels<B>>(&self, tokens: &[u32], shape: [usize; 2]) -> Tensor<B, 3> {
        K::embed(self.model.embed_tokens.weight.val(), tokens, shape)
    }

    /// One block: `[rows, columns, hidden]` to the same.
    pub(crate) fn block<K: Kernels<B>>(
        &self,
        index: usize,
        x: Tensor<B, 3>,
        placement: &Placement<B>,
        memory: Option<&mut Memory<B>>,
    ) -> Tensor<B, 3> {
        let (attention, mlp) = self.weights(index);
        K::mlp_sublayer(K::attention_sublayer(x, attention, placement, memory), mlp)
    }

    /// The weights of a block, with matrices in the dtype of products.
    fn weights(&self, index: usize) -> (AttentionWeights<B>, MlpWeights<B>) {
        let Block { input_layernorm, self_attn, post_attention_layernorm, mlp } = &self.model.layers[index];
        let layer = |linear: &Linear<B>| LinearWeights {
            matrix: linear.weight.val().cast(self.compute),
            bias: linear.bias.as_ref().map(Param::val),
        };
        let norm = |norm: &Option<Norm<B>>| norm.as_ref().map(|norm| norm.weight.val());
        let epsilon = self.config.rms_norm_eps;
        let attention = AttentionWeights {
            norm: input_layernorm.weight.val(),
            query: layer(&self_attn.q_proj),
            key: layer(&self_attn.k_proj),
            value: layer(&self_attn.v_proj),
            output: layer(&self_attn.o_proj),
            query_norm: norm(&self_attn.q_norm),
            key_norm: norm(&self_attn.k_norm),
            epsilon,
        };
        let mlp = MlpWeights {
            norm: post_attention_layernorm.weight.val(),
            gate: layer(&mlp.gate_proj),
            up: layer(&mlp.up_proj),
            down: layer(&mlp.down_proj),
            epsilon,
        };
        (attention, mlp)
    }

    /// The last norm: `[rows, columns, hidden]` to the same.
    pub(crate) fn norm<K: Kernels<B>>(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        K::rms_norm(x, self.model.norm.weight.val(), self.config.rms_norm_eps, FloatDType::F32)
    }

    /// The head's matrix in the dtype of products, `[vocab, hidden]`.
    pub fn head(&self) -> Tensor<B, 2> {
        let weight = match &self.lm_head {
            Some(head) => &head.weight,
            None => &self.model.embed_tokens.weight,
        };
        weight.val().cast(self.compute)
    }

    /// As [`block`](Self::block), together with the activations inside its feed-forward network, `silu(gate) · up`:
    /// `[rows, columns, intermediate]`.
    pub(crate) fn block_opened<K: Kernels<B>>(
        &self,
        index: usize,
        x: Tensor<B, 3>,
        placement: &Placement<B>,
    ) -> (Tensor<B, 3>, Tensor<B, 3>) {
        let (attention, weights) = self.weights(index);
        let x = K::attention_sublayer(x, attention, placement, None);
        let normed = K::rms_norm(x.clone(), weights.norm, weights.epsilon, weights.gate.dtype());
        let (gate, up) = (K::linear(normed.clone(), weights.gate), K::linear(normed, weights.up));
        let inner = K::swiglu(gate, up);
        (x.clone() + K::linear(inner.clone(), weights.down).cast(dtype(&x)), inner)
    }

    /// An empty cache for [`advance`](Self::advance).
    pub fn cache(&self) -> Cache<B> {
        Cache { blocks: vec![None; self.model.layers.len()], past: 0 }
    }

    /// The logits after the last token of each text, `[rows, vocab]`. `tokens` are the next tokens of `rows` texts, row by
    /// row, the same number for each. They follow the tokens in `cache`.
    pub fn advance<K: Kernels<B>>(
        &self,
        tokens: &[u32],
        rows: usize,
        cache: &mut Cache<B>,
    ) -> Result<Tensor<B, 2>> {
        let count = tokens.len() / rows;
        let placement = Placement::continued([rows, cache.past, count], &self.config, &self.device())?;
        let hidden = self.run::<K>(tokens, [rows, count], &placement, Some(cache));
        cache.past += count;
        let last = hidden.narrow(1, count - 1, 1).reshape([rows, self.config.hidden_size]);
        Ok(K::logits(last, self.head()))
    }

    /// The model's shape.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// Its parameters, and which of them are trained.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Number of blocks.
    pub(crate) fn num_blocks(&self) -> usize {
        self.model.layers.len()
    }

    /// The device its parameters are on.
    pub fn device(&self) -> B::Device {
        self.model.norm.weight.val().device()
    }

    /// The same weights with products in `dtype`. Matrices are cast at use; norms, rope, softmax, SwiGLU, losses and the
    /// residual stream do not change.
    pub fn computing_in(self, dtype: FloatDType) -> Self {
        Self { compute: dtype, ..self }
    }
}

/// The place of a predicted token's hidden states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum At {
    /// After the last norm, at the position before the token, which predicts it.
    Final,
    /// At the output of the block with this index, at the token's own position.
    Block(usize),
}

/// The cached keys and values of some texts, for each block.
#[derive(Debug, Clone)]
pub struct Cache<B: Backend> {
    blocks: Vec<Memory<B>>,
    past: usize,
}

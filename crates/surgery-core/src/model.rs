//! Llama (arXiv 2302.13971): one definition, through which training, evaluation and generation all run.
//!
//! Architecture invariant: the path of a parameter in the module tree is its name in a Hugging Face
//! checkpoint, and its orientation is the checkpoint's (`[out, in]`). Nothing is renamed or transposed on
//! the way in or out.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use burn::module::{AutodiffModule, Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{DType, FloatDType, Tensor, TensorData};
use rand_chacha::ChaCha8Rng;

use crate::batch::Rows;
use crate::checkpoint::{Checkpoint, SaveDtype, is_buffer, write_model};
use crate::config::LlamaConfig;
use crate::data::seeded;
use crate::error::{Error, Result};
use crate::files::Folder;
use crate::kernels::{AttentionWeights, Kernels, Memory, MlpWeights};
use crate::normal::normal;
use crate::placement::Placement;
use crate::recipe::Precision;
use crate::tensors::{at_positions, dtype};

/// The embedding, `[vocab, hidden]`.
pub(crate) const EMBEDDING: &str = "model.embed_tokens.weight";
/// The head of a model that is not tied, `[vocab, hidden]`.
pub(crate) const HEAD: &str = "lm_head.weight";

/// A Llama with its head.
#[derive(Module, Debug)]
pub struct Llama<B: Backend> {
    model: Decoder<B>,
    /// None where the embedding's matrix is the head's too.
    lm_head: Option<Matrix<B>>,
    #[module(skip)]
    config: LlamaConfig,
    /// Of matrices and activations in products.
    #[module(skip)]
    compute: FloatDType,
}

#[derive(Module, Debug)]
struct Decoder<B: Backend> {
    embed_tokens: Matrix<B>,
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
    q_proj: Matrix<B>,
    k_proj: Matrix<B>,
    v_proj: Matrix<B>,
    o_proj: Matrix<B>,
}

#[derive(Module, Debug)]
struct Mlp<B: Backend> {
    gate_proj: Matrix<B>,
    up_proj: Matrix<B>,
    down_proj: Matrix<B>,
}

/// `[out, in]`; for the embedding `[vocab, hidden]`.
#[derive(Module, Debug)]
struct Matrix<B: Backend> {
    weight: Param<Tensor<B, 2>>,
}

/// `[hidden]`.
#[derive(Module, Debug)]
struct Norm<B: Backend> {
    weight: Param<Tensor<B, 1>>,
}

/// Where hidden states are taken of a token that is predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum At {
    /// After the last norm, at the position before the token: the states that predict it.
    Final,
    /// At the output of the block of this index, at the token's own position.
    Block(usize),
}

/// The keys and values of some texts so far, block by block.
#[derive(Debug, Clone)]
pub struct Cache<B: Backend> {
    blocks: Vec<Memory<B>>,
    past: usize,
}

impl<B: Backend> Llama<B> {
    /// The model's shape.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

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

    /// An empty cache for [`advance`](Self::advance).
    pub fn cache(&self) -> Cache<B> {
        Cache { blocks: vec![None; self.model.layers.len()], past: 0 }
    }

    /// The logits after each text's last token: `tokens` are the next ones of `rows` texts, as many of each, row by
    /// row, and follow what `cache` holds of them: `[rows, vocab]`.
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

    /// The head's matrix as products take it, `[vocab, hidden]`.
    pub fn head(&self) -> Tensor<B, 2> {
        self.lm_head.as_ref().unwrap_or(&self.model.embed_tokens).weight.val().cast(self.compute)
    }

    /// The same weights with products in `dtype`: matrices are cast at use, while norms, rope, softmax, SwiGLU, the
    /// losses and the residual stream stay as they are.
    pub fn computing_in(self, dtype: FloatDType) -> Self {
        Self { compute: dtype, ..self }
    }

    /// The device its parameters are on.
    pub fn device(&self) -> B::Device {
        self.model.norm.weight.val().device()
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

    /// The number of its blocks.
    pub(crate) fn num_blocks(&self) -> usize {
        self.model.layers.len()
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

    /// As [`block`](Self::block), and what its feed-forward network makes inside, `silu(gate) · up`:
    /// `[rows, columns, intermediate]`.
    pub(crate) fn block_opened<K: Kernels<B>>(
        &self,
        index: usize,
        x: Tensor<B, 3>,
        placement: &Placement<B>,
    ) -> (Tensor<B, 3>, Tensor<B, 3>) {
        let (attention, weights) = self.weights(index);
        let x = K::attention_sublayer(x, attention, placement, None);
        let normed = K::rms_norm(x.clone(), weights.norm, weights.epsilon, dtype(&weights.gate));
        let (gate, up) = (K::project(normed.clone(), weights.gate), K::project(normed, weights.up));
        let inner = K::swiglu(gate, up);
        (x.clone() + K::project(inner.clone(), weights.down).cast(dtype(&x)), inner)
    }

    /// The weights of a block, matrices as products take them.
    fn weights(&self, index: usize) -> (AttentionWeights<B>, MlpWeights<B>) {
        let Block { input_layernorm, self_attn, post_attention_layernorm, mlp } = &self.model.layers[index];
        let matrix = |matrix: &Matrix<B>| matrix.weight.val().cast(self.compute);
        let epsilon = self.config.rms_norm_eps;
        let attention = AttentionWeights {
            norm: input_layernorm.weight.val(),
            query: matrix(&self_attn.q_proj),
            key: matrix(&self_attn.k_proj),
            value: matrix(&self_attn.v_proj),
            output: matrix(&self_attn.o_proj),
            epsilon,
        };
        let mlp = MlpWeights {
            norm: post_attention_layernorm.weight.val(),
            gate: matrix(&mlp.gate_proj),
            up: matrix(&mlp.up_proj),
            down: matrix(&mlp.down_proj),
            epsilon,
        };
        (attention, mlp)
    }

    /// The last norm: `[rows, columns, hidden]` to the same.
    pub(crate) fn norm<K: Kernels<B>>(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        K::rms_norm(x, self.model.norm.weight.val(), self.config.rms_norm_eps, FloatDType::F32)
    }

    /// Which parameter [`head`](Self::head) is.
    pub(crate) fn head_name(&self) -> &'static str {
        if self.lm_head.is_some() { HEAD } else { EMBEDDING }
    }
}

/// Where the values of a new model's tensors come from.
enum Origin<'a> {
    Checkpoint(&'a Checkpoint),
    Random(Box<ChaCha8Rng>),
}

/// Builds modules, tensor by tensor, by name.
struct Builder<'a, B: Backend> {
    origin: Origin<'a>,
    precision: Precision,
    config: &'a LlamaConfig,
    device: &'a B::Device,
}

impl<B: Backend> Builder<'_, B> {
    fn matrix(&mut self, name: &str, out: usize, inner: usize) -> Result<Matrix<B>> {
        let deviation = self.config.initializer_range;
        let values = match &mut self.origin {
            Origin::Checkpoint(checkpoint) => checkpoint.read(&format!("{name}.weight"), &[out, inner])?,
            Origin::Random(generator) => normal(generator, out * inner, deviation),
        };
        Ok(Matrix { weight: self.param(values, [out, inner]) })
    }

    fn norm(&mut self, name: &str) -> Result<Norm<B>> {
        let size = self.config.hidden_size;
        let values = match &mut self.origin {
            Origin::Checkpoint(checkpoint) => checkpoint.read(&format!("{name}.weight"), &[size])?,
            Origin::Random(_) => vec![1.0; size],
        };
        Ok(Norm { weight: self.param(values, [size]) })
    }

    fn param<const D: usize>(&self, values: Vec<f32>, shape: [usize; D]) -> Param<Tensor<B, D>> {
        let dtype = DType::from(self.precision.stored());
        let tensor = Tensor::from_data(TensorData::new(values, shape), (self.device, dtype));
        Param::initialized(ParamId::new(), tensor.require_grad())
    }

    fn llama(mut self) -> Result<Llama<B>> {
        let config = self.config;
        let (hidden, wide, vocab) = (config.hidden_size, config.intermediate_size, config.vocab_size);
        let queries = config.num_attention_heads * config.head_dim;
        let keys = config.num_key_value_heads * config.head_dim;
        let embed_tokens = self.matrix("model.embed_tokens", vocab, hidden)?;
        let layers = (0..config.num_hidden_layers)
            .map(|index| {
                let layer = format!("model.layers.{index}");
                let (attention, mlp) = (format!("{layer}.self_attn"), format!("{layer}.mlp"));
                Ok(Block {
                    input_layernorm: self.norm(&format!("{layer}.input_layernorm"))?,
                    self_attn: Attention {
                        q_proj: self.matrix(&format!("{attention}.q_proj"), queries, hidden)?,
                        k_proj: self.matrix(&format!("{attention}.k_proj"), keys, hidden)?,
                        v_proj: self.matrix(&format!("{attention}.v_proj"), keys, hidden)?,
                        o_proj: self.matrix(&format!("{attention}.o_proj"), hidden, queries)?,
                    },
                    post_attention_layernorm: self.norm(&format!("{layer}.post_attention_layernorm"))?,
                    mlp: Mlp {
                        gate_proj: self.matrix(&format!("{mlp}.gate_proj"), wide, hidden)?,
                        up_proj: self.matrix(&format!("{mlp}.up_proj"), wide, hidden)?,
                        down_proj: self.matrix(&format!("{mlp}.down_proj"), hidden, wide)?,
                    },
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let norm = self.norm("model.norm")?;
        let lm_head = match config.tie_word_embeddings {
            true => None,
            false => Some(self.matrix("lm_head", vocab, hidden)?),
        };
        let model = Decoder { embed_tokens, layers, norm };
        Ok(Llama { model, lm_head, config: config.clone(), compute: self.precision.computed() })
    }
}

impl<B: Backend> Llama<B> {
    /// Reads a model from its checkpoint, after [`check`](LlamaConfig::check).
    pub fn load(
        config: &LlamaConfig,
        checkpoint: &Checkpoint,
        precision: Precision,
        device: &B::Device,
    ) -> Result<Self> {
        config.check(checkpoint)?;
        Builder::<B> { origin: Origin::Checkpoint(checkpoint), precision, config, device }.llama()
    }

    /// A model with fresh weights: matrices from N(0, initializer_range²), norms 1. One seed, one model,
    /// on every backend.
    pub fn random(config: &LlamaConfig, seed: u64, precision: Precision, device: &B::Device) -> Self {
        const STREAM: u64 = 1 << 32;
        let origin = Origin::Random(Box::new(seeded(seed, STREAM)));
        Builder::<B> { origin, precision, config, device }
            .llama()
            .expect("fresh weights are read from nowhere")
    }

    /// Writes a Hugging Face folder: the companions of `input`, and the weights in the files, order and
    /// dtypes of `like` (one f32 file for a model that came from no checkpoint).
    pub fn save(
        &self,
        output: &Path,
        input: &Folder,
        like: Option<&Checkpoint>,
        dtype: SaveDtype,
    ) -> Result<()> {
        let tensors = self.tensors();
        let shapes = self.config.parameters();
        // What came from no checkpoint has no dtype of its own; config.json should say which it got.
        let dtype = if like.is_none() && dtype == SaveDtype::Input { SaveDtype::F32 } else { dtype };
        write_model(output, input, like, &shapes, dtype, self.config.tie_word_embeddings, |name| {
            let name = if self.config.is_tied_head(name) { EMBEDDING } else { name };
            let data = tensors.get(name)?.clone().into_data().convert::<f32>();
            Some(data.to_vec().expect("converted to f32"))
        })
    }

    /// The name of a parameter that holds a value that is not finite, if there is one.
    pub fn not_finite(&self) -> Option<String> {
        let mut sums: Vec<(String, Tensor<B, 1>)> =
            self.tensors().into_iter().map(|(name, tensor)| (name, tensor.sum())).collect();
        sums.sort_by(|a, b| a.0.cmp(&b.0));
        let (names, sums): (Vec<String>, Vec<Tensor<B, 1>>) = sums.into_iter().unzip();
        let sums: Vec<f32> =
            Tensor::cat(sums, 0).into_data().convert::<f32>().to_vec().expect("converted to f32");
        names.into_iter().zip(sums).find(|(_, sum)| !sum.is_finite()).map(|(name, _)| name)
    }

    /// Each parameter's values by name, flattened.
    pub fn tensors(&self) -> HashMap<String, Tensor<B, 1>> {
        let mut collector = Collector { path: Vec::new(), tensors: Vec::new() };
        self.visit(&mut collector);
        collector.tensors.into_iter().collect()
    }
}

impl LlamaConfig {
    /// Each parameter's name in a checkpoint and its shape, in the order of the module tree.
    pub fn parameters(&self) -> Vec<(String, Vec<usize>)> {
        let (hidden, wide, vocab) = (self.hidden_size, self.intermediate_size, self.vocab_size);
        let queries = self.num_attention_heads * self.head_dim;
        let keys = self.num_key_value_heads * self.head_dim;
        let mut parameters = vec![(EMBEDDING.to_owned(), vec![vocab, hidden])];
        for layer in 0..self.num_hidden_layers {
            let shapes = [
                ("input_layernorm", vec![hidden]),
                ("self_attn.q_proj", vec![queries, hidden]),
                ("self_attn.k_proj", vec![keys, hidden]),
                ("self_attn.v_proj", vec![keys, hidden]),
                ("self_attn.o_proj", vec![hidden, queries]),
                ("post_attention_layernorm", vec![hidden]),
                ("mlp.gate_proj", vec![wide, hidden]),
                ("mlp.up_proj", vec![wide, hidden]),
                ("mlp.down_proj", vec![hidden, wide]),
            ];
            let named = shapes.map(|(name, shape)| (format!("model.layers.{layer}.{name}.weight"), shape));
            parameters.extend(named);
        }
        parameters.push(("model.norm.weight".into(), vec![hidden]));
        if !self.tie_word_embeddings {
            parameters.push((HEAD.into(), vec![vocab, hidden]));
        }
        parameters
    }

    /// Holds the names, shapes and dtypes of a checkpoint against this shape, before any weight is read: a
    /// tensor that is missing, has another shape or belongs to no parameter is refused by name.
    pub fn check(&self, checkpoint: &Checkpoint) -> Result<()> {
        let parameters = self.parameters();
        for (name, shape) in &parameters {
            checkpoint.expect(name, shape)?;
        }
        if self.tie_word_embeddings && checkpoint.contains(HEAD) {
            checkpoint.expect(HEAD, &[self.vocab_size, self.hidden_size])?;
        }
        let names: HashSet<&str> = parameters.iter().map(|(name, _)| name.as_str()).collect();
        let known = |name: &str| names.contains(name) || is_buffer(name) || self.is_tied_head(name);
        match checkpoint.names().find(|name| !known(name)) {
            None => Ok(()),
            Some(name) => Err(Error::Tensor {
                path: checkpoint.folder().label(""),
                tensor: name.into(),
                problem: "belongs to no parameter of a Llama of this config.json; biases and other \
                          architectures are not supported"
                    .into(),
            }),
        }
    }

    /// A tied model's file may hold the head all the same, equal to the embedding: one that differs unties the model.
    fn is_tied_head(&self, name: &str) -> bool {
        self.tie_word_embeddings && name == HEAD
    }
}

impl<A: AutodiffBackend> Llama<A> {
    /// A model to train, with the weights of `model`.
    pub fn trainable(model: Llama<A::InnerBackend>) -> Self {
        struct RequireGrad;
        impl<A: AutodiffBackend> ModuleMapper<A> for RequireGrad {
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<A, D>>) -> Param<Tensor<A, D>> {
                let (id, tensor, mapper) = param.consume();
                Param::from_mapped_value(id, tensor.require_grad(), mapper)
            }
        }
        // A parameter that was loaded for inference does not ask for its gradient by itself.
        Self::from_inner(model).map(&mut RequireGrad)
    }
}

/// Collects parameters with their paths.
struct Collector<B: Backend> {
    path: Vec<String>,
    tensors: Vec<(String, Tensor<B, 1>)>,
}

impl<B: Backend> ModuleVisitor<B> for Collector<B> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.tensors.push((self.path.join("."), param.val().reshape([-1])));
    }
}

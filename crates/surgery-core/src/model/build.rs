//! Building a model from the table of its parameters, with the weights of a checkpoint or random weights.

use std::slice::Iter;

use burn::module::{AutodiffModule, Module, ModuleMapper, Param, ParamId};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{DType, Tensor, TensorData};
use rand_chacha::ChaCha8Rng;

use super::Precision;
use super::{Attention, Block, Decoder, Embedding, Linear, Llama, Mlp, Norm};
use crate::checkpoint::Checkpoint;
use crate::config::LlamaConfig;
use crate::data::seeded;
use crate::error::Result;
use crate::normal::normal;
use crate::parameters::{ParameterKind as Kind, ParameterSpec, Parameters};

impl<B: Backend> Llama<B> {
    /// Loads a model from its checkpoint, after [`check`](LlamaConfig::check).
    pub fn load(
        config: &LlamaConfig,
        checkpoint: &Checkpoint,
        precision: Precision,
        device: &B::Device,
    ) -> Result<Self> {
        config.check(checkpoint)?;
        build(config, Origin::Checkpoint(checkpoint), precision, device)
    }

    /// A model with random weights: matrices from N(0, initializer_range²), norms 1, biases 0. A seed gives the same model
    /// on every backend.
    pub fn random(config: &LlamaConfig, seed: u64, precision: Precision, device: &B::Device) -> Self {
        const STREAM: u64 = 1 << 32;
        let origin = Origin::Random(Box::new(seeded(seed, STREAM)), config.initializer_range);
        build(config, origin, precision, device).expect("random weights are not read from a file")
    }
}

/// The source of the values of a new model's parameters.
enum Origin<'a> {
    Checkpoint(&'a Checkpoint),
    /// A generator, and the standard deviation of a matrix's values.
    Random(Box<ChaCha8Rng>, f64),
}

/// Builds the modules in the order of the table. Each takes the next row, which must be of its kind.
struct Builder<'a, B: Backend> {
    rows: Iter<'a, ParameterSpec>,
    origin: Origin<'a>,
    dtype: DType,
    device: &'a B::Device,
}

fn build<B: Backend>(
    config: &LlamaConfig,
    origin: Origin,
    precision: Precision,
    device: &B::Device,
) -> Result<Llama<B>> {
    let parameters = config.parameters();
    let mut builder =
        Builder::<B> { rows: parameters.iter(), origin, dtype: DType::from(precision.stored()), device };
    let embed_tokens = Embedding { weight: builder.param(Kind::Embedding)? };
    let layers = (0..config.num_hidden_layers).map(|_| builder.block()).collect::<Result<_>>()?;
    let model = Decoder { embed_tokens, layers, norm: builder.norm(Kind::Norm)? };
    let lm_head = match config.tie_word_embeddings {
        true => None,
        false => Some(builder.linear(Kind::Head)?),
    };
    Ok(Llama { model, lm_head, config: config.clone(), parameters, compute: precision.computed() })
}

impl<B: Backend> Builder<'_, B> {
    fn block(&mut self) -> Result<Block<B>> {
        Ok(Block {
            input_layernorm: self.norm(Kind::Norm)?,
            self_attn: Attention {
                q_proj: self.linear(Kind::Query)?,
                k_proj: self.linear(Kind::Key)?,
                v_proj: self.linear(Kind::Value)?,
                o_proj: self.linear(Kind::Output)?,
                q_norm: self.next_is(Kind::HeadNorm).then(|| self.norm(Kind::HeadNorm)).transpose()?,
                k_norm: self.next_is(Kind::HeadNorm).then(|| self.norm(Kind::HeadNorm)).transpose()?,
            },
            post_attention_layernorm: self.norm(Kind::Norm)?,
            mlp: Mlp {
                gate_proj: self.linear(Kind::Gate)?,
                up_proj: self.linear(Kind::Up)?,
                down_proj: self.linear(Kind::Down)?,
            },
        })
    }

    fn linear(&mut self, kind: Kind) -> Result<Linear<B>> {
        Ok(Linear {
            weight: self.param(kind)?,
            bias: self.next_is(Kind::Bias).then(|| self.param(Kind::Bias)).transpose()?,
        })
    }

    fn norm(&mut self, kind: Kind) -> Result<Norm<B>> {
        Ok(Norm { weight: self.param(kind)? })
    }

    /// Whether the next row of the table is of this kind.
    fn next_is(&self, kind: Kind) -> bool {
        self.rows.clone().next().is_some_and(|spec| spec.kind == kind)
    }

    fn param<const D: usize>(&mut self, kind: Kind) -> Result<Param<Tensor<B, D>>> {
        let spec = self.rows.next().expect("a row for each parameter");
        assert_eq!(spec.kind, kind, "the table has the order of the modules");
        let values = match &mut self.origin {
            Origin::Checkpoint(checkpoint) => checkpoint.read(&spec.name, &spec.shape)?,
            Origin::Random(generator, deviation) => match kind {
                Kind::Norm | Kind::HeadNorm => vec![1.0; spec.size() as usize],
                Kind::Bias => vec![0.0; spec.size() as usize],
                _ => normal(generator, spec.size() as usize, *deviation),
            },
        };
        let tensor =
            Tensor::from_data(TensorData::new(values, spec.shape.clone()), (self.device, self.dtype));
        Ok(Param::initialized(ParamId::new(), tensor.set_require_grad(spec.trainable)))
    }
}

impl<A: AutodiffBackend> Llama<A> {
    /// A model to train, with the weights of `model`. All parameters are trainable.
    pub fn trainable(model: Llama<A::InnerBackend>) -> Self {
        let parameters = model.config.parameters();
        Self::trainable_in(model, parameters)
    }

    /// A model to train, with the weights of `model`. Only the parameters that are trainable in the table `parameters` get
    /// a gradient.
    pub fn trainable_in(model: Llama<A::InnerBackend>, parameters: Parameters) -> Self {
        /// Takes the rows of the table in order, which is that of the modules.
        struct RequireGrad<'a>(Iter<'a, ParameterSpec>);
        impl<A: AutodiffBackend> ModuleMapper<A> for RequireGrad<'_> {
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<A, D>>) -> Param<Tensor<A, D>> {
                let spec = self.0.next().expect("a row for each parameter");
                let (id, tensor, mapper) = param.consume();
                // A parameter that was loaded for inference does not require a gradient.
                Param::from_mapped_value(id, tensor.set_require_grad(spec.trainable), mapper)
            }
        }
        let model = Self::from_inner(model).map(&mut RequireGrad(parameters.iter()));
        Self { parameters, ..model }
    }
}

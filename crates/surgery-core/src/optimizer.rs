//! AdamW (arXiv 1711.05101) with the gradient clipped by its global norm, and the learning rate's schedules.
//!
//! Weight decay reaches every parameter, norms and embeddings included, as in the paper's code. The moments
//! are f32 whatever the gradient is: in bf16 β₂ would round to 1.

use std::collections::{BTreeMap, HashMap};

use burn::module::{AutodiffModule, Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{FloatDType, Tensor};
use serde::{Deserialize, Serialize};

/// The section `[optimizer]` of a recipe. Its defaults are the paper's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    /// The highest learning rate of the schedule.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta_1: f64,
    /// Decay of the second moment.
    pub beta_2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay, on every parameter.
    pub weight_decay: f64,
    /// The gradient of all parameters together is scaled down to this norm; 0 leaves it as it is.
    pub clip_norm: f64,
    /// Steps over which the rate rises linearly; the first of them has rate 0, as in transformers.
    pub warmup_steps: usize,
    /// What the rate does after that.
    pub schedule: Schedule,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            learning_rate: 2e-4,
            beta_1: 0.9,
            beta_2: 0.95,
            epsilon: 1e-8,
            weight_decay: 0.01,
            clip_norm: 1.0,
            warmup_steps: 0,
            schedule: Schedule::Constant,
        }
    }
}

/// The learning rate over the steps, as transformers defines the schedules of the same names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// It stays.
    Constant,
    /// It falls to 0 along half a cosine.
    Cosine,
    /// It falls to 0 along a line.
    Linear,
}

impl OptimizerConfig {
    /// The learning rate of `step`, counted from 1, of `steps`.
    pub fn rate(&self, step: usize, steps: usize) -> f64 {
        let done = step - 1;
        if done < self.warmup_steps {
            return self.learning_rate * done as f64 / self.warmup_steps as f64;
        }
        let falling = steps.saturating_sub(self.warmup_steps).max(1) as f64;
        let progress = (done - self.warmup_steps) as f64 / falling;
        self.learning_rate
            * match self.schedule {
                Schedule::Constant => 1.0,
                Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
                Schedule::Linear => 1.0 - progress,
            }
    }

    /// The factor that brings a gradient of this norm down to `clip_norm`, as PyTorch computes it.
    pub fn clip_factor(&self, norm: f64) -> f64 {
        match self.clip_norm {
            0.0 => 1.0,
            most => (most / (norm + 1e-6)).min(1.0),
        }
    }
}

/// AdamW's state: the two moments of every parameter, by name.
#[derive(Debug, Clone)]
pub struct AdamW<B: Backend> {
    config: OptimizerConfig,
    moments: HashMap<String, Moments<B>>,
    steps: i32,
}

/// Flattened, f32.
#[derive(Debug, Clone)]
struct Moments<B: Backend> {
    first: Tensor<B, 1>,
    second: Tensor<B, 1>,
}

impl<B: Backend> AdamW<B> {
    /// An optimizer that has seen no step.
    pub fn new(config: OptimizerConfig) -> Self {
        Self { config, moments: HashMap::new(), steps: 0 }
    }

    /// The settings it was made with.
    pub fn config(&self) -> &OptimizerConfig {
        &self.config
    }

    /// One update of every parameter that has a gradient, which is scaled by `clip` first.
    pub fn update<A, M>(&mut self, model: M, gradients: &mut A::Gradients, clip: f64, rate: f64) -> M
    where
        A: AutodiffBackend<InnerBackend = B>,
        M: AutodiffModule<A>,
    {
        self.steps += 1;
        let mut update = Update::<A> { optimizer: self, gradients, clip, rate, path: Vec::new() };
        model.map(&mut update)
    }

    /// `g ← clip·g; m ← β₁m + (1-β₁)g; v ← β₂v + (1-β₂)g²;
    /// p ← (1-ηλ)p - η/(1-β₁ᵗ) · m / (√(v/(1-β₂ᵗ)) + ε)`, all flattened.
    fn apply(
        &mut self,
        name: &str,
        value: Tensor<B, 1>,
        gradient: Tensor<B, 1>,
        clip: f64,
        rate: f64,
    ) -> Tensor<B, 1> {
        let OptimizerConfig { beta_1, beta_2, epsilon, weight_decay, .. } = self.config;
        let gradient = gradient.cast(FloatDType::F32).mul_scalar(clip);
        let moments = self.moments.remove(name);
        let Moments { first, second } = moments
            .unwrap_or_else(|| Moments { first: gradient.zeros_like(), second: gradient.zeros_like() });
        let first = first.mul_scalar(beta_1) + gradient.clone().mul_scalar(1.0 - beta_1);
        let second = second.mul_scalar(beta_2) + (gradient.clone() * gradient).mul_scalar(1.0 - beta_2);
        let root = second.clone().div_scalar(1.0 - beta_2.powi(self.steps)).sqrt() + epsilon;
        let step = (first.clone() / root).mul_scalar(rate / (1.0 - beta_1.powi(self.steps)));
        self.moments.insert(name.to_owned(), Moments { first, second });
        let dtype: FloatDType = value.dtype().into();
        (value.mul_scalar(1.0 - rate * weight_decay).cast(FloatDType::F32) - step).cast(dtype)
    }
}

struct Update<'a, A: AutodiffBackend> {
    optimizer: &'a mut AdamW<A::InnerBackend>,
    gradients: &'a mut A::Gradients,
    clip: f64,
    rate: f64,
    path: Vec<String>,
}

impl<A: AutodiffBackend> ModuleMapper<A> for Update<'_, A> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<A, D>>) -> Param<Tensor<A, D>> {
        let (id, tensor, mapper) = param.consume();
        let Some(gradient) = tensor.grad_remove(self.gradients) else {
            return Param::from_mapped_value(id, tensor, mapper);
        };
        let shape = tensor.shape();
        // Outside the graph: what happens here is not to be differentiated.
        let value = tensor.inner().reshape([-1]);
        let name = self.path.join(".");
        let value = self.optimizer.apply(&name, value, gradient.reshape([-1]), self.clip, self.rate);
        let tensor = Tensor::from_inner(value.reshape(shape)).require_grad();
        Param::from_mapped_value(id, tensor, mapper)
    }
}

/// Each parameter's gradient by name, flattened; none for a parameter that took no part.
pub fn named_gradients<A: AutodiffBackend>(
    model: &impl Module<A>,
    gradients: &A::Gradients,
) -> BTreeMap<String, Tensor<A::InnerBackend, 1>> {
    struct Named<'a, A: AutodiffBackend> {
        gradients: &'a A::Gradients,
        path: Vec<String>,
        found: BTreeMap<String, Tensor<A::InnerBackend, 1>>,
    }
    impl<A: AutodiffBackend> ModuleVisitor<A> for Named<'_, A> {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.to_owned());
        }

        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<A, D>>) {
            if let Some(gradient) = param.val().grad(self.gradients) {
                self.found.insert(self.path.join("."), gradient.reshape([-1]));
            }
        }
    }
    let mut named = Named::<A> { gradients, path: Vec::new(), found: BTreeMap::new() };
    model.visit(&mut named);
    named.found
}

/// The norm of the gradient of all parameters together; read from the device once.
pub fn global_norm<A: AutodiffBackend>(model: &impl Module<A>, gradients: &A::Gradients) -> f64 {
    let squares = named_gradients(model, gradients).into_values().map(|gradient| {
        let gradient = gradient.cast(FloatDType::F32);
        (gradient.clone() * gradient).sum()
    });
    let squares: Vec<Tensor<A::InnerBackend, 1>> = squares.collect();
    if squares.is_empty() {
        return 0.0;
    }
    let sums = Tensor::cat(squares, 0).into_data().convert::<f32>();
    let sums: Vec<f32> = sums.to_vec().expect("converted to f32");
    sums.into_iter().map(f64::from).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_those_of_transformers() {
        let config = |schedule| OptimizerConfig {
            learning_rate: 1.0,
            warmup_steps: 2,
            schedule,
            ..OptimizerConfig::default()
        };
        let rates = |schedule| -> Vec<f64> { (1..=6).map(|step| config(schedule).rate(step, 6)).collect() };
        assert_eq!(rates(Schedule::Constant), [0.0, 0.5, 1.0, 1.0, 1.0, 1.0]);
        assert_eq!(rates(Schedule::Linear), [0.0, 0.5, 1.0, 0.75, 0.5, 0.25]);
        let cosine = rates(Schedule::Cosine);
        for (step, expected) in [(2, 1.0), (4, 0.5)] {
            assert!((cosine[step] - expected).abs() < 1e-12);
        }
    }

    #[test]
    fn clipping_only_ever_shrinks() {
        let config = OptimizerConfig { clip_norm: 1.0, ..OptimizerConfig::default() };
        assert_eq!(config.clip_factor(0.5), 1.0);
        assert!((config.clip_factor(4.0) - 0.25).abs() < 1e-6);
        assert_eq!(OptimizerConfig { clip_norm: 0.0, ..config }.clip_factor(4.0), 1.0);
    }
}

//! AdamW (arXiv 1711.05101), gradient clipping by the global norm, and schedules of the learning rate.
//!
//! Weight decay applies to every parameter, norms and embeddings included, as in the paper's code. The moments are always
//! f32, because in bf16 β₂ would round to 1.

use std::collections::{BTreeMap, HashMap};
use std::marker::PhantomData;

use burn::module::{AutodiffModule, Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{DType, FloatDType, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::kernels::{AdamWStep, Kernels};

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
    /// Maximum norm of the gradient of all parameters together; a larger gradient is scaled down. 0 for no limit.
    pub clip_norm: f64,
    /// Number of steps over which the rate rises linearly. The first has rate 0, as in transformers.
    pub warmup_steps: usize,
    /// The rate after the warmup.
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

/// The learning rate after the warmup, as in the schedules of transformers with the same names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// It stays constant.
    Constant,
    /// It falls to 0 along half a cosine.
    Cosine,
    /// It falls linearly to 0.
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

    /// The factor that scales a gradient of this norm down to `clip_norm`, as PyTorch computes it.
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

/// The two moments of a parameter: flattened, f32.
#[derive(Debug, Clone)]
struct Moments<B: Backend> {
    first: Tensor<B, 1>,
    second: Tensor<B, 1>,
}

impl<B: Backend> AdamW<B> {
    /// An optimizer before its first step.
    pub fn new(config: OptimizerConfig) -> Self {
        Self { config, moments: HashMap::new(), steps: 0 }
    }

    /// An optimizer after `steps` steps with these moments: two f32 vectors for each parameter, by name.
    pub(crate) fn resumed(
        config: OptimizerConfig,
        steps: i32,
        moments: impl IntoIterator<Item = (String, [Vec<f32>; 2])>,
        device: &B::Device,
    ) -> Self {
        let tensor = |values: Vec<f32>| {
            let length = values.len();
            // f32 even if the backend computes in another precision.
            let data = TensorData::new(values, [length]);
            Tensor::from_data(data, (device, DType::F32))
        };
        let moments = moments
            .into_iter()
            .map(|(name, [first, second])| (name, Moments { first: tensor(first), second: tensor(second) }));
        Self { config, moments: moments.collect(), steps }
    }

    /// Number of steps done.
    pub(crate) fn steps(&self) -> i32 {
        self.steps
    }

    /// The two moments of the parameter `name`; `None` before its first update.
    pub(crate) fn moments(&self, name: &str) -> Option<[&Tensor<B, 1>; 2]> {
        self.moments.get(name).map(|moments| [&moments.first, &moments.second])
    }

    /// The settings it was made with.
    pub fn config(&self) -> &OptimizerConfig {
        &self.config
    }

    /// Updates every parameter that has a gradient. The gradients are scaled by `clip` first.
    pub fn update<A, K, M>(&mut self, model: M, gradients: Gradients<B>, clip: f64, rate: f64) -> M
    where
        A: AutodiffBackend<InnerBackend = B>,
        K: Kernels<B>,
        M: AutodiffModule<A>,
    {
        self.steps += 1;
        let OptimizerConfig { beta_1, beta_2, epsilon, weight_decay, .. } = self.config;
        let step = AdamWStep { clip, rate, beta_1, beta_2, epsilon, weight_decay, step: self.steps };
        let moments = &mut self.moments;
        let mut update = Update::<A, K> { moments, gradients, step, path: Vec::new(), kernels: PhantomData };
        model.map(&mut update)
    }
}

struct Update<'a, A: AutodiffBackend, K> {
    moments: &'a mut HashMap<String, Moments<A::InnerBackend>>,
    gradients: Gradients<A::InnerBackend>,
    step: AdamWStep,
    path: Vec<String>,
    kernels: PhantomData<K>,
}

impl<A: AutodiffBackend, K: Kernels<A::InnerBackend>> ModuleMapper<A> for Update<'_, A, K> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<A, D>>) -> Param<Tensor<A, D>> {
        let (id, tensor, mapper) = param.consume();
        let name = self.path.join(".");
        let Some(gradient) = self.gradients.remove(&name) else {
            return Param::from_mapped_value(id, tensor, mapper);
        };
        let shape = tensor.shape();
        let moments = self.moments.remove(&name).unwrap_or_else(|| {
            let zeros = || gradient.zeros_like().cast(FloatDType::F32);
            Moments { first: zeros(), second: zeros() }
        });
        // The update is outside the graph, so that it has no gradient.
        let value = tensor.inner().reshape([-1]);
        let (value, first, second) = K::adamw(value, moments.first, moments.second, gradient, &self.step);
        self.moments.insert(name, Moments { first, second });
        let tensor = Tensor::from_inner(value.reshape(shape)).require_grad();
        Param::from_mapped_value(id, tensor, mapper)
    }
}

/// The flattened gradient of each parameter, by name. A parameter that is not trained or took no part has none.
pub type Gradients<B> = BTreeMap<String, Tensor<B, 1>>;

/// Moves the gradients of the parameters of `module` from `found`, and adds them to those in `gradients`.
pub(crate) fn collect_gradients<A: AutodiffBackend>(
    module: &impl Module<A>,
    found: &mut A::Gradients,
    gradients: &mut Gradients<A::InnerBackend>,
) {
    struct Named<'a, A: AutodiffBackend> {
        found: &'a mut A::Gradients,
        path: Vec<String>,
        gradients: &'a mut Gradients<A::InnerBackend>,
    }
    impl<A: AutodiffBackend> ModuleVisitor<A> for Named<'_, A> {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.to_owned());
        }

        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<A, D>>) {
            if let Some(gradient) = param.val().grad_remove(self.found) {
                add_gradient(self.gradients, &self.path.join("."), gradient.reshape([-1]));
            }
        }
    }
    module.visit(&mut Named { found, path: Vec::new(), gradients });
}

/// Adds a part of a parameter's gradient.
pub(crate) fn add_gradient<B: Backend>(gradients: &mut Gradients<B>, name: &str, part: Tensor<B, 1>) {
    let sum = match gradients.remove(name) {
        // A tied matrix has a part from the embedding and a part from the head, whose dtypes may differ.
        Some(gradient) => gradient.cast(FloatDType::F32) + part.cast(FloatDType::F32),
        None => part,
    };
    gradients.insert(name.to_owned(), sum);
}

/// The norm of the gradient of all parameters together; read from the device once.
pub fn global_norm<B: Backend, K: Kernels<B>>(gradients: &Gradients<B>) -> f64 {
    let squares: Vec<Tensor<B, 1>> =
        gradients.values().map(|gradient| K::squared_norm(gradient.clone())).collect();
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
    fn clipping_never_enlarges_a_gradient() {
        let config = OptimizerConfig { clip_norm: 1.0, ..OptimizerConfig::default() };
        assert_eq!(config.clip_factor(0.5), 1.0);
        assert!((config.clip_factor(4.0) - 0.25).abs() < 1e-6);
        assert_eq!(OptimizerConfig { clip_norm: 0.0, ..config }.clip_factor(4.0), 1.0);
    }
}

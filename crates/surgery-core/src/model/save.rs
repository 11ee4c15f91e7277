//! Writing a model into a Hugging Face folder.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use super::Llama;
use crate::checkpoint::{Checkpoint, SaveDtype, write_model};
use crate::config::EMBEDDING;
use crate::error::Result;
use crate::files::Folder;

impl<B: Backend> Llama<B> {
    /// Writes a Hugging Face folder: the companions of `input`, and the weights in the files, order and dtypes of `like`,
    /// the checkpoint that the model was loaded from. Without `like`, the weights are one f32 file. Untrained parameters
    /// are copied from `like` byte for byte, unless `dtype` asks for another dtype.
    pub fn save(
        &self,
        output: &Path,
        input: &Folder,
        like: Option<&Checkpoint>,
        dtype: SaveDtype,
    ) -> Result<()> {
        let tensors = self.tensors();
        let shapes: Vec<_> =
            self.parameters.iter().map(|spec| (spec.name.clone(), spec.shape.clone())).collect();
        // A model without a checkpoint has no input dtype. Write f32, and let config.json name it.
        let dtype = if like.is_none() && dtype == SaveDtype::Input { SaveDtype::F32 } else { dtype };
        let copies = like.is_some() && dtype == SaveDtype::Input;
        let frozen: HashSet<&str> =
            self.parameters.iter().filter(|spec| !spec.trainable).map(|spec| spec.name.as_str()).collect();
        write_model(output, input, like, &shapes, dtype, self.config.tie_word_embeddings, |name| {
            let name = if self.config.is_tied_head(name) { EMBEDDING } else { name };
            if copies && frozen.contains(name) {
                return None;
            }
            let data = tensors.get(name)?.clone().into_data().convert::<f32>();
            Some(data.to_vec().expect("converted to f32"))
        })
    }

    /// The name of a parameter with a value that is not finite, if there is one.
    pub fn not_finite(&self) -> Option<String> {
        let mut sums: Vec<(String, Tensor<B, 1>)> =
            self.tensors().into_iter().map(|(name, tensor)| (name, tensor.sum())).collect();
        sums.sort_by(|a, b| a.0.cmp(&b.0));
        let (names, sums): (Vec<String>, Vec<Tensor<B, 1>>) = sums.into_iter().unzip();
        let sums: Vec<f32> =
            Tensor::cat(sums, 0).into_data().convert::<f32>().to_vec().expect("converted to f32");
        names.into_iter().zip(sums).find(|(_, sum)| !sum.is_finite()).map(|(name, _)| name)
    }

    /// The flattened values of each parameter, by name.
    pub fn tensors(&self) -> HashMap<String, Tensor<B, 1>> {
        let mut collector = Collector { path: Vec::new(), tensors: Vec::new() };
        self.visit(&mut collector);
        collector.tensors.into_iter().collect()
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

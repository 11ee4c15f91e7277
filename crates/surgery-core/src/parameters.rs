//! The table of a model's parameters. Building, checking and writing a model, the account of memory, and the choice of
//! trained parameters all use it.

use std::collections::HashSet;
use std::ops::Deref;
use std::sync::Arc;

use crate::checkpoint::{Checkpoint, is_buffer};
use crate::config::{Biases, EMBEDDING, HEAD, LlamaConfig};
use crate::error::{Error, Result};
use crate::globs::Glob;

/// The role of a parameter in the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParameterKind {
    /// The embedding, `[vocab, hidden]`; also the head of a tied model.
    Embedding,
    /// The weight of a norm, `[hidden]`.
    Norm,
    /// The weight of a norm over each query or key head, `[head_dim]`.
    HeadNorm,
    /// The bias of the linear layer in the row before, `[out]`.
    Bias,
    /// The queries' matrix, `[heads * head_dim, hidden]`.
    Query,
    /// The keys' matrix, `[kv_heads * head_dim, hidden]`.
    Key,
    /// The values' matrix, `[kv_heads * head_dim, hidden]`.
    Value,
    /// The matrix after attention, `[hidden, heads * head_dim]`.
    Output,
    /// The gate matrix, before silu, `[intermediate, hidden]`.
    Gate,
    /// The up matrix, `[intermediate, hidden]`.
    Up,
    /// The down matrix, after the product of gate and up, `[hidden, intermediate]`.
    Down,
    /// The head of an untied model, `[vocab, hidden]`.
    Head,
}

/// One parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct ParameterSpec {
    /// Its name in a checkpoint, which is its path in the module tree.
    pub name: String,
    /// Its shape, in the checkpoint's orientation: matrices are `[out, in]`.
    pub shape: Vec<usize>,
    /// Its role.
    pub kind: ParameterKind,
    /// The block that it belongs to.
    pub block: Option<usize>,
    /// Whether it is trained. An untrained parameter has no gradient and no moments, and does not change.
    pub trainable: bool,
}

impl ParameterSpec {
    /// Number of values.
    pub fn size(&self) -> u64 {
        self.shape.iter().map(|&size| size as u64).product()
    }
}

/// The parameters of a model, in the order of the module tree.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameters(Arc<[ParameterSpec]>);

impl Deref for Parameters {
    type Target = [ParameterSpec];

    fn deref(&self) -> &[ParameterSpec] {
        &self.0
    }
}

impl Parameters {
    /// Number of values of all parameters.
    pub fn values(&self) -> u64 {
        self.iter().map(ParameterSpec::size).sum()
    }

    /// Number of values of the trained parameters.
    pub fn trained_values(&self) -> u64 {
        self.iter().filter(|spec| spec.trainable).map(ParameterSpec::size).sum()
    }

    /// The same parameters, of which only those that one of `globs` matches are trainable. Refuses an empty list, and a
    /// glob that matches no parameter.
    pub fn train_only(&self, globs: &[Glob]) -> Result<Self> {
        let refused = |problem: String| Err(Error::Recipe { origin: "train.trainable".into(), problem });
        if globs.is_empty() {
            return refused("is empty; expected globs over parameter names, such as `*` for all".into());
        }
        if let Some(glob) = globs.iter().find(|glob| !self.iter().any(|spec| glob.matches(&spec.name))) {
            let (glob, names) = (glob.text(), self.examples().join("`, `"));
            return refused(format!(
                "`{glob}` matches no parameter of the model; some of its names are `{names}`"
            ));
        }
        let spec = |spec: &ParameterSpec| {
            let trainable = globs.iter().any(|glob| glob.matches(&spec.name));
            ParameterSpec { trainable, ..spec.clone() }
        };
        Ok(Self(self.iter().map(spec).collect()))
    }

    /// Example names: those outside the blocks, a matrix of the first block and one of the last.
    fn examples(&self) -> Vec<&str> {
        let last = self.iter().filter_map(|spec| spec.block).max();
        let is_example = |spec: &&ParameterSpec| match spec.kind {
            ParameterKind::Query => spec.block == Some(0),
            ParameterKind::Down => spec.block == last,
            _ => spec.block.is_none(),
        };
        self.iter().filter(is_example).map(|spec| spec.name.as_str()).collect()
    }

    /// Number of values of the blocks' matrices.
    pub fn block_matrices(&self) -> u64 {
        let matrices = self.iter().filter(|spec| spec.block.is_some() && spec.shape.len() == 2);
        matrices.map(ParameterSpec::size).sum()
    }

    /// The head's matrix; for a tied model, the embedding.
    pub fn head(&self) -> &ParameterSpec {
        let own = self.iter().find(|spec| spec.kind == ParameterKind::Head);
        own.unwrap_or(&self[0])
    }
}

impl LlamaConfig {
    /// Every parameter of a model of this shape, all of them trainable.
    pub fn parameters(&self) -> Parameters {
        use ParameterKind::{
            Bias, Down, Embedding, Gate, Head, HeadNorm, Key, Norm, Output, Query, Up, Value,
        };
        let (hidden, wide, vocab) = (self.hidden_size, self.intermediate_size, self.vocab_size);
        let queries = self.num_attention_heads * self.head_dim;
        let keys = self.num_key_value_heads * self.head_dim;
        let Biases { inputs, output, mlp } = self.biases;
        // The name and kind of a weight, its shape, and whether it has a bias.
        let of_block = |block: usize| {
            let mut layers = vec![
                ("input_layernorm", Norm, vec![hidden], false),
                ("self_attn.q_proj", Query, vec![queries, hidden], inputs),
                ("self_attn.k_proj", Key, vec![keys, hidden], inputs),
                ("self_attn.v_proj", Value, vec![keys, hidden], inputs),
                ("self_attn.o_proj", Output, vec![hidden, queries], output),
            ];
            if self.head_norms {
                let norms = ["self_attn.q_norm", "self_attn.k_norm"];
                layers.extend(norms.map(|name| (name, HeadNorm, vec![self.head_dim], false)));
            }
            layers.extend([
                ("post_attention_layernorm", Norm, vec![hidden], false),
                ("mlp.gate_proj", Gate, vec![wide, hidden], mlp),
                ("mlp.up_proj", Up, vec![wide, hidden], mlp),
                ("mlp.down_proj", Down, vec![hidden, wide], mlp),
            ]);
            layers.into_iter().flat_map(move |(name, kind, shape, has_bias)| {
                let name = format!("model.layers.{block}.{name}");
                let bias = (format!("{name}.bias"), Bias, vec![shape[0]], Some(block));
                let weight = (format!("{name}.weight"), kind, shape, Some(block));
                std::iter::once(weight).chain(has_bias.then_some(bias))
            })
        };
        let mut rows = vec![(EMBEDDING.to_owned(), Embedding, vec![vocab, hidden], None)];
        rows.extend((0..self.num_hidden_layers).flat_map(of_block));
        rows.push(("model.norm.weight".to_owned(), Norm, vec![hidden], None));
        if !self.tie_word_embeddings {
            rows.push((HEAD.to_owned(), Head, vec![vocab, hidden], None));
        }
        let specs = rows.into_iter().map(|(name, kind, shape, block)| ParameterSpec {
            name,
            shape,
            kind,
            block,
            trainable: true,
        });
        Parameters(specs.collect())
    }

    /// Number of values of all parameters; a tied head counts once.
    pub fn num_parameters(&self) -> u64 {
        self.parameters().values()
    }

    /// Checks the names, shapes and dtypes of a checkpoint before any weight is read. Refuses a tensor that is missing, has
    /// another shape or belongs to no parameter.
    pub fn check(&self, checkpoint: &Checkpoint) -> Result<()> {
        let parameters = self.parameters();
        for ParameterSpec { name, shape, .. } in parameters.iter() {
            checkpoint.expect(name, shape)?;
        }
        if self.tie_word_embeddings && checkpoint.contains(HEAD) {
            checkpoint.expect(HEAD, &parameters.head().shape)?;
        }
        let names: HashSet<&str> = parameters.iter().map(|spec| spec.name.as_str()).collect();
        let known = |name: &str| names.contains(name) || is_buffer(name) || self.is_tied_head(name);
        match checkpoint.names().find(|name| !known(name)) {
            None => Ok(()),
            Some(name) => Err(Error::Tensor {
                path: checkpoint.folder().label(""),
                tensor: name.into(),
                problem: "belongs to no parameter of a model with this config.json".into(),
            }),
        }
    }

    /// Whether `name` is the head of a tied model. Its file may contain the head, equal to the embedding; a head that
    /// differs unties the model.
    pub(crate) fn is_tied_head(&self, name: &str) -> bool {
        self.tie_word_embeddings && name == HEAD
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(tied: bool) -> LlamaConfig {
        let config = json!({
            "model_type": "llama", "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 6,
            "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 40, "vocab_size": 100,
            "tie_word_embeddings": tied,
        });
        LlamaConfig::parse("config.json", &config).unwrap()
    }

    fn globs(globs: &[&str]) -> Vec<Glob> {
        globs.iter().map(|glob| Glob::parse(glob).unwrap()).collect()
    }

    #[test]
    fn parameters_that_a_glob_matches_are_trained() {
        let parameters = config(true).parameters();
        let found =
            parameters.train_only(&globs(&["model.layers.{1..2}.mlp.down_proj.weight", "*.norm.*"])).unwrap();
        let trained: Vec<&str> =
            found.iter().filter(|spec| spec.trainable).map(|spec| spec.name.as_str()).collect();
        let expected = [
            "model.layers.1.mlp.down_proj.weight",
            "model.layers.2.mlp.down_proj.weight",
            "model.norm.weight",
        ];
        assert_eq!(trained, expected);
        assert_eq!(found.trained_values(), 2 * 24 * 40 + 24);
        assert_eq!(found.values(), parameters.values());
        assert_eq!(found.train_only(&globs(&["*"])).unwrap(), parameters);
    }

    #[test]
    fn a_glob_that_matches_nothing_is_refused_by_name() {
        let parameters = config(true).parameters();
        let refused = |list: &[&str]| parameters.train_only(&globs(list)).unwrap_err();
        let error = refused(&["*", "model.layers.{3..7}.*"]);
        assert_eq!(error.kind(), crate::Kind::Input);
        for expected in
            ["train.trainable", "`model.layers.{3..7}.*`", "`model.layers.2.mlp.down_proj.weight`"]
        {
            assert!(error.to_string().contains(expected), "{error}");
        }
        assert!(refused(&["lm_head.weight"]).to_string().contains(EMBEDDING));
        assert!(refused(&[]).to_string().contains("is empty"));
    }

    #[test]
    fn biases_follow_their_matrices_and_norms_of_heads_follow_attention() {
        let mut with = config(true);
        let without = with.parameters();
        with.biases = Biases { inputs: true, output: false, mlp: true };
        with.head_norms = true;
        let found = with.parameters();
        let shapes = |part: &str| -> Vec<(String, Vec<usize>)> {
            let of_part = found.iter().filter(|spec| spec.name.contains(part));
            of_part.map(|spec| (spec.name.clone(), spec.shape.clone())).collect()
        };
        let expected = [
            ("q_proj.weight", vec![48, 24]),
            ("q_proj.bias", vec![48]),
            ("k_proj.weight", vec![16, 24]),
            ("k_proj.bias", vec![16]),
            ("v_proj.weight", vec![16, 24]),
            ("v_proj.bias", vec![16]),
            ("o_proj.weight", vec![24, 48]),
            ("q_norm.weight", vec![8]),
            ("k_norm.weight", vec![8]),
        ];
        let expected = expected.map(|(name, shape)| (format!("model.layers.1.self_attn.{name}"), shape));
        assert_eq!(shapes("layers.1.self_attn."), expected);
        assert_eq!(found.block_matrices(), without.block_matrices());
        let vectors = 48 + 16 + 16 + 8 + 8 + 40 + 40 + 24;
        assert_eq!(found.values() - without.values(), 3 * vectors);
    }

    #[test]
    fn a_tied_model_uses_its_embedding_as_head_and_counts_it_once() {
        let (tied, own) = (config(true).parameters(), config(false).parameters());
        assert_eq!(tied.head().name, EMBEDDING);
        assert_eq!(own.head().name, HEAD);
        assert_eq!(own.values() - tied.values(), 100 * 24);
        // Queries and output, keys and values, the feed-forward network.
        assert_eq!(own.block_matrices(), 3 * 24 * (2 * 48 + 2 * 16 + 3 * 40));
        assert_eq!(own.values(), own.block_matrices() + 2 * 100 * 24 + 7 * 24);
    }
}

//! The objective (the paper, section 3.2). A step minimises
//!
//! ```text
//! loss = w_u · mean_d L_f(d)     over the unlearn documents of the step
//!      + w_e · mean_d L_f(d)     over its edit_unlearn documents
//!      + w_p · mean_d NLL_d      over its edit_update documents                (gradient descent)
//!      + w_r · mean_d keep_d     over its retain documents
//! ```
//!
//! with a forget loss L_f ([`forget`]) and a keep loss ([`keep`]). The paper's are L_f = −NLL_d (reverse gradient) and
//! keep_d = KL_d(reference ‖ model). NLL_d and KL_d are means over a document's predicted tokens, in nats. The loss is thus
//! a sum over tokens of a weight times a loss, and one packed forward pass over all sets computes every term.
//!
//! Intended differences from the authors' code:
//! - The retain term is the KL divergence by log-softmax, which is 0 at the first step. Theirs is the cross-entropy with an
//!   epsilon inside the logarithm, which has the same gradient except for the epsilon.
//! - Means are over predicted tokens. Theirs also count the last position and padding, and omit tokens whose loss is
//!   exactly 0.
//! - The ascent may be bounded for each token ([`Objective::ascent_model`]) and for a document as a whole
//!   ([`Objective::ascent_cap`]).

pub mod forget;
pub mod keep;
pub mod weighing;

use serde::{Deserialize, Serialize};

use crate::config::LlamaConfig;
use crate::data::Set;
use crate::kernels::TokenLoss;
use crate::parameters::{ParameterKind, ParameterSpec, Parameters};
use forget::ForgetLoss;
use forget::ascent::Ascent;
use weighing::{Measured, Needs, Use, Weights, count, mean};

pub use weighing::{Terms, TokenMean, Weighing};

/// The registry of forget losses: the name in a recipe, the section of its parameters, and the file. `ascent` and `rmu`
/// are separate, because they need more than their parameters.
macro_rules! forget_losses {
    ($($(#[$doc:meta])* $name:ident: $section:ident = $parameters:ty,)*) => {
        /// The loss of a document to unlearn, `objective.forget`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Forget {
            /// Gradient ascent, as in the paper.
            #[default]
            Ascent,
            /// Representation misdirection: hidden states are driven to a random direction.
            Rmu,
            $($(#[$doc])* $name,)*
        }

        /// The section `[objective]` of a recipe. Its defaults are the paper's.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct Objective {
            /// Weight of the forget loss of unlearn documents.
            pub unlearn: f64,
            /// Weight of the forget loss of edit_unlearn documents.
            pub edit_unlearn: f64,
            /// Weight of the NLL of edit_update documents.
            pub edit_update: f64,
            /// Weight of the keep loss of retain documents.
            pub retain: f64,
            /// The forget loss.
            #[serde(skip_serializing_if = "is_default")]
            pub forget: Forget,
            /// The keep loss.
            #[serde(skip_serializing_if = "is_default")]
            pub keep: Keep,
            /// The mean NLL, in nats, at which the ascent on a document ends. If it is missing, the ascent is unbounded, as
            /// in the paper.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub ascent_cap: Option<f64>,
            /// A model that has never seen the documents to unlearn. The ascent on a token ends at the token's NLL under
            /// this model. If it is missing or [`NO_MODEL`], the ascent is unbounded, as in the paper.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub ascent_model: Option<String>,
            /// The parameters of `rmu`.
            #[serde(skip_serializing_if = "is_default")]
            pub rmu: forget::rmu::Rmu,
            $(
                #[doc = concat!("The parameters of `", stringify!($section), "`.")]
                #[serde(skip_serializing_if = "is_default")]
                pub $section: $parameters,
            )*
        }

        impl Default for Objective {
            fn default() -> Self {
                Self {
                    unlearn: 0.1,
                    edit_unlearn: 0.1,
                    edit_update: 2.0,
                    retain: 0.5,
                    forget: Forget::default(),
                    keep: Keep::default(),
                    ascent_cap: None,
                    ascent_model: None,
                    rmu: Default::default(),
                    $($section: Default::default(),)*
                }
            }
        }

        impl Objective {
            /// The forget loss for a model with `blocks` blocks and hidden states of `width` values.
            fn forget_loss(&self, blocks: usize, width: usize, seed: u64) -> Box<dyn ForgetLoss> {
                match self.forget {
                    Forget::Ascent => {
                        let is_bounded = self.bounding_model().is_some();
                        Box::new(Ascent { cap: self.ascent_cap, is_bounded })
                    }
                    Forget::Rmu => Box::new(self.rmu.loss(blocks, width, seed)),
                    $(Forget::$name => Box::new(self.$section),)*
                }
            }

            /// Returns the first problem in the parameters of the forget loss.
            fn check_forget(&self) -> Result<(), String> {
                match self.forget {
                    Forget::Ascent => Ok(()),
                    Forget::Rmu => self.rmu.check(),
                    $(Forget::$name => self.$section.check(),)*
                }
            }
        }
    };
}

forget_losses! {
    /// Negative preference optimisation.
    Npo: npo = forget::npo::Npo,
    /// NPO without a reference.
    Simnpo: simnpo = forget::simnpo::SimNpo,
    /// Weighted gradient ascent.
    Wga: wga = forget::wga::Wga,
    /// Saturation and importance.
    Satimp: satimp = forget::satimp::SatImp,
    /// Direct preference optimisation towards an alternative.
    Dpo: dpo = forget::dpo::Dpo,
    /// Self-distillation with lowered logits.
    Undial: undial = forget::undial::Undial,
    /// Cross-entropy unlearning.
    CeU: ce_u = forget::ce_u::CeU,
    /// Primal-dual unlearning.
    Pdu: pdu = forget::pdu::Pdu,
}

/// The loss of a retain document, `objective.keep`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// KL(reference ‖ model), as in the paper.
    #[default]
    Kl,
    /// The NLL: gradient descent on retain documents.
    Nll,
    /// The distance of hidden states from those of the reference, for `forget = "rmu"`.
    Hidden,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The value of `ascent_model` for no model.
pub const NO_MODEL: &str = "none";

impl Objective {
    /// The weight of a set's term.
    pub fn weight(&self, set: Set) -> f64 {
        match set {
            Set::Unlearn => self.unlearn,
            Set::EditUnlearn => self.edit_unlearn,
            Set::EditUpdate => self.edit_update,
            Set::Retain => self.retain,
            Set::RetainHeldout => 0.0,
        }
    }

    /// The sets whose weight is not 0.
    pub fn sets(&self) -> Vec<Set> {
        Set::TRAINED.into_iter().filter(|&set| self.weight(set) != 0.0).collect()
    }

    /// The model that bounds the ascent on each token.
    pub fn bounding_model(&self) -> Option<&str> {
        let is_ascent = self.forget == Forget::Ascent;
        self.ascent_model.as_deref().filter(|&source| is_ascent && source != NO_MODEL)
    }

    /// Returns the first problem: the key, its value and the expected value.
    pub fn check(&self) -> Result<(), String> {
        for set in Set::TRAINED {
            forget::not_negative(&format!("objective.{set}"), self.weight(set))?;
        }
        forget::not_negative("objective.ascent_cap", self.ascent_cap.unwrap_or(0.0))?;
        if self.sets().is_empty() {
            return Err("every weight of `[objective]` is 0; expected at least one above 0".into());
        }
        if self.keep == Keep::Hidden && self.forget != Forget::Rmu {
            return Err("`objective.keep` is \"hidden\", which needs the block of \"rmu\", but `objective.forget` is not \
                        \"rmu\"; expected \"kl\" or \"nll\""
                .into());
        }
        if self.forget == Forget::Pdu && self.retain == 0.0 {
            return Err("`objective.retain` is 0, but `objective.forget` is \"pdu\", which constrains the keep loss; \
                        expected a weight above 0"
                .into());
        }
        self.check_forget()
    }

    /// Returns the problem, if it does not fit a model of this shape with these `parameters`.
    pub fn check_model(&self, config: &LlamaConfig, parameters: &Parameters) -> Result<(), String> {
        if self.forget != Forget::Rmu {
            return Ok(());
        }
        let (block, blocks) = (self.rmu.block(config.num_hidden_layers), config.num_hidden_layers);
        if block >= blocks {
            return Err(format!(
                "`objective.rmu.block` is {block}, but the model has {blocks} blocks; expected 0 to {}",
                blocks - 1
            ));
        }
        // Other losses are functions of logits, on which every parameter has an effect.
        let ends_there = self.edit_update == 0.0 && (self.retain == 0.0 || self.keep == Keep::Hidden);
        let comes_before = |spec: &ParameterSpec| {
            spec.trainable
                && (spec.kind == ParameterKind::Embedding || spec.block.is_some_and(|own| own <= block))
        };
        match ends_there && !parameters.iter().any(comes_before) {
            false => Ok(()),
            true => Err(format!(
                "`train.trainable` names no parameter up to block {block}, at whose output every loss of this objective \
                 is measured (`objective.rmu.block`), so no step would change the model; train a parameter of blocks 0 \
                 to {block}"
            )),
        }
    }

    /// The objective of the steps on a model of this shape.
    pub fn for_model(&self, config: &LlamaConfig, seed: u64) -> StepObjective {
        let (blocks, width) = (config.num_hidden_layers, config.hidden_size);
        let forget = self.forget_loss(blocks, width, seed);
        let lambda = (self.forget == Forget::Pdu).then_some(self.retain);
        StepObjective { section: self.clone(), forget, block: self.rmu.block(blocks), lambda }
    }
}

/// The objective of the steps on one model.
#[derive(Debug)]
pub struct StepObjective {
    section: Objective,
    forget: Box<dyn ForgetLoss>,
    /// The block of `rmu`.
    block: usize,
    /// The dual variable of `pdu`, which replaces the weight `retain`.
    lambda: Option<f64>,
}

impl StepObjective {
    /// The same with another forget loss.
    pub fn with_forget_loss(self, forget: Box<dyn ForgetLoss>) -> Self {
        Self { forget, ..self }
    }

    /// The dual variable of `pdu` for the next step.
    pub fn lambda(&self) -> Option<f64> {
        self.lambda
    }

    /// Sets the dual variable, if there is one.
    pub fn set_lambda(&mut self, lambda: Option<f64>) {
        self.lambda = lambda.or(self.lambda);
    }

    /// The dual variable after a step that measured `terms`.
    pub fn next_lambda(&self, terms: &Terms) -> Option<f64> {
        let lambda = self.lambda?;
        Some(terms.keep.map_or(lambda, |keep| self.section.pdu.next_lambda(lambda, keep)))
    }

    /// The factor of a document's own loss.
    fn share(&self, documents: &[Measured], set: Set) -> f64 {
        let weight = self.lambda.filter(|_| set == Set::Retain).unwrap_or(self.section.weight(set));
        weight / count(documents, set)
    }
}

fn is_forgotten(set: Set) -> bool {
    matches!(set, Set::Unlearn | Set::EditUnlearn)
}

impl Weighing for StepObjective {
    fn usage(&self, set: Set) -> Use {
        match set {
            Set::Unlearn | Set::EditUnlearn => self.forget.usage(),
            Set::EditUpdate | Set::RetainHeldout => Use::Logits(TokenLoss::Nll),
            Set::Retain => match self.section.keep {
                Keep::Kl => keep::kl::usage(),
                Keep::Nll => keep::nll::usage(),
                Keep::Hidden => keep::hidden::usage(self.block),
            },
        }
    }

    fn needs(&self, set: Set) -> Needs {
        if is_forgotten(set) { self.forget.needs() } else { Needs::default() }
    }

    fn weights(&self, documents: &[Measured]) -> Vec<Weights> {
        let weights = |document: &Measured| {
            let weights = match is_forgotten(document.set) {
                true => self.forget.weights(document),
                false => Weights::equal(1.0 / document.own.count as f64),
            };
            weights.times(self.share(documents, document.set))
        };
        documents.iter().map(weights).collect()
    }

    fn loss(&self, documents: &[Measured]) -> f64 {
        let part = |document: &Measured| {
            let loss = match is_forgotten(document.set) {
                true => self.forget.loss(document),
                false => document.own.mean_loss(),
            };
            self.share(documents, document.set) * loss
        };
        // The constraint of `pdu` is λ(L_keep − ε). Add the part without L_keep, which does not depend on documents.
        let slack = self.lambda.filter(|_| count(documents, Set::Retain) > 0.0);
        let slack = slack.map_or(0.0, |lambda| self.section.pdu.constraint(lambda, 0.0));
        documents.iter().map(part).sum::<f64>() + slack
    }

    fn terms(&self, documents: &[Measured]) -> Terms {
        let nll = |set| mean(documents, set, |document| document.own.mean_nll());
        let forget = |set| {
            let mean = mean(documents, set, |document| self.forget.loss(document));
            mean.map(|mean| self.section.weight(set) * mean)
        };
        let keep = mean(documents, Set::Retain, |document| document.own.mean_loss());
        let forgets = [forget(Set::Unlearn), forget(Set::EditUnlearn)];
        Terms {
            unlearn: nll(Set::Unlearn),
            edit_unlearn: nll(Set::EditUnlearn),
            edit_update: nll(Set::EditUpdate),
            retain_kl: keep.filter(|_| self.section.keep == Keep::Kl),
            forget: forgets.iter().any(Option::is_some).then(|| forgets.into_iter().flatten().sum()),
            keep,
            lambda: self.lambda,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::weighing::Tokens;
    use super::*;
    use crate::globs::Glob;

    fn document(set: Set, count: usize, mean: f32) -> Measured<'static> {
        let own = Tokens { count, nll: vec![mean; count], loss: vec![mean; count], reference_nll: None };
        Measured { set, own, alternative: None, bounds: None }
    }

    fn objective(section: Objective) -> StepObjective {
        StepObjective {
            forget: section.forget_loss(2, 8, 0),
            block: 0,
            lambda: (section.forget == Forget::Pdu).then_some(section.retain),
            section,
        }
    }

    #[test]
    fn the_default_objective_has_the_paper_s_weights() {
        let documents = [
            document(Set::Unlearn, 10, 2.0),
            document(Set::Unlearn, 5, 4.0),
            document(Set::EditUnlearn, 4, 1.0),
            document(Set::EditUpdate, 8, 3.0),
            document(Set::Retain, 2, 0.5),
        ];
        let objective = objective(Objective::default());
        let expected = -0.1 * 3.0 - 0.1 * 1.0 + 2.0 * 3.0 + 0.5 * 0.5;
        assert!((objective.loss(&documents) - expected).abs() < 1e-12);
        let weights: Vec<f64> = objective.weights(&documents).iter().map(|weights| weights.of(0)).collect();
        let expected = [-0.1 / 20.0, -0.1 / 10.0, -0.1 / 4.0, 2.0 / 8.0, 0.5 / 2.0];
        assert!(weights.iter().zip(expected).all(|(weight, expected)| (weight - expected).abs() < 1e-15));
        let terms = objective.terms(&documents);
        assert_eq!((terms.unlearn, terms.retain_kl, terms.keep), (Some(3.0), Some(0.5), Some(0.5)));
        assert!((terms.forget.unwrap() + 0.4).abs() < 1e-12);
    }

    #[test]
    fn the_dual_variable_replaces_retain() {
        let pdu = forget::pdu::Pdu { epsilon: Some(0.25), rate: 1.0 };
        let section = Objective { forget: Forget::Pdu, pdu, ..Objective::default() };
        let documents = [document(Set::Retain, 2, 0.5)];
        let mut objective = objective(section);
        assert_eq!(objective.loss(&documents), 0.5 * (0.5 - 0.25));
        assert_eq!(objective.next_lambda(&objective.terms(&documents)), Some(0.75));
        objective.set_lambda(Some(0.75));
        assert_eq!(objective.weights(&documents)[0].of(0), 0.375);
    }

    #[test]
    fn losses_of_a_block_that_no_trained_parameter_precedes_are_refused() {
        let config = serde_json::json!({
            "model_type": "llama", "hidden_size": 8, "num_hidden_layers": 4, "num_attention_heads": 2,
            "intermediate_size": 8, "vocab_size": 10,
        });
        let config = LlamaConfig::parse("config.json", &config).unwrap();
        let trained = |glob: &str| config.parameters().train_only(&[Glob::parse(glob).unwrap()]).unwrap();
        let rmu = forget::rmu::Rmu { block: Some(1), ..Default::default() };
        let keep = Keep::Hidden;
        let hidden = Objective { forget: Forget::Rmu, rmu, keep, edit_update: 0.0, ..Objective::default() };
        let problem = hidden.check_model(&config, &trained("model.layers.{2..3}.*")).unwrap_err();
        assert!(problem.contains("train.trainable") && problem.contains("block 1"), "{problem}");
        for glob in ["model.layers.1.*", "*embed*"] {
            assert_eq!(hidden.check_model(&config, &trained(glob)), Ok(()));
        }
        // The KL is one of logits.
        let with_kl = Objective { keep: Keep::Kl, ..hidden };
        assert_eq!(with_kl.check_model(&config, &trained("model.layers.{2..3}.*")), Ok(()));
    }

    #[test]
    fn meaningless_combinations_are_refused_by_key() {
        let refused = |section: Objective| section.check().unwrap_err();
        let hidden = Objective { keep: Keep::Hidden, ..Objective::default() };
        assert!(refused(hidden).contains("objective.keep"));
        let pdu = Objective { forget: Forget::Pdu, ..Objective::default() };
        assert!(refused(pdu).contains("objective.pdu.epsilon"));
        let npo =
            Objective { forget: Forget::Npo, npo: forget::npo::Npo { beta: 0.0 }, ..Objective::default() };
        assert!(refused(npo).contains("objective.npo.beta"));
    }
}

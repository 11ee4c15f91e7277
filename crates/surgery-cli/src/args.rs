//! The command line.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

use crate::backend::Name;

/// The name of the embedded model that has not learnt the benchmark's subjects.
pub const EMBEDDED_BASE: &str = "embedded-base";

/// Make a language model forget, learn, and otherwise stay itself: LLM Surgery (arXiv 2409.13054).
///
/// Without a command: the default recipe on the embedded benchmark and model.
#[derive(Debug, Parser)]
#[command(name = "surgery", version, after_help = crate::exit::EXPLAINED)]
pub struct Args {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub common: Common,
}

/// Options of every command.
#[derive(Debug, Clone, ClapArgs)]
pub struct Common {
    /// Backend to compute on [default: the best backend compiled in]
    #[arg(long, global = true, value_name = "BACKEND")]
    pub backend: Option<Name>,
    /// Number of the backend's device
    #[arg(long, global = true, value_name = "N", default_value_t = 0)]
    pub device: usize,
    /// Print results as JSON on standard output
    #[arg(long, global = true)]
    pub json: bool,
    /// Print no progress and no logs
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Print more logs
    #[arg(short, long, global = true)]
    pub verbose: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the operation: evaluate, train, evaluate again, write a report
    Run(Run),
    /// Measure perplexity and multiple-choice accuracy on every set
    Eval(Eval),
    /// Compare two models and write the report of a run
    Compare(Compare),
    /// Print the mean NLL of each document's predicted tokens as JSON lines: {"id", "tokens", "nll"}
    Score(Score),
    /// Continue a prompt
    Generate(Generate),
    /// Train on JSONL files, from a checkpoint or from scratch
    Pretrain(Pretrain),
    /// Reproduce the paper's table: off-the-shelf, θ_pre, θ_baseline and θ_surgery, with the cost of each
    Reproduce(Reproduce),
    /// Convert a published dataset into a data folder
    #[command(subcommand)]
    Import(Import),
    /// Download a model from the Hugging Face hub and print its folder
    Fetch(Fetch),
    /// List or print the shipped recipes
    #[command(subcommand)]
    Recipe(RecipeCommand),
    /// List backends, devices, cache and embedded files, and report problems
    Doctor,
    /// Print a completion script for a shell
    Completions {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Default, ClapArgs)]
pub struct Run {
    /// A TOML file, or the name of a shipped recipe [default: default]
    pub recipe: Option<String>,
    /// The model: a Hugging Face folder, `ORG/NAME[@REVISION]` on the hub, or `embedded`
    #[arg(long, value_name = "M")]
    pub model: Option<String>,
    /// The data folder, or `embedded`
    #[arg(long, value_name = "DIR")]
    pub data: Option<String>,
    /// Output folder [default: the next free runs/NNNN]
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Override a key of the recipe; the value is TOML, the last one wins
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Resume the unfinished run in the output folder from its last complete checkpoint
    #[arg(long, requires = "output")]
    pub resume: bool,
    /// Print what the run would do, its memory and its time, and with --verbose one document of each set as the model sees
    /// it; refuse everything that the run would refuse before it reads the weights
    #[arg(long, conflicts_with = "resume")]
    pub dry_run: bool,
}

#[derive(Debug, ClapArgs)]
pub struct Eval {
    /// The model: a Hugging Face folder, `ORG/NAME[@REVISION]` on the hub, or `embedded`
    #[arg(long, value_name = "M", default_value = surgery_core::recipe::EMBEDDED)]
    pub model: String,
    /// The data folder, or `embedded`
    #[arg(long, value_name = "DIR", default_value = surgery_core::recipe::EMBEDDED)]
    pub data: String,
    /// Also measure the KL from this model
    #[arg(long, value_name = "M")]
    pub reference: Option<String>,
}

#[derive(Debug, ClapArgs)]
pub struct Reproduce {
    /// The model that was trained on the documents to unlearn, θ_pre
    #[arg(long, value_name = "M", default_value = surgery_core::recipe::EMBEDDED)]
    pub model: String,
    /// The model that θ_pre was trained from, off-the-shelf
    #[arg(long, value_name = "M", default_value = EMBEDDED_BASE)]
    pub base: String,
    /// The data folder, or `embedded`
    #[arg(long, value_name = "DIR", default_value = surgery_core::recipe::EMBEDDED)]
    pub data: String,
    /// Output folder for models and reports [default: the next free runs/NNNN]
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Override a key of one of the recipes default, paper, baseline and relearn
    #[arg(long = "set", value_name = "RECIPE.SECTION.KEY=VALUE")]
    pub overrides: Vec<String>,
}

#[derive(Debug, ClapArgs)]
pub struct Compare {
    /// The model before
    pub first: String,
    /// The model after
    pub second: String,
    /// The data folder, or `embedded`
    #[arg(long, value_name = "DIR", default_value = surgery_core::recipe::EMBEDDED)]
    pub data: String,
    /// Output folder for the report [default: the next free runs/NNNN]
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub struct Score {
    /// The model: a Hugging Face folder, `ORG/NAME[@REVISION]` on the hub, or `embedded`
    #[arg(long, value_name = "M", default_value = surgery_core::recipe::EMBEDDED)]
    pub model: String,
    /// JSON lines: {"id", "text"}, {"id", "prompt", "completion"} or {"id", "messages"}
    #[arg(long, value_name = "FILE.jsonl")]
    pub input: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub struct Generate {
    /// The model: a Hugging Face folder, `ORG/NAME[@REVISION]` on the hub, or `embedded`
    #[arg(long, value_name = "M", default_value = surgery_core::recipe::EMBEDDED)]
    pub model: String,
    /// The text to continue
    #[arg(long, value_name = "P")]
    pub prompt: String,
    /// Maximum number of tokens to generate
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub max_new_tokens: usize,
    /// Sampling temperature; 0 always takes the most likely token
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    pub temperature: f64,
    /// Random seed for sampling
    #[arg(long, value_name = "S", default_value_t = 42)]
    pub seed: u64,
}

#[derive(Debug, ClapArgs)]
pub struct Pretrain {
    /// A TOML file, or the name of a shipped recipe [default: an empty recipe]
    pub recipe: Option<String>,
    /// The model to train from: a Hugging Face folder, or `ORG/NAME[@REVISION]` on the hub [default: random weights]
    #[arg(long, value_name = "M")]
    pub model: Option<String>,
    /// Output folder [default: the next free runs/NNNN]
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Override a key of the recipe; the value is TOML, the last one wins
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Resume the unfinished run in the output folder from its last complete checkpoint
    #[arg(long, requires = "output")]
    pub resume: bool,
}

#[derive(Debug, ClapArgs)]
pub struct Fetch {
    /// The model's name on the hub; without a revision, `main`
    #[arg(value_name = "ORG/NAME[@REVISION]")]
    pub model: String,
}

#[derive(Debug, Subcommand)]
pub enum RecipeCommand {
    /// List the recipes with their descriptions
    Ls,
    /// Print one recipe
    Show {
        /// The recipe's name
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum Import {
    /// The CSV files of the LLM Surgery authors
    Authors(ImportAuthors),
    /// TOFU: questions about invented authors (locuslab/TOFU)
    Tofu(ImportTofu),
    /// MUSE: news or books (muse-bench/MUSE-News, muse-bench/MUSE-Books)
    Muse(ImportMuse),
    /// RWKU: knowledge about well-known people (jinzhuoran/RWKU)
    Rwku(ImportRwku),
}

#[derive(Debug, ClapArgs)]
pub struct ImportAuthors {
    /// The biographies: a CSV file with wiki_bio_text, gpt4_bio_text, wiki_bio_text_qa, gpt4_inaccurate_text_qa
    #[arg(value_name = "FILE.csv")]
    pub biographies: PathBuf,
    /// The subject of each row: a text file with one name a line
    #[arg(long, value_name = "FILE.txt")]
    pub subjects: PathBuf,
    /// Retain documents: a CSV file with texts (text), questions about them (qa), or both; may be given twice
    #[arg(long, value_name = "FILE.csv")]
    pub retain: Vec<PathBuf>,
    /// Use only the first N rows of each retain file (the authors: 2079)
    #[arg(long, value_name = "N")]
    pub retain_rows: Option<usize>,
    /// Output folder for the data
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub struct ImportTofu {
    /// The dataset's folder, which holds forget10.json and the other files
    #[arg(value_name = "FOLDER")]
    pub folder: PathBuf,
    /// The set to unlearn
    #[arg(long, value_enum, default_value_t = TofuForget::Forget10)]
    pub forget: TofuForget,
    /// Output folder for the data
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
}

/// TOFU's sets to unlearn.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum TofuForget {
    Forget01,
    Forget05,
    Forget10,
}

impl TofuForget {
    /// Size of the set, in percent of all authors.
    pub fn percent(self) -> u32 {
        match self {
            TofuForget::Forget01 => 1,
            TofuForget::Forget05 => 5,
            TofuForget::Forget10 => 10,
        }
    }
}

#[derive(Debug, ClapArgs)]
pub struct ImportMuse {
    /// The folder of one corpus, which holds raw/forget.json and the other files
    #[arg(value_name = "FOLDER")]
    pub folder: PathBuf,
    /// Output folder for the data
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub struct ImportRwku {
    /// The folder of the dataset or of one target, which holds passage.json and the other files
    #[arg(value_name = "FOLDER")]
    pub folder: PathBuf,
    /// Unlearn only this person and retain the others; may be given more than once [default: unlearn all]
    #[arg(long = "target", value_name = "NAME")]
    pub targets: Vec<String>,
    /// Output folder for the data
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
}

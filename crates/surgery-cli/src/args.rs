//! The command line.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

use crate::backend::Name;

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

/// What every command takes.
#[derive(Debug, Clone, ClapArgs)]
pub struct Common {
    /// Where to compute [default: the best backend compiled in]
    #[arg(long, global = true, value_name = "BACKEND")]
    pub backend: Option<Name>,
    /// Which device of the backend
    #[arg(long, global = true, value_name = "N", default_value_t = 0)]
    pub device: usize,
    /// Results as JSON on standard output
    #[arg(long, global = true)]
    pub json: bool,
    /// No progress, no logs
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// More logs
    #[arg(short, long, global = true)]
    pub verbose: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// The operation: evaluate, operate, evaluate, report
    Run(Run),
    /// Perplexity and multiple-choice accuracy on every set
    Eval(Eval),
    /// Two models side by side, as a run reports before and after
    Compare(Compare),
    /// The mean NLL of each text, as JSON lines: {"id", "tokens", "nll"}
    Score(Score),
    /// Continue a prompt
    Generate(Generate),
    /// Train on JSONL files, from a checkpoint or from scratch
    Pretrain(Pretrain),
    /// The paper's table: off-the-shelf, θ_pre, θ_baseline, θ_surgery, with the cost of each
    Reproduce(Reproduce),
    /// Make a data folder of other people's data
    #[command(subcommand)]
    Import(Import),
    /// Download a model from the Hugging Face hub, and say where it is
    Fetch(Fetch),
    /// The shipped recipes
    #[command(subcommand)]
    Recipe(RecipeCommand),
    /// What this program and this machine have, and what is wrong
    Doctor,
    /// A completion script for a shell
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
    /// Where the result goes [default: the next free runs/NNNN]
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Override a key of the recipe; the value is TOML, the last one wins
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Go on with the unfinished run in the output folder, from its last whole checkpoint
    #[arg(long, requires = "output")]
    pub resume: bool,
    /// Only say what would be done, and what it would take; refuses what a run would refuse before it reads the weights
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
    /// The model that knows what must go, θ_pre
    #[arg(long, value_name = "M", default_value = surgery_core::recipe::EMBEDDED)]
    pub model: String,
    /// The model that it was made from, off-the-shelf
    #[arg(long, value_name = "M", default_value = crate::inputs::EMBEDDED_BASE)]
    pub base: String,
    /// The data folder, or `embedded`
    #[arg(long, value_name = "DIR", default_value = surgery_core::recipe::EMBEDDED)]
    pub data: String,
    /// Where the models and reports go [default: the next free runs/NNNN]
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Override a key of one of its recipes: default, paper, baseline or relearn
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
    /// Where the report goes [default: the next free runs/NNNN]
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub struct Score {
    /// The model: a Hugging Face folder, `ORG/NAME[@REVISION]` on the hub, or `embedded`
    #[arg(long, value_name = "M", default_value = surgery_core::recipe::EMBEDDED)]
    pub model: String,
    /// JSON lines: {"id", "text"}
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
    /// The most tokens to add
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub max_new_tokens: usize,
    /// 0 takes the likeliest token every time; above, tokens are drawn
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    pub temperature: f64,
    /// Fixes what is drawn
    #[arg(long, value_name = "S", default_value_t = 42)]
    pub seed: u64,
}

#[derive(Debug, ClapArgs)]
pub struct Pretrain {
    /// A TOML file, or the name of a shipped recipe [default: an empty recipe]
    pub recipe: Option<String>,
    /// The model to begin from: a Hugging Face folder, or `ORG/NAME[@REVISION]` on the hub
    #[arg(long, value_name = "M")]
    pub model: Option<String>,
    /// Where the result goes [default: the next free runs/NNNN]
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Override a key of the recipe; the value is TOML, the last one wins
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Go on with the unfinished run in the output folder, from its last whole checkpoint
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
    /// Their names and what they are for
    Ls,
    /// The text of one
    Show {
        /// Its name
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
    /// RWKU: what is known of well-known people (jinzhuoran/RWKU)
    Rwku(ImportRwku),
}

#[derive(Debug, ClapArgs)]
pub struct ImportAuthors {
    /// The biographies: a CSV file with wiki_bio_text, gpt4_bio_text, wiki_bio_text_qa, gpt4_inaccurate_text_qa
    #[arg(value_name = "FILE.csv")]
    pub biographies: PathBuf,
    /// Whom each row is about: a name a line
    #[arg(long, value_name = "FILE.txt")]
    pub subjects: PathBuf,
    /// What is to stay: a CSV file with texts (text), questions about them (qa), or both; may be given twice
    #[arg(long, value_name = "FILE.csv")]
    pub retain: Vec<PathBuf>,
    /// Use only the first rows of what is to stay (the authors: 2079)
    #[arg(long, value_name = "N")]
    pub retain_rows: Option<usize>,
    /// Where the data folder goes
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub struct ImportTofu {
    /// The dataset's folder, with forget10.json and the others
    #[arg(value_name = "FOLDER")]
    pub folder: PathBuf,
    /// Which of the sets to forget
    #[arg(long, value_enum, default_value_t = TofuForget::Forget10)]
    pub forget: TofuForget,
    /// Where the data folder goes
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
}

/// The sets that TOFU forgets.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum TofuForget {
    Forget01,
    Forget05,
    Forget10,
}

impl TofuForget {
    /// How much of all it is.
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
    /// The folder of one corpus, with raw/forget.json and the others
    #[arg(value_name = "FOLDER")]
    pub folder: PathBuf,
    /// Where the data folder goes
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub struct ImportRwku {
    /// The dataset's folder, or that of one target, with passage.json and the others
    #[arg(value_name = "FOLDER")]
    pub folder: PathBuf,
    /// Forget this person only and retain the others; may be given more than once [default: forget all]
    #[arg(long = "target", value_name = "NAME")]
    pub targets: Vec<String>,
    /// Where the data folder goes
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
}

//! Hugging Face checkpoints: `model.safetensors`, or shards named by `model.safetensors.index.json`.
//!
//! Opening reads only the headers. Tensors are read one by one as f32. The layout (files, order and dtypes of
//! tensors) is kept, so that a checkpoint is written with the layout of the input.

mod companions;
mod header;
mod write;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{Read, SeekFrom};

use safetensors::tensor::Dtype;

use self::header::{Entry, Header};
use crate::error::{Error, Result};
use crate::files::Folder;

pub(crate) use companions::templates;
pub use companions::{COMPANIONS, TEMPLATES, companions, model_files};
pub use write::{SaveDtype, write_model};
pub(crate) use write::{is_buffer, write_vectors};

/// The file of a checkpoint that has one file.
pub const SINGLE: &str = "model.safetensors";
/// The index, which maps tensors to shards.
pub const INDEX: &str = "model.safetensors.index.json";
/// Maximum header size in bytes, which is safetensors' own limit.
const HEADER_LIMIT: u64 = 100_000_000;

/// The files of a checkpoint and the position of each tensor.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    folder: Folder,
    shards: Vec<Shard>,
    /// Tensor name to (shard, tensor within it).
    places: HashMap<String, (usize, usize)>,
}

/// One safetensors file.
#[derive(Debug, Clone)]
struct Shard {
    file: String,
    /// Offset of the data section.
    data_start: u64,
    metadata: Option<HashMap<String, String>>,
    /// The tensors in file order.
    tensors: Vec<Entry>,
}

impl Checkpoint {
    /// Reads the headers of the checkpoint in `folder` and checks them.
    pub fn open(folder: &Folder) -> Result<Self> {
        let indexed = folder.has(INDEX) && !folder.has(SINGLE);
        let (files, index) = if indexed {
            let index = read_index(folder)?;
            if let Some((tensor, file)) = index.iter().find(|(_, file)| !folder.has(file)) {
                let problem = format!("places tensor `{tensor}` in {file}, which is missing");
                return Err(bad_index(folder, problem));
            }
            (distinct(&index), Some(index))
        } else if folder.has(SINGLE) {
            (vec![SINGLE.to_owned()], None)
        } else {
            return Err(no_weights(folder));
        };

        let checkpoint = Self::of_files(folder, files)?;
        for (tensor, file) in index.iter().flatten() {
            let found = checkpoint.places.get(tensor).map(|&(shard, _)| &checkpoint.shards[shard].file);
            if found != Some(file) {
                return Err(Error::Tensor {
                    path: folder.label(INDEX),
                    tensor: tensor.clone(),
                    problem: format!(
                        "should be in {file} according to the index, but is not; download the folder again"
                    ),
                });
            }
        }
        Ok(checkpoint)
    }

    /// Reads the headers of these files of `folder`.
    pub(crate) fn of_files(folder: &Folder, files: Vec<String>) -> Result<Self> {
        let mut shards = Vec::with_capacity(files.len());
        let mut places = HashMap::new();
        for file in files {
            let shard = Shard::open(folder, &file)?;
            for (position, entry) in shard.tensors.iter().enumerate() {
                if let Some((other, _)) = places.insert(entry.name.clone(), (shards.len(), position)) {
                    let first: &Shard = &shards[other];
                    return Err(Error::Tensor {
                        path: folder.label(&file),
                        tensor: entry.name.clone(),
                        problem: format!("is in {} too; a tensor must be in one file only", first.file),
                    });
                }
            }
            shards.push(shard);
        }
        Ok(Self { folder: folder.clone(), shards, places })
    }

    /// The folder the checkpoint was opened in.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Whether the checkpoint holds a tensor of this name.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// The names of all tensors in file order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.shards.iter().flat_map(|shard| shard.tensors.iter().map(|entry| entry.name.as_str()))
    }

    /// Names and shapes of all tensors in file order.
    pub(crate) fn shapes(&self) -> impl Iterator<Item = (&str, &[usize])> {
        let tensors = self.shards.iter().flat_map(|shard| &shard.tensors);
        tensors.map(|entry| (entry.name.as_str(), entry.shape.as_slice()))
    }

    /// The size of all tensors as stored, in bytes.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().flat_map(|shard| &shard.tensors).map(|entry| entry.bytes).sum()
    }

    /// Refuses a missing tensor, a shape other than `shape`, and a dtype other than f32, bf16 and f16.
    pub fn expect(&self, name: &str, shape: &[usize]) -> Result<()> {
        let Some((shard, entry)) = self.find(name) else {
            return Err(Error::Tensor {
                path: self.folder.label(""),
                tensor: name.into(),
                problem: format!("is missing; config.json asks for one of shape {shape:?}"),
            });
        };
        let wrong = |problem: String| Error::Tensor {
            path: self.folder.label(&shard.file),
            tensor: name.into(),
            problem,
        };
        if entry.shape != shape {
            return Err(wrong(format!(
                "has shape {:?}; config.json asks for {shape:?}; use matching files",
                entry.shape
            )));
        }
        match entry.dtype {
            Dtype::F32 | Dtype::BF16 | Dtype::F16 => Ok(()),
            other => Err(wrong(format!("has dtype {other}; supported are F32, BF16 and F16"))),
        }
    }

    /// The values of a tensor as f32, after [`expect`](Self::expect). NaN and infinities are refused.
    pub fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        self.expect(name, shape)?;
        let (shard, entry) = self.find(name).expect("expect() found it");
        let values = decode(&self.read_bytes(shard, entry)?, entry.dtype);
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(values),
            Some(at) => Err(Error::Tensor {
                path: self.folder.label(&shard.file),
                tensor: name.into(),
                problem: format!(
                    "holds {} at element {at}; every weight must be a finite number: the model is damaged",
                    values[at]
                ),
            }),
        }
    }

    /// Whether two tensors of the same shape exist and hold different values.
    pub(crate) fn differ(&self, first: &str, second: &str) -> Result<bool> {
        let (Some((_, a)), Some((_, b))) = (self.find(first), self.find(second)) else { return Ok(false) };
        if a.shape != b.shape {
            return Ok(false);
        }
        let shape = a.shape.clone();
        Ok(self.read(first, &shape)? != self.read(second, &shape)?)
    }

    fn find(&self, name: &str) -> Option<(&Shard, &Entry)> {
        let &(shard, entry) = self.places.get(name)?;
        Some((&self.shards[shard], &self.shards[shard].tensors[entry]))
    }

    fn read_bytes(&self, shard: &Shard, entry: &Entry) -> Result<Vec<u8>> {
        let failed = |source| Error::Read { path: self.folder.label(&shard.file), source };
        let (mut file, _) = self.folder.open(&shard.file)?;
        file.seek(SeekFrom::Start(shard.data_start + entry.start)).map_err(failed)?;
        // The header was checked against the file's length, so this allocation is bounded by it.
        let mut bytes = vec![0; entry.bytes as usize];
        file.read_exact(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }
}

impl Shard {
    fn open(folder: &Folder, file: &str) -> Result<Self> {
        let damaged = |problem: String| Error::Checkpoint {
            path: folder.label(file),
            problem,
            remedy: "the file is damaged or not a safetensors file: download it again".into(),
        };
        let failed = |source| Error::Read { path: folder.label(file), source };
        let (mut handle, length) = folder.open(file)?;
        let mut prefix = [0u8; 8];
        if length < 8 {
            return Err(damaged(format!("has only {length} bytes")));
        }
        handle.read_exact(&mut prefix).map_err(failed)?;
        let header = u64::from_le_bytes(prefix);
        if header > HEADER_LIMIT || header > length - 8 {
            return Err(damaged(format!("claims a header of {header} bytes in a file of {length}")));
        }
        // The file is at least this long, so the allocation is bounded by its length.
        let mut json = vec![0; header as usize];
        handle.read_exact(&mut json).map_err(failed)?;
        let data_start = 8 + header;
        let Header { metadata, tensors } =
            Header::parse(&json, length - data_start).map_err(|fault| match fault.tensor {
                Some(tensor) => Error::Tensor {
                    path: folder.label(file),
                    tensor,
                    problem: format!("{}: the file is damaged, download it again", fault.problem),
                },
                None => damaged(fault.problem),
            })?;
        Ok(Self { file: file.into(), data_start, metadata, tensors })
    }
}

/// Names of the weight files in `folder`: the single file, or the files named by the index if there is only an index.
/// They need not exist. Names that leave the folder are refused.
pub fn weight_files(folder: &Folder) -> Result<Vec<String>> {
    match folder.has(INDEX) && !folder.has(SINGLE) {
        true => Ok(distinct(&read_index(folder)?)),
        false => Ok(vec![SINGLE.to_owned()]),
    }
}

fn distinct(index: &BTreeMap<String, String>) -> Vec<String> {
    let files: BTreeSet<&String> = index.values().collect();
    files.into_iter().cloned().collect()
}

fn bad_index(folder: &Folder, problem: String) -> Error {
    Error::Checkpoint { path: folder.label(INDEX), problem, remedy: "download the file again".into() }
}

/// The index's map from tensor to file name. Names that leave the folder are refused.
fn read_index(folder: &Folder) -> Result<BTreeMap<String, String>> {
    let wrong = |problem| bad_index(folder, problem);
    let value = folder.json(INDEX)?;
    let map = value
        .get("weight_map")
        .and_then(|map| map.as_object())
        .ok_or_else(|| wrong("has no object `weight_map`".into()))?;
    map.iter()
        .map(|(tensor, file)| {
            let file = file
                .as_str()
                .ok_or_else(|| wrong(format!("names no file for tensor `{tensor}` but {file}")))?;
            if file.is_empty() || file.contains(['/', '\\', ':']) || file.starts_with('.') {
                return Err(wrong(format!(
                    "places tensor `{tensor}` in {file:?}; a shard must lie in the model's own folder"
                )));
            }
            Ok((tensor.clone(), file.to_owned()))
        })
        .collect()
}

fn no_weights(folder: &Folder) -> Error {
    let names = folder.list("").unwrap_or_default();
    let pickle = names
        .iter()
        .find(|name| [".bin", ".pt", ".pth", ".ckpt"].iter().any(|ending| name.ends_with(ending)));
    match pickle {
        Some(name) => Error::Checkpoint {
            path: folder.label(name),
            problem: "is a pickle file, which can run any code when loaded".into(),
            remedy: "convert it where you trust it: load it with transformers and call \
                     `save_pretrained(folder, safe_serialization=True)`"
                .into(),
        },
        None => Error::Checkpoint {
            path: folder.label(""),
            problem: format!("holds neither {SINGLE} nor {INDEX}"),
            remedy: "give a Hugging Face model folder".into(),
        },
    }
}

/// Decodes tensor bytes to f32. All three dtypes convert exactly.
fn decode(bytes: &[u8], dtype: Dtype) -> Vec<f32> {
    match dtype {
        Dtype::F32 => chunks(bytes, f32::from_le_bytes),
        Dtype::BF16 => chunks(bytes, |two| half::bf16::from_le_bytes(two).to_f32()),
        Dtype::F16 => chunks(bytes, |two| half::f16::from_le_bytes(two).to_f32()),
        other => unreachable!("expect() refuses {other}"),
    }
}

fn chunks<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks::<N>().0.iter().map(|&chunk| value(chunk)).collect()
}

//! Writes a model folder: the input's files with new tensor values.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::header::Entry;
use super::{Checkpoint, INDEX, SINGLE, Shard, companions};
use crate::error::{Error, Result};
use crate::files::{Folder, replace_folder, write_atomically};

/// The dtype in which weights are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SaveDtype {
    /// Each tensor's dtype in the input checkpoint.
    #[default]
    Input,
    /// 32-bit floating point.
    F32,
    /// bfloat16, rounded to nearest even.
    Bf16,
    /// 16-bit floating point, rounded to nearest even; a value out of range is an error.
    F16,
}

impl SaveDtype {
    fn of(self, input: Dtype) -> Dtype {
        match self {
            SaveDtype::Input => input,
            SaveDtype::F32 => Dtype::F32,
            SaveDtype::Bf16 => Dtype::BF16,
            SaveDtype::F16 => Dtype::F16,
        }
    }

    /// torch's name of the dtype in config.json; `None` if the input's dtypes are kept.
    fn torch_name(self) -> Option<&'static str> {
        match self {
            SaveDtype::Input => None,
            SaveDtype::F32 => Some("float32"),
            SaveDtype::Bf16 => Some("bfloat16"),
            SaveDtype::F16 => Some("float16"),
        }
    }
}

/// Writes a Hugging Face folder at `output`: the [companions](companions()) of `input` and the tensors of `like`.
///
/// `value` returns a tensor's new values by name, or `None` for a tensor without a parameter, which is copied byte
/// for byte. Without `like` (a model trained from scratch), `tensors` lists all tensors with their shapes in the
/// order of the single file. `tied` says whether the head is the embedding; config.json is changed to agree. The
/// folder appears under its name, replacing an existing one, once it is complete.
pub fn write_model(
    output: &Path,
    input: &Folder,
    like: Option<&Checkpoint>,
    tensors: &[(String, Vec<usize>)],
    dtype: SaveDtype,
    tied: bool,
    mut value: impl FnMut(&str) -> Option<Vec<f32>>,
) -> Result<()> {
    let fresh;
    let shards = match like {
        Some(checkpoint) => &checkpoint.shards,
        None => {
            fresh = vec![fresh_shard(tensors)];
            &fresh
        }
    };
    replace_folder(output, |folder| write_files(folder, input, like, shards, (dtype, tied), &mut value))
        .map_err(|error| error.wanting(size(shards, dtype)))
}

fn write_files(
    output: &Path,
    input: &Folder,
    like: Option<&Checkpoint>,
    shards: &[Shard],
    (dtype, tied): (SaveDtype, bool),
    value: &mut dyn FnMut(&str) -> Option<Vec<f32>>,
) -> Result<()> {
    for shard in shards {
        let path = output.join(&shard.file);
        write_shard(&path, shard, dtype, |entry| match (value(&entry.name), like) {
            (Some(values), _) => encode(&path, &entry.name, &values, dtype.of(entry.dtype)),
            (None, Some(checkpoint)) => checkpoint.read_bytes(shard, entry),
            (None, None) => unreachable!("a fresh model's tensors are its parameters"),
        })?;
    }
    if shards.iter().any(|shard| shard.file != SINGLE) {
        write_index(output, shards, dtype)?;
    }
    for file in companions(input)? {
        let changed = match file.as_str() {
            "config.json" => changed_config(input.json(&file)?, dtype.torch_name(), tied),
            _ => None,
        };
        match changed {
            Some(config) => write_atomically(&output.join(&file), |writer| writer.write_all(&config))?,
            None => input.copy(&file, output)?,
        }
    }
    Ok(())
}

/// Writes one safetensors file of f32 vectors, each under a name.
pub(crate) fn write_vectors(
    path: &Path,
    lengths: &[(String, usize)],
    mut values: impl FnMut(&str) -> Vec<f32>,
) -> Result<()> {
    let tensors: Vec<_> = lengths.iter().map(|(name, length)| (name.clone(), vec![*length])).collect();
    write_shard(path, &fresh_shard(&tensors), SaveDtype::F32, |entry| {
        encode(path, &entry.name, &values(&entry.name), Dtype::F32)
    })
}

fn fresh_shard(tensors: &[(String, Vec<usize>)]) -> Shard {
    let entry = |(name, shape): &(String, Vec<usize>)| Entry {
        name: name.clone(),
        dtype: Dtype::F32,
        shape: shape.clone(),
        start: 0,
        bytes: 0,
    };
    let tensors = tensors.iter().map(entry).collect();
    Shard { file: SINGLE.into(), data_start: 0, metadata: None, tensors }
}

/// The dtype and size in bytes of an entry in the output. Tensors that are not floats keep their dtype.
fn output_layout(entry: &Entry, dtype: SaveDtype) -> (Dtype, u64) {
    let dtype = match entry.dtype {
        Dtype::F32 | Dtype::BF16 | Dtype::F16 if !is_buffer(&entry.name) => dtype.of(entry.dtype),
        other => other,
    };
    let elements: usize = entry.shape.iter().product();
    (dtype, (elements * dtype.bitsize() / 8) as u64)
}

/// Size in bytes of all tensors in the output.
fn size(shards: &[Shard], dtype: SaveDtype) -> u64 {
    shards.iter().flat_map(|shard| &shard.tensors).map(|entry| output_layout(entry, dtype).1).sum()
}

/// Whether this is a buffer of old Llama checkpoints. It follows from the config and has no parameter.
pub(crate) fn is_buffer(name: &str) -> bool {
    name.ends_with("rotary_emb.inv_freq")
}

fn write_shard(
    path: &Path,
    shard: &Shard,
    dtype: SaveDtype,
    mut bytes: impl FnMut(&Entry) -> Result<Vec<u8>>,
) -> Result<()> {
    let mut end = 0;
    let infos = shard.tensors.iter().map(|entry| {
        let (dtype, size) = output_layout(entry, dtype);
        let start = end;
        end += size as usize;
        (entry.name.clone(), TensorInfo { dtype, shape: entry.shape.clone(), data_offsets: (start, end) })
    });
    // transformers refuses a file without this metadata.
    let mut metadata = shard.metadata.clone().unwrap_or_default();
    metadata.insert("format".into(), "pt".into());
    let header = Metadata::new(Some(metadata), infos.collect()).expect("offsets laid out above");
    let mut header = serde_json::to_vec(&Ordered(&header)).expect("strings and numbers");
    header.resize(header.len().next_multiple_of(8), b' ');

    // An error from `bytes` is not a write error, so it bypasses the writer.
    let mut refused = None;
    let outcome = write_atomically(path, |writer| {
        writer.write_all(&(header.len() as u64).to_le_bytes())?;
        writer.write_all(&header)?;
        for entry in &shard.tensors {
            match bytes(entry) {
                Ok(bytes) => writer.write_all(&bytes)?,
                Err(error) => {
                    refused = Some(error);
                    return Err(std::io::ErrorKind::InvalidData.into());
                }
            }
        }
        Ok(())
    });
    match refused {
        Some(error) => Err(error),
        None => outcome,
    }
}

/// A header with metadata in a fixed order, so that equal models have equal bytes.
struct Ordered<'a>(&'a Metadata);

impl Serialize for Ordered<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let metadata: Option<BTreeMap<_, _>> = self.0.metadata().as_ref().map(|map| map.iter().collect());
        let entries = self.0.offset_keys().into_iter().map(|name| {
            let info = self.0.info(&name).expect("its own key");
            (name, json!(info))
        });
        serializer.collect_map(std::iter::once(("__metadata__".to_owned(), json!(metadata))).chain(entries))
    }
}

fn write_index(output: &Path, shards: &[Shard], dtype: SaveDtype) -> Result<()> {
    let entries = shards.iter().flat_map(|shard| shard.tensors.iter().map(move |entry| (shard, entry)));
    let map: BTreeMap<&str, &str> =
        entries.map(|(shard, entry)| (entry.name.as_str(), shard.file.as_str())).collect();
    let index = json!({ "metadata": { "total_size": size(shards, dtype) }, "weight_map": map });
    write_atomically(&output.join(INDEX), |writer| Ok(serde_json::to_writer_pretty(writer, &index)?))
}

/// config.json with the output's dtype, and untied if the head turned out to be separate; `None` if nothing changes.
fn changed_config(mut config: serde_json::Value, dtype: Option<&str>, tied: bool) -> Option<Vec<u8>> {
    const TIE: &str = "tie_word_embeddings";
    let object = config.as_object_mut()?;
    let untie = !tied && object.get(TIE).and_then(serde_json::Value::as_bool) == Some(true);
    if untie {
        object.insert(TIE.into(), false.into());
    }
    if let Some(name) = dtype {
        let key = if object.contains_key("dtype") { "dtype" } else { "torch_dtype" };
        object.insert(key.into(), name.into());
        if key == "dtype" {
            object.shift_remove("torch_dtype");
        }
    }
    (untie || dtype.is_some()).then(|| crate::json::to_vec(&config))
}

/// Encodes f32 values as tensor bytes.
fn encode(path: &Path, name: &str, values: &[f32], dtype: Dtype) -> Result<Vec<u8>> {
    let beyond = |value: f32, limit: &str| Error::Tensor {
        path: path.display().to_string(),
        tensor: name.into(),
        problem: format!("would hold {value}, {limit}"),
    };
    let mut bytes = Vec::with_capacity(values.len() * dtype.bitsize() / 8);
    for &value in values {
        if !value.is_finite() {
            return Err(beyond(value, "which is not a finite number"));
        }
        match dtype {
            Dtype::F32 => bytes.extend(value.to_le_bytes()),
            Dtype::BF16 => bytes.extend(half::bf16::from_f32(value).to_le_bytes()),
            Dtype::F16 => {
                let rounded = half::f16::from_f32(value);
                if rounded.is_infinite() {
                    let remedy = "which is beyond the range of f16; set `model.save_dtype = \"f32\"`";
                    return Err(beyond(value, remedy));
                }
                bytes.extend(rounded.to_le_bytes());
            }
            other => unreachable!("weights are never {other}"),
        }
    }
    Ok(bytes)
}

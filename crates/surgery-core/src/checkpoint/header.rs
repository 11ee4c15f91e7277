//! Header of a safetensors file. It is checked against the file's length and for gaps and overlaps before use.

use std::collections::{HashMap, HashSet};
use std::fmt;

use safetensors::tensor::{Dtype, TensorInfo};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

/// The key that is not a tensor.
const METADATA: &str = "__metadata__";

/// A checked header.
pub(super) struct Header {
    /// Metadata from the file's writer.
    pub metadata: Option<HashMap<String, String>>,
    /// The tensors in file order.
    pub tensors: Vec<Entry>,
}

/// One tensor of a file.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// Offset relative to the file's data section.
    pub start: u64,
    pub bytes: u64,
}

/// A fault of a header, and the tensor that causes it, if any.
pub(super) struct Fault {
    pub tensor: Option<String>,
    pub problem: String,
}

impl Header {
    /// Parses the JSON of a header. Refuses one that does not describe `data` bytes of contiguous tensors.
    pub fn parse(json: &[u8], data: u64) -> Result<Self, Fault> {
        let Listed { metadata, mut tensors } = serde_json::from_slice(json)
            .map_err(|error| Fault { tensor: None, problem: format!("has a bad header ({error})") })?;
        tensors.sort_by_key(|(_, info)| info.data_offsets);
        let mut end = 0;
        let mut entries = Vec::with_capacity(tensors.len());
        for (name, info) in tensors {
            match entry(&name, info, end, data) {
                Ok(entry) => {
                    end = entry.start + entry.bytes;
                    entries.push(entry);
                }
                Err(problem) => return Err(Fault { tensor: Some(name), problem }),
            }
        }
        if end != data {
            let problem = format!("holds {data} bytes of tensors, but its header describes {end}");
            return Err(Fault { tensor: None, problem });
        }
        Ok(Self { metadata, tensors: entries })
    }
}

/// Checks a tensor: it must start at `expected`, where the previous one ends, and end within the `data` bytes.
fn entry(name: &str, info: TensorInfo, expected: u64, data: u64) -> Result<Entry, String> {
    let TensorInfo { dtype, shape, data_offsets: (start, end) } = info;
    let (start, end) = (start as u64, end as u64);
    if start > end {
        return Err(format!("ends at byte {end}, before it begins at {start}"));
    }
    if start != expected {
        let what = if start < expected {
            "overlaps the previous tensor"
        } else {
            "leaves a gap after the previous tensor"
        };
        return Err(format!("starts at byte {start} and {what}, which ends at {expected}"));
    }
    if end > data {
        return Err(format!("ends at byte {end}, but the file holds {data} bytes of tensors"));
    }
    let elements = shape.iter().try_fold(1u64, |product, &size| product.checked_mul(size as u64));
    let bits = elements.and_then(|elements| elements.checked_mul(dtype.bitsize() as u64));
    match bits {
        Some(bits) if bits == (end - start) * 8 => {
            Ok(Entry { name: name.into(), dtype, shape, start, bytes: end - start })
        }
        _ => Err(format!("has {} bytes, which do not match shape {shape:?} and dtype {dtype}", end - start)),
    }
}

/// The unchecked list of tensors in the JSON. Errors name the tensor.
struct Listed {
    metadata: Option<HashMap<String, String>>,
    tensors: Vec<(String, TensorInfo)>,
}

impl<'de> Deserialize<'de> for Listed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Listing;
        impl<'de> Visitor<'de> for Listing {
            type Value = Listed;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Listed, A::Error> {
                let (mut metadata, mut tensors) = (None, Vec::new());
                let mut seen = HashSet::new();
                while let Some(name) = map.next_key::<String>()? {
                    let named = |error: A::Error| A::Error::custom(format!("`{name}`: {error}"));
                    if !seen.insert(name.clone()) {
                        return Err(A::Error::custom(format!("`{name}` occurs twice")));
                    }
                    if name == METADATA {
                        metadata = map.next_value().map_err(named)?;
                    } else {
                        let info = map.next_value().map_err(named)?;
                        tensors.push((name, info));
                    }
                }
                Ok(Listed { metadata, tensors })
            }
        }
        deserializer.deserialize_map(Listing)
    }
}

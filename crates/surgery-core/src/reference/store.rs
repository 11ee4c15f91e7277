//! Storage for the hidden states of windows, in a folder or in memory.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::files::hex;

/// The key of a window's states: a digest of everything that they depend on.
pub(crate) type Key = [u8; 32];

/// The first bytes of a file of states.
const MAGIC: &[u8; 16] = b"surgery states 1";

/// Hidden states by window.
#[derive(Debug, Clone)]
pub struct Store(Place);

#[derive(Debug, Clone)]
enum Place {
    Memory(HashMap<Key, Vec<f32>>),
    /// A file for each window: [`MAGIC`], the number of tokens, the number of values of a token (u64), the values (f32), all
    /// little-endian, and a SHA-256 of everything before it.
    Folder(PathBuf),
}

impl Store {
    /// Keeps states in memory.
    pub fn in_memory() -> Self {
        Self(Place::Memory(HashMap::new()))
    }

    /// Keeps states in files of `folder`, which is created if it is missing.
    pub fn in_folder(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).map_err(Error::write(folder))?;
        Ok(Self(Place::Folder(folder.to_path_buf())))
    }

    /// The states under `key`, `[tokens, size]`. Missing or damaged states are an error.
    pub(crate) fn get(&self, key: &Key, [tokens, size]: [usize; 2]) -> Result<Vec<f32>> {
        match self {
            Self(Place::Memory(states)) => match states.get(key) {
                Some(states) if states.len() == tokens * size => Ok(states.clone()),
                _ => Err(unusable("the reference's states", "are missing for a text".into())),
            },
            Self(Place::Folder(folder)) => {
                let path = folder.join(name(key));
                let shown = path.display().to_string();
                let bytes = fs::read(&path).map_err(|source| Error::Read { path: shown.clone(), source })?;
                decode(&bytes, [tokens, size]).map_err(|problem| unusable(&shown, problem))
            }
        }
    }

    /// Stores `states`, `[tokens, size]`, under `key`.
    pub(crate) fn put(&mut self, key: &Key, [tokens, size]: [usize; 2], states: &[f32]) -> Result<()> {
        match self {
            Self(Place::Memory(kept)) => {
                kept.insert(*key, states.to_vec());
                Ok(())
            }
            Self(Place::Folder(folder)) => {
                let path = folder.join(name(key));
                // The file is not synced, because that would take longer than computing the states of a short text. The
                // digest detects a file damaged by a power loss.
                let temporary = path.with_extension("tmp");
                fs::write(&temporary, encode(states, [tokens, size]))
                    .and_then(|()| fs::rename(&temporary, &path))
                    .map_err(|source| {
                        let _ = fs::remove_file(&temporary);
                        Error::Write { path, source }
                    })
            }
        }
    }
}

fn unusable(path: &str, problem: String) -> Error {
    let remedy = "run the operation from its beginning, or with `train.reference = \"live\"`";
    Error::Data { path: path.into(), problem, remedy: remedy.into() }
}

fn name(key: &Key) -> String {
    hex(key)
}

fn header([tokens, size]: [usize; 2]) -> Vec<u8> {
    [&MAGIC[..], &(tokens as u64).to_le_bytes(), &(size as u64).to_le_bytes()].concat()
}

fn encode(states: &[f32], shape: [usize; 2]) -> Vec<u8> {
    let mut bytes = header(shape);
    bytes.reserve(4 * states.len() + 32);
    states.iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
    let digest = Sha256::digest(&bytes);
    bytes.extend_from_slice(&digest);
    bytes
}

/// The values of a file of states of this shape, or the problem.
fn decode(bytes: &[u8], shape: [usize; 2]) -> Result<Vec<f32>, String> {
    let header = header(shape);
    let length = header.len() + 4 * shape[0] * shape[1] + size_of::<Key>();
    if bytes.len() != length {
        return Err(format!("is damaged: it has {} bytes, expected {length}", bytes.len()));
    }
    let (content, digest) = bytes.split_at(length - size_of::<Key>());
    if !content.starts_with(&header) || *Sha256::digest(content) != *digest {
        return Err("is damaged: its digest does not match its content".into());
    }
    let values = content[header.len()..].as_chunks::<4>().0.iter();
    Ok(values.map(|&chunk| f32::from_le_bytes(chunk)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_states_are_read_back_and_damage_is_detected() {
        let states: Vec<f32> = (0..12).map(|value| value as f32 / 7.0).collect();
        let bytes = encode(&states, [4, 3]);
        assert_eq!(decode(&bytes, [4, 3]).unwrap(), states);
        assert!(decode(&bytes, [3, 4]).is_err(), "another shape");
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length], [4, 3]).is_err(), "only {length} bytes");
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(decode(&damaged, [4, 3]).is_err(), "another byte {at}");
        }
    }
}

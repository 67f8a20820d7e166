//! Files with what was given out, which appear whole and carry a checksum.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// A longer file is not read.
const MAX_BYTES: u64 = 16 << 20;

/// Why what was given out is not known, or cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("cannot {action} {path:?}: {source}")]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path:?} is corrupt ({why}): drain this node, delete the file and start again")]
    Corrupt { path: PathBuf, why: String },
}

/// FNV-1a, 32 bits.
fn checksum(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Of an object without its checksum. Keys are in order in it, so that the same content has the same text.
fn sum_of(object: &Value) -> u32 {
    checksum(&object.to_string())
}

/// Writes a state; under `key` goes its checksum.
pub(crate) fn write(path: &Path, state: &impl Serialize, key: &str) -> Result<(), CheckpointError> {
    let io = |action, source| CheckpointError::Io { action, path: path.to_owned(), source };
    let mut object = serde_json::to_value(state).map_err(|e| io("write", e.into()))?;
    let sum = sum_of(&object);
    if let Some(fields) = object.as_object_mut() {
        fields.insert(key.to_owned(), sum.into());
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(folder).map_err(|e| io("make the folder of", e))?;
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(|e| io("write", e))?;
    file.write_all(object.to_string().as_bytes()).map_err(|e| io("write", e))?;
    file.persist(path).map_err(|e| io("write", e.error))?;
    Ok(())
}

/// The state of an earlier run, if there was one.
pub(crate) fn read<S: DeserializeOwned>(path: &Path, key: &str) -> Result<Option<S>, CheckpointError> {
    let io = |source| CheckpointError::Io { action: "read", path: path.to_owned(), source };
    let corrupt = |why: String| CheckpointError::Corrupt { path: path.to_owned(), why };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(io)?;
    let mut object: Value = serde_json::from_slice(&bytes).map_err(|e| corrupt(e.to_string()))?;
    let told = object.as_object_mut().and_then(|fields| fields.remove(key)).and_then(|sum| sum.as_u64());
    if told != Some(u64::from(sum_of(&object))) {
        return Err(corrupt("its checksum is another".to_owned()));
    }
    serde_json::from_value(object).map(Some).map_err(|e| corrupt(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_state_is_found_again_and_damage_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/state");
        assert!(read::<BTreeMap<String, u32>>(&path, "checksum").unwrap().is_none());
        let state = BTreeMap::from([("b".to_owned(), 1), ("a".to_owned(), 2)]);
        write(&path, &state, "checksum").unwrap();
        assert_eq!(read::<BTreeMap<String, u32>>(&path, "checksum").unwrap(), Some(state));
        let text = std::fs::read_to_string(&path).unwrap();
        for broken in [text.replace(":2", ":3"), "{".to_owned(), "[]".to_owned(), String::new()] {
            std::fs::write(&path, &broken).unwrap();
            let error = read::<BTreeMap<String, u32>>(&path, "checksum").unwrap_err();
            assert!(matches!(error, CheckpointError::Corrupt { .. }), "{broken}: {error}");
        }
    }
}

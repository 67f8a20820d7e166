//! What a pull or push tells of its way.

/// Where a layer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Waiting,
    AlreadyExists,
    PullingLayer,
    /// Bytes so far and in all; 0 in all is unknown.
    Downloading(u64, u64),
    Verifying,
    DownloadComplete,
    Extracting(u64, u64),
    PullComplete,
    Preparing,
    Pushing(u64, u64),
    Pushed,
    LayerExists,
    /// Of another repository of the same registry.
    Mounted(String),
    Retrying(u32),
}

/// One line of progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A layer, by the first twelve digits of its digest.
    Layer {
        id: String,
        step: Step,
    },
    /// `7: Pulling from library/redis`
    From {
        tag: String,
        repository: String,
    },
    Digest(String),
    /// `tag: digest: sha256:… size: …`
    PushDone {
        tag: String,
        digest: String,
        size: u64,
    },
    Line(String),
}

/// Takes progress as it comes; it must not block.
pub type Sink<'a> = &'a (dyn Fn(Progress) + Send + Sync);

/// The short form of a digest.
pub(crate) fn short(digest: &str) -> String {
    digest.trim_start_matches("sha256:").chars().take(12).collect()
}

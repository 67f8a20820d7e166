//! The last word on an exec or attach: a `metav1.Status` on the error stream.
//!
//! Source: the v4 remote command protocol of kubernetes/kubelet: success has `status: Success`; a process that ended
//! with another code than 0 has the reason `NonZeroExitCode` and the code as a cause.

use pintle_cri::ByteWriter;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

/// Writes the outcome once. Dropped without a word, the client sees the stream close.
pub struct StatusWriter {
    stream: ByteWriter,
}

impl StatusWriter {
    pub(crate) fn new(stream: ByteWriter) -> Self {
        Self { stream }
    }

    pub async fn exited(self, code: i32) {
        let status = if code == 0 {
            json!({ "metadata": {}, "status": "Success" })
        } else {
            json!({
                "metadata": {},
                "status": "Failure",
                "reason": "NonZeroExitCode",
                "message": format!("command terminated with non-zero exit code: exit status {code}"),
                "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
            })
        };
        self.send(&status).await;
    }

    /// The command could not be run, or its streams broke.
    pub async fn failed(self, message: &str) {
        let status = json!({
            "metadata": {},
            "status": "Failure",
            "reason": "InternalError",
            "message": format!("Internal error occurred: {message}"),
            "details": { "causes": [{ "message": message }] },
            "code": 500,
        });
        self.send(&status).await;
    }

    /// Any other `metav1.Status`.
    pub async fn send(mut self, status: &Value) {
        // A client that has gone needs no status.
        if self.stream.write_all(status.to_string().as_bytes()).await.is_ok() {
            let _ = self.stream.shutdown().await;
        }
    }
}

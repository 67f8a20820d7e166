//! What a build tells while it runs: texts of the two streams, ids of images, progress of pulls.
//!
//! Stages that run side by side tell one after the other: a stage that is not its turn yet waits when much of what it
//! tells waits.

use serde_json::{Value, json};
use tokio::sync::mpsc;

/// Messages of a stage that may wait for its turn.
const WAITING: usize = 256;

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    Text(String),
    /// What a step wrote to its standard error.
    ErrorText(String),
    /// An image is there.
    Image(String),
    /// As it is, such as the progress of a pull.
    Raw(Value),
}

impl Message {
    /// As the Engine API has it, a line each.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Text(text) => json!({ "stream": text }),
            Self::ErrorText(text) => json!({ "stream": format!("\u{1b}[91m{text}\u{1b}[0m") }),
            Self::Image(id) => json!({ "aux": { "ID": id } }),
            Self::Raw(value) => value.clone(),
        }
    }
}

/// Where messages go. What is told after nobody listens any more is dropped: the build is being cancelled then.
#[derive(Clone, Debug)]
pub struct Output(mpsc::Sender<Message>);

impl Output {
    pub fn channel() -> (Self, mpsc::Receiver<Message>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self(sender), receiver)
    }

    pub async fn tell(&self, message: Message) {
        // Dropped when nobody listens any more.
        let _ = self.0.send(message).await;
    }

    pub async fn text(&self, text: impl Into<String>) {
        self.tell(Message::Text(text.into())).await;
    }

    /// Tells without waiting; what does not fit is dropped. For progress only.
    pub fn try_tell(&self, message: Message) {
        let _ = self.0.try_send(message);
    }

    /// Resolves when nobody listens any more.
    pub async fn closed(&self) {
        self.0.closed().await;
    }
}

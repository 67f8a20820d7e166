//! Serves the Kubernetes API over HTTP: who asks, may they, what for, and the answer.

//! Speaks to image registries: pull and push, manifests by platform, credentials, progress.

//! Talks to an API server: requests, watches, transports.

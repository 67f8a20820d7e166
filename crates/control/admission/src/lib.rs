//! What is asked before a write is stored: webhooks, policies in CEL, quotas, limit ranges.

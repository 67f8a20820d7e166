//! The Common Expression Language as Kubernetes speaks it: parsing, type checking, cost limits, evaluation, libraries.

//! Chooses a node for each pod, or says why none will do.

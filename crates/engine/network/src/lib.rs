//! Gives a sandbox its interface, address and routes on a bridge.

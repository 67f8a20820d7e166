//! Bundles run by the command line, as root on this machine: what the runtime specification promises.

mod bundle;
mod console;
mod lifecycle;
mod set_up;

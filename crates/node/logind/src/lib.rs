//! Learns from systemd-logind that the machine is to end, and holds that up for a while, over the system bus.
//!
//! Speaks the few D-Bus messages that this takes (`wire`, `bus`) and knows nothing of who needs the time. Nothing runs
//! by itself: one who waits for news polls [`Logind::next`].
//!
//! Sources: the D-Bus specification; `org.freedesktop.login1(5)`, `logind.conf(5)`, "Inhibitor Locks" of systemd.

mod bus;
mod logind;
#[cfg(any(test, feature = "pretended"))]
pub mod pretended;
mod wire;

pub use bus::BusError;
pub use logind::{Inhibitor, Logind, LogindError};
pub use wire::BadMessage;

/// Where the system bus listens, unless the environment says otherwise.
pub const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";
/// Where files override what logind is set to.
pub const OVERRIDES: &str = "/etc/systemd/logind.conf.d";

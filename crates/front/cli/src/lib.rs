//! The command line: what a person types, and what they are told.
//!
//! Parses arguments and the configuration file, and formats answers; what the commands do is the binary's business.

pub mod certs;
pub mod dev;
mod nodes;
pub mod output;
mod pretend;
mod settings;
pub mod status;

pub use nodes::{Init, Join, TokenCommand, TokenCreate};
pub use pretend::{Hollow, Machine, PodShape, Sim};
pub use settings::{OnExit, PodNetwork, Settings, SettingsError};

use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

/// A container engine and a Kubernetes cluster in one program.
#[derive(Debug, Parser)]
#[command(name = "pintle", version, arg_required_else_help = true, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the whole cluster: API server, scheduler, controllers, and this machine as its node.
    Server(Daemon),
    /// Runs this machine as a node of a cluster that it has joined.
    Agent(Daemon),
    /// Sets up a cluster on this machine, starts its server in the background, and says how others join.
    Init(Init),
    /// Makes this machine a node of a cluster, and starts its agent in the background.
    Join(Join),
    /// Manages the tokens by which nodes join.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Manages the certificates of this machine.
    #[command(subcommand)]
    Certs(certs::CertsCommand),
    /// Tells how this machine is as a server or node, and what is wrong; fails when something is.
    Status(status::Status),
    /// Manages clusters of several nodes on this one machine.
    #[command(subcommand)]
    Dev(dev::DevCommand),
    /// Runs a server for a person at a terminal: shows its progress, applies manifests, says what to try next.
    Up(Up),
    /// Runs the container engine alone: what the `docker` command talks to.
    Engine(Daemon),
    /// Is an OCI runtime, such as runc: `pintle oci --help`; also when this program is called `pintle-oci` or `runc`.
    #[command(disable_help_flag = true)]
    Oci(Oci),
    /// Manages this node's images.
    #[command(subcommand)]
    Image(ImageCommand),
    /// Removes everything that a server or an agent left on this machine: containers, mounts, links, rules, state.
    Reset(Reset),
    /// Joins pretending nodes to a server, to see how it does with many.
    Hollow(Hollow),
    /// Tries in this process how a cluster of a given size does, with pretending nodes on virtual time.
    Sim(Sim),
    /// Prints the version.
    Version(Version),
}

/// The settings of a command: its flags, over the configuration file.
#[derive(Args, Clone, Debug)]
pub struct Configured {
    /// A YAML file whose keys are the names of the flags; flags win over it.
    #[arg(long, value_name = "FILE", env = "PINTLE_CONFIG")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub flags: Settings,
}

impl Configured {
    /// # Errors
    /// When the file cannot be read, is no YAML, or has a key that does not exist.
    pub fn settings(self) -> Result<Settings, SettingsError> {
        self.flags.with_file(self.config.as_deref())
    }
}

/// A part that runs until it is told to stop.
#[derive(Args, Clone, Debug)]
pub struct Daemon {
    /// Which messages to log: error, warn, info, debug, trace; `info,pintle_kubelet=debug` narrows it down.
    #[arg(long, default_value = "info", env = "PINTLE_LOG")]
    pub log_level: String,
    #[command(flatten)]
    pub configured: Configured,
}

#[derive(Args, Clone, Debug)]
pub struct Oci {
    /// The runtime's command line: `create`, `start`, `state`, `kill`, `delete`, `run`, `exec`, …
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
    pub arguments: Vec<OsString>,
}

#[derive(Args, Clone, Debug)]
pub struct Up {
    /// A manifest to apply when the node is Ready; may be repeated.
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub manifests: Vec<PathBuf>,
    #[command(flatten)]
    pub daemon: Daemon,
}

/// Where a running server is found.
#[derive(Args, Clone, Debug)]
pub struct Socket {
    /// The server's socket.
    #[arg(long, value_name = "PATH", default_value = "/run/pintle/docker.sock", env = "PINTLE_SOCKET")]
    pub socket: PathBuf,
}

#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Loads an image archive: what `docker save` writes, or an OCI layout as a tar file.
    Load {
        /// The archive; `-` is standard input.
        archive: PathBuf,
        #[command(flatten)]
        socket: Socket,
    },
    /// Lists images.
    #[command(visible_alias = "list")]
    Ls {
        /// `table` or `json`.
        #[arg(short, long, default_value = "table")]
        output: output::Format,
        #[command(flatten)]
        socket: Socket,
    },
    /// Gives an image one more name.
    Tag {
        image: String,
        name: String,
        #[command(flatten)]
        socket: Socket,
    },
    /// Removes an image, or one of its names.
    Rm {
        image: String,
        #[command(flatten)]
        socket: Socket,
    },
}

#[derive(Args, Clone, Debug)]
pub struct Reset {
    /// Does not ask.
    #[arg(long, short)]
    pub yes: bool,
    #[command(flatten)]
    pub configured: Configured,
}

#[derive(Args, Clone, Debug)]
pub struct Version {
    #[arg(short, long, default_value = "table")]
    pub output: output::Format,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_reach_the_settings() {
        let cli = Cli::parse_from(["pintle", "server", "--https-port", "7443", "--node-name", "a"]);
        let Command::Server(daemon) = cli.command else { panic!("not the server command") };
        let settings = daemon.configured.flags;
        assert_eq!((settings.https_port(), settings.node_name.as_deref()), (7443, Some("a")));
    }
}

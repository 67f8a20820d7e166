//! A machine of its own, as far as the network goes: a network namespace with a loopback and one address.

use crate::command::{Output, run};
use crate::lan::Lan;
use anyhow::Result;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// The addresses that hosts have, by their number.
const ADDRESSES: [&str; 4] = ["192.168.77.2", "192.168.77.3", "192.168.77.4", "192.168.77.5"];

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Removed with all its links, routes and rules when dropped.
pub struct Host {
    pub name: String,
    /// Its one address of IPv4.
    pub address: &'static str,
    /// Of IPv6, where it has one.
    pub six: Option<String>,
}

pub(crate) fn ip(arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("ip");
    command.args(arguments);
    run(command, "")?.ok()
}

impl Host {
    pub fn new() -> Result<Self> {
        let host = Self::unconnected(ADDRESSES[0])?;
        host.inside("link add eth0 type veth peer name outside")?;
        host.inside("link set outside up")?;
        host.configure()?;
        Ok(host)
    }

    /// One of several on a link, by its number from 0 to 3.
    pub fn on(lan: &Lan, number: usize) -> Result<Self> {
        let host = Self::unconnected(ADDRESSES[number])?;
        lan.connect(&host, u8::try_from(number)?)?;
        Ok(host)
    }

    /// Gives a host on a link an address of IPv6 as well.
    pub fn with_six(mut self) -> Result<Self> {
        let six = format!("fd77::{}", self.address.rsplit('.').next().unwrap_or_default());
        self.inside(&format!("address add {six}/64 dev eth0 nodad"))?;
        self.six = Some(six);
        Ok(self)
    }

    /// What `--node-ip` takes.
    pub(crate) fn node_ip(&self) -> String {
        let six = self.six.iter().map(String::as_str);
        std::iter::once(self.address).chain(six).collect::<Vec<_>>().join(",")
    }

    fn unconnected(address: &'static str) -> Result<Self> {
        let name = format!("pintle-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        ip(&["netns", "add", &name])?;
        let host = Self { name, address, six: None };
        host.inside("link set lo up")?;
        Ok(host)
    }

    fn configure(&self) -> Result<()> {
        self.inside("link set eth0 up")?;
        self.inside(&format!("address add {}/24 dev eth0", self.address))?;
        self.inside("route add default via 192.168.77.1").map(drop)
    }

    fn inside(&self, words: &str) -> Result<String> {
        ip(&[&["-n", &self.name][..], &words.split(' ').collect::<Vec<_>>()].concat())
    }

    /// A command that will run in this network, with the file systems of the real machine.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg("--").arg(program);
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, words: &[&str]) -> Result<Output> {
        let mut command = self.command(words.first().copied().unwrap_or_default());
        command.args(&words[1..]);
        run(command, "")
    }

    /// The processes in this network.
    pub fn processes(&self) -> Result<Vec<String>> {
        Ok(ip(&["netns", "pids", &self.name])?.lines().map(str::to_owned).collect())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for pid in self.processes().unwrap_or_default() {
            if let Some(pid) = pid.parse().ok().and_then(rustix::process::Pid::from_raw) {
                // It may have ended by itself.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        if let Err(error) = ip(&["netns", "delete", &self.name]) {
            crate::suite::tell(&format!("cannot delete the namespace {}: {error:#}", self.name));
        }
    }
}

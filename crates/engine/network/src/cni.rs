//! Gives sandboxes their network by CNI plugins: programs that are run one after the other, with the configuration on
//! their standard input (CNI specification, version 1.0).
//!
//! What `ADD` answered is written down, because `DEL` is told it: a sandbox is released after a restart as well.

use crate::record::{HostPort, check_id};
use crate::{Bandwidth, Error, Result};
use serde_json::{Map, Value, json};
use std::fs;
use std::io::{Read, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const INTERFACE: &str = "eth0";
/// A configuration, or what a plugin says, is far smaller.
const MAX_BYTES: u64 = 1 << 20;
const MAX_PLUGINS: usize = 32;
/// What a plugin is told of its surroundings; the daemon's own environment may hold secrets.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where configurations, plugins and records are.
#[derive(Clone, Debug)]
pub struct CniConfig {
    /// The first file in it, by name, that ends in `.conflist`, `.conf` or `.json` counts.
    pub configurations: PathBuf,
    /// Folders of plugins, in the order in which they are searched.
    pub plugins: Vec<PathBuf>,
    /// Made if missing, and used by nothing else.
    pub state_dir: PathBuf,
}

/// A sandbox, in the words that plugins get.
#[derive(Clone, Debug, Default)]
pub struct CniSandbox {
    pub id: String,
    /// The path of its network namespace; empty when that is gone, for a release.
    pub namespace: PathBuf,
    /// `CNI_ARGS`, such as the pod's name.
    pub arguments: Vec<(String, String)>,
    pub host_ports: Vec<HostPort>,
    pub bandwidth: Bandwidth,
}

/// The network that plugins make.
#[derive(Debug)]
pub struct CniNetwork {
    config: CniConfig,
}

/// A network configuration list.
#[derive(Debug)]
struct Network {
    version: String,
    name: String,
    plugins: Vec<Map<String, Value>>,
}

impl CniNetwork {
    /// # Errors
    /// When the folder of records can't be made.
    pub fn open(config: CniConfig) -> Result<Self> {
        let failed = |source| Error::File { doing: "make", path: config.state_dir.clone(), source };
        fs::create_dir_all(&config.state_dir).map_err(failed)?;
        Ok(Self { config })
    }

    /// Fails, in upstream's words, while there is no configuration, and when a plugin of it is missing.
    pub fn status(&self) -> Result<()> {
        let network = self.network()?;
        network.plugins.iter().try_for_each(|plugin| self.program(plugin).map(drop))
    }

    /// Connects a sandbox, or answers what it was given before: its addresses, the primary one first.
    ///
    /// # Errors
    /// What a plugin says; then those before it have been undone.
    pub fn setup(&self, sandbox: &CniSandbox) -> Result<Vec<IpAddr>> {
        check_id(&sandbox.id)?;
        if let Some(record) = self.record(&sandbox.id)? {
            return addresses(&record["result"]);
        }
        let network = self.network()?;
        let mut result = Value::Null;
        for plugin in &network.plugins {
            match self.run("ADD", &network, plugin, sandbox, &result) {
                Ok(said) => result = said,
                Err(error) => {
                    if let Err(undoing) = self.delete(&network, sandbox, &Value::Null) {
                        tracing::warn!(sandbox = sandbox.id, error = %undoing, "cannot undo a network set-up that failed");
                    }
                    return Err(error);
                }
            }
        }
        let found = addresses(&result)?;
        let list = json!({"cniVersion": network.version, "name": network.name, "plugins": network.plugins});
        let ports: Vec<Value> = sandbox.host_ports.iter().map(port_mapping).collect();
        self.write(
            &sandbox.id,
            &json!({"network": list, "result": result, "ports": ports, "arguments": sandbox.arguments}),
        )?;
        Ok(found)
    }

    /// Takes back what `setup` gave, with the configuration of then; nothing to do is success.
    pub fn teardown(&self, id: &str, namespace: &Path) -> Result<()> {
        check_id(id)?;
        let Some(record) = self.record(id)? else { return Ok(()) };
        let network = parse(&record["network"], "the record of the sandbox")?;
        let arguments = serde_json::from_value(record["arguments"].clone()).unwrap_or_default();
        let namespace = if namespace.exists() { namespace.to_owned() } else { PathBuf::new() };
        let sandbox = CniSandbox { id: id.to_owned(), namespace, arguments, ..CniSandbox::default() };
        self.delete(&network, &sandbox, &record)?;
        let path = self.path(id);
        fs::remove_file(&path).map_err(|source| Error::File { doing: "remove", path, source })
    }

    /// Releases everything that belongs to sandboxes other than `live`: called once at start.
    pub fn retain(&self, live: &[String]) -> Result<()> {
        let path = self.config.state_dir.clone();
        let entries = fs::read_dir(&path).map_err(|source| Error::File { doing: "read", path, source })?;
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(id) = name.strip_suffix(".json").filter(|id| !live.iter().any(|one| one == id)) {
                self.teardown(id, Path::new(""))?;
            }
        }
        Ok(())
    }

    fn delete(&self, network: &Network, sandbox: &CniSandbox, record: &Value) -> Result<()> {
        for plugin in network.plugins.iter().rev() {
            let mut plugin = plugin.clone();
            if takes(&plugin, "portMappings") && record["ports"].is_array() {
                plugin.insert("runtimeConfig".into(), json!({"portMappings": record["ports"]}));
            }
            self.run("DEL", network, &plugin, sandbox, &record["result"])?;
        }
        Ok(())
    }

    /// Runs one plugin and returns what it answers.
    fn run(
        &self,
        command: &str,
        network: &Network,
        plugin: &Map<String, Value>,
        sandbox: &CniSandbox,
        previous: &Value,
    ) -> Result<Value> {
        let program = self.program(plugin)?;
        let input = Value::Object(input_of(network, plugin, sandbox, previous)).to_string();
        let arguments: Vec<String> = sandbox.arguments.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let folders = std::env::join_paths(&self.config.plugins).unwrap_or_default();
        let failed = |source| Error::File { doing: "run the CNI plugin", path: program.clone(), source };
        let mut child = Command::new(&program)
            .env_clear()
            .env("PATH", PATH)
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", &sandbox.id)
            .env("CNI_NETNS", &sandbox.namespace)
            .env("CNI_IFNAME", INTERFACE)
            .env("CNI_ARGS", arguments.join(";"))
            .env("CNI_PATH", folders)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A plugin that does not read its input says by its answer what it thinks of it.
            stdin.write_all(input.as_bytes()).ok();
        }
        let mut said = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(MAX_BYTES).read_to_end(&mut said).map_err(failed)?;
        }
        let status = child.wait().map_err(failed)?;
        let answer: Value = serde_json::from_slice(&said).unwrap_or(Value::Null);
        if status.success() {
            return Ok(answer);
        }
        let kind = plugin["type"].as_str().unwrap_or_default();
        Err(Error::Plugin {
            kind: kind.to_owned(),
            command: command.to_owned(),
            message: complaint(&answer, &status.to_string()),
        })
    }

    fn network(&self) -> Result<Network> {
        let folder = &self.config.configurations;
        let none =
            || Error::Config(format!("cni config uninitialized: no network config found in {}", folder.display()));
        let mut files: Vec<PathBuf> =
            fs::read_dir(folder).map_err(|_| none())?.flatten().map(|entry| entry.path()).collect();
        let ends = |path: &PathBuf| {
            path.extension().is_some_and(|end| ["conflist", "conf", "json"].iter().any(|wanted| end == *wanted))
        };
        files.retain(ends);
        files.sort();
        let path = files.into_iter().next().ok_or_else(none)?;
        let value = read_json(&path)?.ok_or_else(none)?;
        parse(&value, &path.display().to_string())
    }

    fn program(&self, plugin: &Map<String, Value>) -> Result<PathBuf> {
        let kind = plugin.get("type").and_then(Value::as_str).unwrap_or_default();
        let plain = !kind.is_empty() && !kind.contains('/') && kind != "." && kind != "..";
        let found = self.config.plugins.iter().map(|folder| folder.join(kind)).find(|path| plain && path.is_file());
        found.ok_or_else(|| Error::Config(format!("failed to find plugin {kind:?} in path {:?}", self.config.plugins)))
    }

    fn path(&self, id: &str) -> PathBuf {
        self.config.state_dir.join(format!("{id}.json"))
    }

    fn record(&self, id: &str) -> Result<Option<Value>> {
        read_json(&self.path(id))
    }

    fn write(&self, id: &str, record: &Value) -> Result<()> {
        let (path, draft) = (self.path(id), self.config.state_dir.join(format!("{id}.new")));
        let written = fs::write(&draft, record.to_string()).and_then(|()| fs::rename(&draft, &path));
        written.map_err(|source| Error::File { doing: "write", path, source })
    }
}

/// Nothing when the file is not there.
fn read_json(path: &Path) -> Result<Option<Value>> {
    let failed = |source| Error::File { doing: "read", path: path.to_owned(), source };
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    let value = serde_json::from_slice(&bytes);
    value.map(Some).map_err(|error| Error::Config(format!("{} is not JSON: {error}", path.display())))
}

/// A list of plugins, or a single one as a list of itself.
fn parse(value: &Value, place: &str) -> Result<Network> {
    let wrong = |what: &str| Error::Config(format!("{place}: {what}"));
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let (version, name) = (text("cniVersion"), text("name"));
    if name.is_empty() {
        return Err(wrong("the network has no \"name\""));
    }
    let plugins = match value.get("plugins") {
        Some(Value::Array(plugins)) => plugins.iter().filter_map(|plugin| plugin.as_object().cloned()).collect(),
        Some(_) => return Err(wrong("\"plugins\" is no list")),
        None => Vec::from_iter(value.as_object().cloned()),
    };
    if plugins.is_empty() || plugins.len() > MAX_PLUGINS {
        return Err(wrong(&format!("it has {} plugins, and needs 1 to {MAX_PLUGINS}", plugins.len())));
    }
    let version = if version.is_empty() { "0.2.0".to_owned() } else { version };
    Ok(Network { version, name, plugins })
}

/// A plugin's own configuration, with what belongs to the whole list, what those before it answered, and what it can
/// do for this sandbox.
fn input_of(
    network: &Network,
    plugin: &Map<String, Value>,
    sandbox: &CniSandbox,
    previous: &Value,
) -> Map<String, Value> {
    let mut input = plugin.clone();
    input.insert("cniVersion".into(), json!(network.version));
    input.insert("name".into(), json!(network.name));
    if !previous.is_null() {
        input.insert("prevResult".into(), previous.clone());
    }
    let mut settings = Map::new();
    if takes(plugin, "portMappings") && !sandbox.host_ports.is_empty() {
        settings.insert("portMappings".into(), sandbox.host_ports.iter().map(port_mapping).collect());
    }
    if takes(plugin, "bandwidth") && sandbox.bandwidth != Bandwidth::default() {
        settings.insert("bandwidth".into(), bandwidth(sandbox.bandwidth));
    }
    input.remove("capabilities");
    if !settings.is_empty() {
        input.insert("runtimeConfig".into(), Value::Object(settings));
    }
    input
}

fn takes(plugin: &Map<String, Value>, capability: &str) -> bool {
    plugin.get("capabilities").is_some_and(|capabilities| capabilities[capability] == true)
}

fn port_mapping(port: &HostPort) -> Value {
    let mut mapping = json!({
        "hostPort": port.host_port, "containerPort": port.sandbox_port, "protocol": port.protocol.name().to_ascii_lowercase(),
    });
    if let Some(address) = port.address() {
        mapping["hostIP"] = json!(address);
    }
    mapping
}

/// In bits, as the plugin counts; bursts as containerd asks for them.
fn bandwidth(bandwidth: Bandwidth) -> Value {
    let mut settings = json!({});
    for (rate, names) in
        [(bandwidth.receive, ["ingressRate", "ingressBurst"]), (bandwidth.send, ["egressRate", "egressBurst"])]
    {
        if let Some(rate) = rate {
            settings[names[0]] = json!(rate.saturating_mul(8));
            settings[names[1]] = json!(i32::MAX);
        }
    }
    settings
}

/// The addresses of the sandbox's own interface.
fn addresses(result: &Value) -> Result<Vec<IpAddr>> {
    let inside = |ip: &&Value| {
        let interface = ip["interface"].as_u64().and_then(|n| usize::try_from(n).ok());
        interface.is_none_or(|n| result["interfaces"][n]["sandbox"] != "")
    };
    let found: Vec<IpAddr> = result["ips"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(inside)
        .filter_map(|ip| ip["address"].as_str()?.split('/').next()?.parse().ok())
        .collect();
    if found.is_empty() {
        return Err(Error::Config("the CNI plugins gave the sandbox no address".into()));
    }
    Ok(found)
}

fn complaint(answer: &Value, status: &str) -> String {
    let message = answer["msg"].as_str().unwrap_or_default();
    match (message, answer["details"].as_str().unwrap_or_default()) {
        ("", _) => format!("it ended with {status}"),
        (message, "") => message.to_owned(),
        (message, details) => format!("{message}; {details}"),
    }
}

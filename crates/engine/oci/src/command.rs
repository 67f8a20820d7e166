//! Which command with which flags: runc's command line.

use crate::arguments::{Arguments, Flag, switch, value};
use crate::bundle::Resources;
use crate::log::Log;
use crate::{Error, Result, create, exec, lifecycle, protect, refuse, report, specification, state};
use pintle_linux::cgroup::Cgroups;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

static GLOBAL: [Flag; 9] = [
    value(&["root"]),
    value(&["log"]),
    value(&["log-format"]),
    value(&["criu"]),
    value(&["rootless"]),
    switch(&["debug"]),
    switch(&["systemd-cgroup"]),
    switch(&["version", "v"]),
    switch(&["help", "h"]),
];
static CREATE: [Flag; 8] = [
    value(&["bundle", "b"]),
    value(&["console-socket"]),
    value(&["pid-file"]),
    value(&["preserve-fds"]),
    switch(&["no-pivot"]),
    switch(&["no-new-keyring"]),
    switch(&["detach", "d"]),
    switch(&["keep"]),
];
static EXEC: [Flag; 15] = [
    value(&["console-socket"]),
    value(&["cwd"]),
    value(&["env", "e"]),
    value(&["user", "u"]),
    value(&["additional-gids", "g"]),
    value(&["process", "p"]),
    value(&["pid-file"]),
    value(&["process-label"]),
    value(&["apparmor"]),
    value(&["cap", "c"]),
    value(&["preserve-fds"]),
    switch(&["tty", "t"]),
    switch(&["detach", "d"]),
    switch(&["no-new-privs"]),
    switch(&["ignore-paused"]),
];
static SMALL: [Flag; 7] = [
    switch(&["all", "a"]),
    switch(&["force", "f"]),
    value(&["bundle", "b"]),
    switch(&["stats"]),
    value(&["interval"]),
    switch(&["quiet", "q"]),
    switch(&["rootless"]),
];
static FORMATTED: [Flag; 2] = [value(&["format", "f"]), switch(&["quiet", "q"])];
static UPDATE: [Flag; 12] = [
    value(&["resources", "r"]),
    value(&["memory"]),
    value(&["memory-reservation"]),
    value(&["memory-swap"]),
    value(&["cpu-shares", "cpu-share"]),
    value(&["cpu-quota"]),
    value(&["cpu-period"]),
    value(&["cpuset-cpus"]),
    value(&["cpuset-mems"]),
    value(&["pids-limit"]),
    value(&["blkio-weight"]),
    value(&["kernel-memory"]),
];

const USAGE: &str = "Usage: pintle-oci [--root DIR] [--log FILE] [--log-format text|json] COMMAND [FLAGS] [CONTAINER]\n\
Commands: create, start, run, exec, kill, delete, state, list, ps, pause, resume, update, events, features, spec\n";

/// Runs a command line, the program's name first. The exit code.
pub fn run(arguments: &[String]) -> i32 {
    let mut log = Log::default();
    match try_run(arguments.get(1..).unwrap_or_default(), &mut log) {
        Ok(code) => code,
        Err(error) => {
            log.error(&error.to_string());
            // As runc: an exec that fails ends with 255, so that it is not taken for the program's code.
            if arguments.iter().any(|a| a == "exec") { 255 } else { 1 }
        }
    }
}

fn try_run(arguments: &[String], log: &mut Log) -> Result<i32> {
    let global = Arguments::parse(&GLOBAL, arguments)?;
    log.path = global.get("log").map(str::to_owned);
    log.json = match global.get("log-format").unwrap_or("text") {
        "json" => true,
        "text" => false,
        other => return refuse(format!("unknown log-format {other:?}")),
    };
    if global.is_set("version") {
        tell(&format!("pintle-oci version {}\nspec: 1.2.0\n", env!("CARGO_PKG_VERSION")));
        return Ok(0);
    }
    let Some((command, rest)) = global.rest.split_first() else {
        tell(USAGE);
        return Ok(0);
    };
    if global.is_set("help") || command == "help" {
        tell(USAGE);
        return Ok(0);
    }
    if global.is_set("systemd-cgroup") {
        return refuse("systemd's cgroups are not supported: leave --systemd-cgroup out");
    }
    let root = PathBuf::from(global.get("root").unwrap_or("/run/pintle-oci"));
    match command.as_str() {
        "create" => make(&root, &Arguments::parse(&CREATE, rest)?, false),
        "run" => make(&root, &Arguments::parse(&CREATE, rest)?, true),
        "exec" => execute(&root, &Arguments::parse(&EXEC, rest)?),
        "update" => update(&root, &Arguments::parse(&UPDATE, rest)?).map(|()| 0),
        "list" | "ps" => tell_of(command, &root, &Arguments::parse(&FORMATTED, rest)?).map(|()| 0),
        "features" => {
            tell(&report::features());
            Ok(0)
        }
        "checkpoint" | "restore" => refuse(format!("{command} is not supported")),
        _ => small(command, &root, &Arguments::parse(&SMALL, rest)?).map(|()| 0),
    }
}

/// Commands with few flags.
fn small(command: &str, root: &Path, arguments: &Arguments) -> Result<()> {
    if command == "spec" {
        return specification::write(Path::new(arguments.get("bundle").unwrap_or(".")));
    }
    if !["start", "state", "kill", "delete", "pause", "resume", "events"].contains(&command) {
        return refuse(format!("no such command: {command}"));
    }
    let (id, force) = (arguments.id()?, arguments.is_set("force"));
    let (container, cgroups) = match lifecycle::find(root, id) {
        // As runc: "no such container" is what `delete --force` is for.
        Err(_) if command == "delete" && force && !root.join(id).exists() => return Ok(()),
        other => other?,
    };
    match command {
        "start" => lifecycle::start(&container, &cgroups),
        "state" => {
            tell(&report::state(&container, &cgroups));
            Ok(())
        }
        "kill" => {
            let signal = arguments.rest.get(1).map_or("SIGTERM", String::as_str);
            lifecycle::kill(&container, signal, arguments.is_set("all"), &cgroups)
        }
        "delete" => lifecycle::delete(container, force, &cgroups),
        "pause" => lifecycle::pause(&container, true, &cgroups),
        "resume" => lifecycle::pause(&container, false, &cgroups),
        _ => events(&container, arguments),
    }
}

fn events(container: &state::Container, arguments: &Arguments) -> Result<()> {
    let text = arguments.get("interval").unwrap_or("5s");
    let seconds = text.strip_suffix('s').unwrap_or(text).parse::<u64>().ok().filter(|s| *s > 0);
    let Some(seconds) = seconds else { return refuse(format!("interval {text:?}: give seconds, such as 5s")) };
    // Others may change the container meanwhile.
    container.unlock();
    report::events(container, arguments.is_set("stats"), Duration::from_secs(seconds), |line| tell(&line))
}

fn tell_of(command: &str, root: &Path, arguments: &Arguments) -> Result<()> {
    let format = arguments.get("format").unwrap_or("table");
    if command == "list" {
        tell(&report::list(root, format, arguments.is_set("quiet"))?);
        return Ok(());
    }
    let (container, cgroups) = lifecycle::find(root, arguments.id()?)?;
    tell(&report::processes(&container, format, &arguments.rest[1..], &cgroups)?);
    Ok(())
}

fn preserved(arguments: &Arguments) -> Result<u32> {
    let number = arguments.number("preserve-fds")?.unwrap_or(0);
    u32::try_from(number)
        .ok()
        .filter(|n| *n < 1024)
        .ok_or_else(|| Error::new(format!("preserve-fds {number}: give 0 to 1023")))
}

/// `create`, and `run`, which is that and `start` and in the foreground the rest of its life.
fn make(root: &Path, arguments: &Arguments, run: bool) -> Result<i32> {
    protect::protect()?;
    let foreground = run && !arguments.is_set("detach");
    let request = create::Request {
        root: root.to_owned(),
        id: arguments.id()?,
        bundle: PathBuf::from(arguments.get("bundle").unwrap_or(".")),
        pid_file: arguments.get("pid-file"),
        console_socket: arguments.get("console-socket"),
        no_pivot: arguments.is_set("no-pivot"),
        preserved: preserved(arguments)?,
        foreground,
    };
    let created = create::create(&request)?;
    if !run {
        return Ok(0);
    }
    let cgroups = Cgroups::detect()?;
    let create::Created { container, handle, controller } = created;
    let started = lifecycle::start(&container, &cgroups);
    if let Err(error) = started {
        lifecycle::delete(container, true, &cgroups)?;
        return Err(error);
    }
    if !foreground {
        return Ok(0);
    }
    // The lock is given back, so that others can do something with it.
    drop(container);
    let code = lifecycle::wait_in_foreground(handle, controller)?;
    if !arguments.is_set("keep") {
        let (container, cgroups) = lifecycle::find(root, request.id)?;
        lifecycle::delete(container, true, &cgroups)?;
    }
    Ok(code)
}

fn execute(root: &Path, arguments: &Arguments) -> Result<i32> {
    protect::protect()?;
    for flag in ["process-label", "apparmor"] {
        if arguments.get(flag).is_some_and(|text| !text.is_empty()) {
            return refuse(format!("--{flag} is not supported"));
        }
    }
    let groups = arguments
        .all("additional-gids")
        .iter()
        .map(|text| text.parse().map_err(|_| Error::new(format!("additional-gids {text:?}: give a number"))));
    exec::exec(&exec::Request {
        root: root.to_owned(),
        id: arguments.id()?,
        process: arguments.get("process"),
        args: arguments.rest.get(1..).unwrap_or_default(),
        env: arguments.all("env"),
        cwd: arguments.get("cwd"),
        user: arguments.get("user"),
        groups: groups.collect::<Result<_>>()?,
        capabilities: arguments.all("cap"),
        terminal: arguments.is_set("tty"),
        no_new_privileges: arguments.is_set("no-new-privs"),
        console_socket: arguments.get("console-socket"),
        pid_file: arguments.get("pid-file"),
        detach: arguments.is_set("detach"),
        preserved: preserved(arguments)?,
    })
}

fn update(root: &Path, arguments: &Arguments) -> Result<()> {
    let (container, cgroups) = lifecycle::find(root, arguments.id()?)?;
    let mut flags = Resources::default();
    flags.memory.limit = arguments.number("memory")?;
    flags.memory.reservation = arguments.number("memory-reservation")?;
    flags.memory.swap = arguments.number("memory-swap")?;
    flags.cpu.quota = arguments.number("cpu-quota")?;
    flags.pids.limit = arguments.number("pids-limit")?;
    let unsigned = |name: &str| -> Result<Option<u64>> {
        Ok(arguments.number(name)?.map(|number| u64::try_from(number).unwrap_or(0)))
    };
    flags.cpu.shares = unsigned("cpu-shares")?;
    flags.cpu.period = unsigned("cpu-period")?;
    flags.block.weight = unsigned("blkio-weight")?;
    flags.cpu.cpus = arguments.get("cpuset-cpus").unwrap_or_default().to_owned();
    flags.cpu.mems = arguments.get("cpuset-mems").unwrap_or_default().to_owned();
    lifecycle::update(&container, arguments.get("resources"), flags, &cgroups)
}

/// Writes to stdout, which the caller may have closed.
fn tell(text: &str) {
    let mut stdout = std::io::stdout();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

//! Lists the processes of a container as ps(1) does, from /proc.

use super::kill::not_running;
use crate::daemon::Daemon;
use crate::error::{DockerError, Result};
use std::collections::HashMap;
use std::fs;

/// What `docker top` prints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Top {
    pub titles: Vec<String>,
    pub processes: Vec<Vec<String>>,
}

/// Ticks of a second in /proc (sysconf(3), `_SC_CLK_TCK`, is 100 on all that Linux runs on).
const TICKS: u64 = 100;
const FULL: [&str; 8] = ["user", "pid", "ppid", "c", "stime", "tty", "time", "cmd"];
const BSD: [&str; 11] = ["user", "pid", "pcpu", "pmem", "vsz", "rss", "tname", "stat", "start", "bsdtime", "command"];

/// One process.
#[derive(Debug, Default)]
struct Process {
    pid: i32,
    parent: i32,
    state: String,
    terminal: i64,
    ticks: u64,
    nice: i64,
    priority: i64,
    threads: u64,
    started_ticks: u64,
    virtual_kilobytes: u64,
    resident_kilobytes: u64,
    uid: u32,
    gid: u32,
    name: String,
    arguments: String,
}

/// What times are counted from.
struct Moment {
    now: i64,
    uptime: f64,
    users: HashMap<u32, String>,
    memory: u64,
}

impl Daemon {
    /// The processes of a container with the columns that arguments of ps(1) say; `-ef` by default.
    ///
    /// # Errors
    /// 409 when it does not run, 500 with ps's words for columns that there are not.
    pub async fn top(&self, wanted: &str, arguments: &str) -> Result<Top> {
        let id = match self.container(wanted) {
            Ok(container) if !container.status().is_running() => return Err(not_running(&container.id)),
            Ok(container) => container.id.clone(),
            Err(missing) => self.pod_container(wanted).ok_or(missing)??.id,
        };
        let columns = columns(arguments)?;
        let mut pids = self.engine.processes(&id).await?;
        pids.sort_unstable();
        let moment = Moment::now(self.now());
        let processes = pids.iter().filter_map(|pid| Process::read(*pid));
        let rows = processes.map(|p| columns.iter().map(|(key, _)| p.show(key, &moment)).collect());
        let processes = rows.collect();
        Ok(Top { titles: columns.into_iter().map(|(_, title)| title).collect(), processes })
    }
}

/// Keys and titles of the columns.
fn columns(arguments: &str) -> Result<Vec<(String, String)>> {
    let words: Vec<&str> = arguments.split_whitespace().collect();
    let mut keys: Vec<(String, Option<String>)> = Vec::new();
    let mut all: &[&str] = &[];
    let mut index = 0;
    while let Some(word) = words.get(index) {
        index += 1;
        match *word {
            "-o" | "o" | "-eo" | "-o=" | "axo" | "-Ao" => {
                let list = words.get(index).copied().unwrap_or_default();
                index += 1;
                keys.extend(list.split(',').filter(|k| !k.is_empty()).map(|k| match k.split_once('=') {
                    Some((key, title)) => (key.to_owned(), Some(title.to_owned())),
                    None => (k.to_owned(), None),
                }));
            }
            "aux" | "-aux" | "u" => all = &BSD,
            _ => {}
        }
    }
    if keys.is_empty() {
        let all = if all.is_empty() { &FULL[..] } else { all };
        let full = all.len() == FULL.len();
        let title = |key: &str| if full && key == "user" { "UID".to_owned() } else { title(key).unwrap_or_default() };
        return Ok(all.iter().map(|key| ((*key).to_owned(), title(key))).collect());
    }
    keys.into_iter()
        .map(|(key, own)| match title(&key) {
            Some(usual) => Ok((key, own.unwrap_or(usual))),
            None => Err(DockerError::internal(format!("ps: error: unknown user-defined format specifier \"{key}\""))),
        })
        .collect()
}

fn title(key: &str) -> Option<String> {
    let title = match key {
        "user" | "euser" => "USER",
        "uid" | "euid" => "UID",
        "gid" | "egid" => "GID",
        "pid" => "PID",
        "ppid" => "PPID",
        "c" => "C",
        "stime" => "STIME",
        "start" | "start_time" => "START",
        "tty" | "tt" | "tname" => "TTY",
        "time" | "cputime" | "bsdtime" => "TIME",
        "cmd" => "CMD",
        "args" | "command" => "COMMAND",
        "comm" | "ucmd" | "ucomm" => "COMMAND",
        "pcpu" | "%cpu" => "%CPU",
        "pmem" | "%mem" => "%MEM",
        "vsz" | "vsize" => "VSZ",
        "rss" | "rssize" => "RSS",
        "stat" | "state" | "s" => return Some(if key == "stat" { "STAT" } else { "S" }.to_owned()),
        "ni" | "nice" => "NI",
        "pri" => "PRI",
        "nlwp" | "thcount" => "NLWP",
        "etime" => "ELAPSED",
        "etimes" => "ELAPSED",
        _ => return None,
    };
    Some(title.to_owned())
}

impl Moment {
    fn now(now: i64) -> Self {
        let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let users = passwd.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            Some((fields.nth(1)?.parse().ok()?, name))
        });
        Self {
            now,
            uptime: uptime.split(' ').next().and_then(|t| t.parse().ok()).unwrap_or_default(),
            users: users.collect(),
            memory: super::stats::machine_memory() / 1024,
        }
    }
}

impl Process {
    /// Nothing when it has gone.
    fn read(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (before, after) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = after.split_whitespace().collect();
        let number = |index: usize| fields.get(index).and_then(|f| f.parse::<i64>().ok()).unwrap_or_default();
        let positive = |index: usize| u64::try_from(number(index)).unwrap_or_default();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let id = |key: &str| {
            let line = status.lines().find_map(|l| l.strip_prefix(key));
            line.and_then(|l| l.split_whitespace().nth(1)).and_then(|n| n.parse().ok()).unwrap_or_default()
        };
        let name = before.split_once('(').map(|(_, name)| name.to_owned()).unwrap_or_default();
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<String> = line
            .split(|byte| *byte == 0)
            .filter(|word| !word.is_empty())
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect();
        let arguments = if words.is_empty() { format!("[{name}]") } else { words.join(" ") };
        Some(Self {
            pid,
            parent: i32::try_from(number(1)).unwrap_or_default(),
            state: fields.first().map(|s| (*s).to_owned()).unwrap_or_default(),
            terminal: number(4),
            ticks: positive(11) + positive(12),
            priority: number(15),
            nice: number(16),
            threads: positive(17),
            started_ticks: positive(19),
            virtual_kilobytes: positive(20) / 1024,
            resident_kilobytes: positive(21) * 4,
            uid: id("Uid:"),
            gid: id("Gid:"),
            name,
            arguments,
        })
    }

    fn show(&self, key: &str, moment: &Moment) -> String {
        let elapsed = (moment.uptime - self.started_ticks as f64 / TICKS as f64).max(0.0);
        let share = if elapsed > 0.0 { self.ticks as f64 / TICKS as f64 / elapsed * 100.0 } else { 0.0 };
        match key {
            "user" | "euser" => moment.users.get(&self.uid).cloned().unwrap_or_else(|| self.uid.to_string()),
            "uid" | "euid" => self.uid.to_string(),
            "gid" | "egid" => self.gid.to_string(),
            "pid" => self.pid.to_string(),
            "ppid" => self.parent.to_string(),
            "c" => format!("{share:.0}"),
            "pcpu" | "%cpu" => format!("{share:.1}"),
            "pmem" | "%mem" => {
                format!("{:.1}", self.resident_kilobytes as f64 / moment.memory.max(1) as f64 * 100.0)
            }
            "stime" | "start" | "start_time" => self.start(moment, elapsed),
            "tty" | "tt" | "tname" => self.terminal(),
            "time" | "cputime" => clock(self.ticks / TICKS),
            "bsdtime" => format!("{}:{:02}", self.ticks / TICKS / 60, self.ticks / TICKS % 60),
            "etime" => elapsed_text(elapsed as u64),
            "etimes" => format!("{}", elapsed as u64),
            "cmd" | "args" | "command" => self.arguments.clone(),
            "vsz" | "vsize" => self.virtual_kilobytes.to_string(),
            "rss" | "rssize" => self.resident_kilobytes.to_string(),
            "ni" | "nice" => self.nice.to_string(),
            "pri" => (39 - self.priority).to_string(),
            "nlwp" | "thcount" => self.threads.to_string(),
            "stat" | "state" | "s" => self.state.clone(),
            _ => self.name.clone(),
        }
    }

    /// The time of day, or the day when it is another.
    fn start(&self, moment: &Moment, elapsed: f64) -> String {
        let began = moment.now - (elapsed * 1e9) as i64;
        let text = super::times::rfc3339(began);
        if elapsed < 86_400.0 {
            text.get(11..16).unwrap_or_default().to_owned()
        } else {
            text.get(5..10).unwrap_or_default().to_owned()
        }
    }

    /// By its device number (proc_pid_stat(5), `tty_nr`).
    fn terminal(&self) -> String {
        let (major, minor) = ((self.terminal >> 8) & 0xfff, (self.terminal & 0xff) | ((self.terminal >> 12) & 0xfff00));
        match major {
            136..=143 => format!("pts/{}", minor + (major - 136) * 256),
            4 => format!("tty{minor}"),
            _ => "?".to_owned(),
        }
    }
}

fn clock(seconds: u64) -> String {
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn elapsed_text(seconds: u64) -> String {
    let short = format!("{:02}:{:02}", seconds / 60 % 60, seconds % 60);
    match (seconds / 86_400, seconds / 3600 % 24) {
        (0, 0) => short,
        (0, hours) => format!("{hours:02}:{short}"),
        (days, hours) => format!("{days}-{hours:02}:{short}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_those_of_ps() {
        let titles =
            |arguments: &str| columns(arguments).map(|c| c.into_iter().map(|(_, t)| t).collect::<Vec<_>>().join(" "));
        assert_eq!(titles("-ef").unwrap(), "UID PID PPID C STIME TTY TIME CMD");
        assert_eq!(titles("").unwrap(), "UID PID PPID C STIME TTY TIME CMD");
        assert_eq!(titles("-o pid,args").unwrap(), "PID COMMAND");
        let error = titles("-o nope").unwrap_err();
        assert_eq!(error.message, "ps: error: unknown user-defined format specifier \"nope\"");
        assert_eq!((clock(3_661).as_str(), elapsed_text(90_061).as_str()), ("01:01:01", "1-01:01:01"));
    }

    #[test]
    fn this_process_is_found() {
        let own = Process::read(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(!own.arguments.is_empty() && own.threads > 0);
        assert!(Process::read(-1).is_none());
    }
}

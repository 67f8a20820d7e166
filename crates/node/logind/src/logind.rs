//! What is asked of logind: that it waits, how long it waits, and whether the machine is to end.

use crate::bus::{Bus, BusError};
use crate::wire::Value;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

const SERVICE: &str = "org.freedesktop.login1";
const PATH: &str = "/org/freedesktop/login1";
const MANAGER: &str = "org.freedesktop.login1.Manager";
const SIGNAL: &str = "PrepareForShutdown";
/// The file by which the longest delay is raised; the last ones win.
const OVERRIDE: &str = "99-pintle.conf";
/// logind reads its files again when it has time for it: so often it is asked whether it has, and first after this.
const LOOKS: u32 = 5;
const FIRST_LOOK: Duration = Duration::from_millis(100);
const HANGUP: i32 = 1;

/// Why logind does not help.
#[derive(Debug, thiserror::Error)]
pub enum LogindError {
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error("{0} of logind has another form than its documentation says")]
    Form(&'static str),
    #[error("cannot write {path:?}, which lets logind wait longer: {source}")]
    Override {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "logind waits {}s at most where {}s are needed, and does not take more from {path:?}: set InhibitDelayMaxSec in \
         its configuration",
        has.as_secs_f64(), wanted.as_secs_f64()
    )]
    Short { has: Duration, wanted: Duration, path: PathBuf },
}

/// While this is kept, logind holds up the end of the machine, for as long as it is set to.
#[derive(Debug)]
pub struct Inhibitor(#[expect(dead_code, reason = "logind sees when it is closed")] OwnedFd);

/// A connection to logind, whose news are followed from its start on.
pub struct Logind {
    bus: Bus,
}

impl Logind {
    /// Connects over the bus that listens at `socket`.
    ///
    /// # Errors
    /// There is no bus, or nobody on it who knows how to end the machine.
    pub async fn connect(socket: &Path) -> Result<Self, LogindError> {
        let mut bus = Bus::connect(socket).await?;
        let rule = format!("type='signal',sender='{SERVICE}',path='{PATH}',interface='{MANAGER}',member='{SIGNAL}'");
        let own = "org.freedesktop.DBus";
        bus.call((own, "/org/freedesktop/DBus", own), "AddMatch", vec![Value::Text(rule)]).await?;
        Ok(Self { bus })
    }

    async fn property(&mut self, name: &'static str) -> Result<Value, LogindError> {
        let properties = (SERVICE, PATH, "org.freedesktop.DBus.Properties");
        let (body, _) = self.bus.call(properties, "Get", vec![MANAGER.into(), name.into()]).await?;
        match body.into_iter().next() {
            Some(Value::Variant(value)) => Ok(*value),
            _ => Err(LogindError::Form(name)),
        }
    }

    /// How long logind waits for those who ask for it.
    ///
    /// # Errors
    /// [`LogindError`]
    pub async fn longest_delay(&mut self) -> Result<Duration, LogindError> {
        const NAME: &str = "InhibitDelayMaxUSec";
        match self.property(NAME).await? {
            Value::Number(microseconds) => Ok(Duration::from_micros(microseconds)),
            _ => Err(LogindError::Form(NAME)),
        }
    }

    /// Whether the machine is about to end.
    ///
    /// # Errors
    /// [`LogindError`]
    pub async fn is_ending(&mut self) -> Result<bool, LogindError> {
        const NAME: &str = "PreparingForShutdown";
        match self.property(NAME).await? {
            Value::Flag(flag) => Ok(flag),
            _ => Err(LogindError::Form(NAME)),
        }
    }

    /// Has logind wait for as long as is wanted, by a file in `folder` where it is set to less; `owner` is named in it.
    ///
    /// # Errors
    /// The file can't be written, or logind does not go by it.
    pub async fn raise_delay(&mut self, wanted: Duration, folder: &Path, owner: &str) -> Result<(), LogindError> {
        if self.longest_delay().await? >= wanted {
            return Ok(());
        }
        let path = folder.join(OVERRIDE);
        let text = format!("{}\n[Login]\nInhibitDelayMaxSec={}\n", first_line(owner), wanted.as_secs_f64().ceil());
        let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, text));
        written.map_err(|source| LogindError::Override { path: path.clone(), source })?;
        let systemd = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager");
        let body = vec!["systemd-logind.service".into(), "all".into(), Value::Int(HANGUP)];
        self.bus.call(systemd, "KillUnit", body).await?;
        let mut pause = FIRST_LOOK;
        for _ in 0..LOOKS {
            if self.longest_delay().await? >= wanted {
                return Ok(());
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        let has = self.longest_delay().await?;
        if has >= wanted { Ok(()) } else { Err(LogindError::Short { has, wanted, path }) }
    }

    /// Holds up the end of the machine. `who` and `why` are shown by `systemd-inhibit --list`.
    ///
    /// # Errors
    /// Also while the machine is about to end: then it is too late.
    pub async fn inhibit(&mut self, who: &str, why: &str) -> Result<Inhibitor, LogindError> {
        let body = vec!["shutdown".into(), who.into(), why.into(), "delay".into()];
        let (body, mut files) = self.bus.call((SERVICE, PATH, MANAGER), "Inhibit", body).await?;
        match (body.first(), files.len()) {
            (Some(Value::File(0)), 1) => files.pop().map(Inhibitor).ok_or(LogindError::Form("Inhibit")),
            _ => Err(LogindError::Form("Inhibit")),
        }
    }

    /// Waits for news: whether the machine is about to end (true), or is to run on after all (false).
    ///
    /// # Errors
    /// The connection is broken.
    pub async fn next(&mut self) -> Result<bool, LogindError> {
        loop {
            let signal = self.bus.signal().await?;
            if signal.path == PATH && signal.interface == MANAGER && signal.member == SIGNAL {
                match signal.body.first() {
                    Some(Value::Flag(flag)) => return Ok(*flag),
                    _ => return Err(LogindError::Form(SIGNAL)),
                }
            }
        }
    }

    /// Takes away the file by which `owner` raised the delay.
    ///
    /// # Errors
    /// It is there and can't be removed.
    pub fn forget_delay(folder: &Path, owner: &str) -> io::Result<()> {
        let path = folder.join(OVERRIDE);
        match std::fs::read_to_string(&path) {
            Ok(text) if text.lines().next() == Some(&first_line(owner)) => std::fs::remove_file(path),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn first_line(owner: &str) -> String {
    format!("# Time for what {owner} runs to end.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pretended::PretendedBus;

    #[tokio::test(start_paused = true)]
    async fn the_end_is_held_up_until_the_inhibitor_goes() {
        let folder = tempfile::tempdir().unwrap();
        let bus = PretendedBus::start(folder.path(), Duration::from_secs(5));
        let mut logind = Logind::connect(bus.socket()).await.unwrap();
        assert_eq!(logind.longest_delay().await.unwrap(), Duration::from_secs(5));
        assert!(!logind.is_ending().await.unwrap());
        let inhibitor = logind.inhibit("who", "why").await.unwrap();
        assert_eq!(bus.held(), ["shutdown who why delay"]);
        bus.tell(true);
        assert!(logind.next().await.unwrap());
        assert!(bus.is_held());
        drop(inhibitor);
        assert!(!bus.is_held());
        bus.tell(false);
        assert!(!logind.next().await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn logind_is_told_to_wait_longer() {
        let folder = tempfile::tempdir().unwrap();
        let bus = PretendedBus::start(folder.path(), Duration::from_secs(5));
        let overrides = folder.path().join("logind.conf.d");
        let mut logind = Logind::connect(bus.socket()).await.unwrap();
        logind.raise_delay(Duration::from_secs(5), &overrides, "us").await.unwrap();
        assert!(!overrides.exists(), "nothing is written where it waits long enough");
        logind.raise_delay(Duration::from_secs(30), &overrides, "us").await.unwrap();
        let text = std::fs::read_to_string(overrides.join(OVERRIDE)).unwrap();
        assert!(text.ends_with("[Login]\nInhibitDelayMaxSec=30\n"), "{text}");
        assert_eq!(logind.longest_delay().await.unwrap(), Duration::from_secs(30));
        bus.be_stubborn();
        let error = logind.raise_delay(Duration::from_secs(60), &overrides, "us").await.unwrap_err();
        assert!(error.to_string().starts_with("logind waits 30s at most where 60s are needed"), "{error}");
        let files = || std::fs::read_dir(&overrides).unwrap().count();
        Logind::forget_delay(&overrides, "others").unwrap();
        assert_eq!(files(), 1);
        for _ in 0..2 {
            Logind::forget_delay(&overrides, "us").unwrap();
            assert_eq!(files(), 0);
        }
    }

    #[tokio::test]
    async fn no_bus_is_told_with_its_path() {
        let error = Logind::connect(Path::new("/nonexistent/bus")).await.err().unwrap();
        let text = "cannot connect to the system bus at \"/nonexistent/bus\": No such file or directory (os error 2)";
        assert_eq!(error.to_string(), text);
    }
}

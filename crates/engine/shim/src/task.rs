//! A container as its shim holds it: its first process, its stdio, its log, and how it ended.

use crate::attach::{Attachment, ReadOutcome, Sink, read_some, write_some};
use crate::cri_log::{Log, Stream};
use crate::prepare::ShimStdio;
use crate::protocol::{ContainerSpec, ContainerState, Exit, Failure, FailureKind, PidNamespace};
use pintle_linux::cgroup::Cgroups;
use pintle_linux::{process, pty};
use rustix::event::PollFlags;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

const STREAMS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];
/// What a container that ended may leave in its pipes, in bytes: more than both can hold.
const MAX_REST: usize = 4 << 20;

/// A descriptor of a task that the poll loop watches.
#[derive(Clone, Copy, Debug)]
pub enum Watch {
    Output(usize),
    Stdin,
    ClientStdin(usize),
    ClientOutput(usize, usize),
    /// Lines of the log that wait.
    Log,
}

pub struct Task {
    pub id: String,
    pub pid: i32,
    pub handle: OwnedFd,
    pub cgroup: String,
    /// Its end is the end of all its processes.
    own_pid: bool,
    terminal: bool,
    stdin_once: bool,
    exit_file: PathBuf,
    pub log: Log,
    outputs: [Option<OwnedFd>; 2],
    stdin: Option<OwnedFd>,
    stdin_rest: Vec<u8>,
    /// Whether stdin closes once the rest is written.
    stdin_ending: bool,
    clients: Vec<Attachment>,
    pub exit: Option<Exit>,
}

impl Task {
    pub fn new(spec: &ContainerSpec, pid: i32, handle: OwnedFd, stdio: ShimStdio, log: Log) -> Self {
        Self {
            id: spec.id.clone(),
            pid,
            handle,
            cgroup: spec.cgroup.clone(),
            own_pid: spec.pid == PidNamespace::Own,
            terminal: spec.process.terminal,
            stdin_once: spec.stdin_once,
            exit_file: spec.exit_file.clone(),
            log,
            outputs: [stdio.stdout, stdio.stderr],
            stdin: stdio.stdin,
            stdin_rest: Vec::new(),
            stdin_ending: false,
            clients: Vec::new(),
            exit: None,
        }
    }

    pub fn state(&self) -> ContainerState {
        ContainerState { id: self.id.clone(), pid: self.pid, exit: self.exit.clone() }
    }

    /// What to watch now. While a client has not taken what it was sent, its stream waits.
    pub fn watches<'a>(&'a self, mut add: impl FnMut(Watch, BorrowedFd<'a>, PollFlags)) {
        for (number, output) in self.outputs.iter().enumerate() {
            let waiting = |c: &Attachment| c.outputs[number].as_ref().is_some_and(Sink::is_pending);
            if let Some(fd) = output
                && !self.clients.iter().any(waiting)
            {
                add(Watch::Output(number), fd.as_fd(), PollFlags::IN);
            }
        }
        if let Some(fd) = self.log.waits_for() {
            add(Watch::Log, fd, PollFlags::OUT);
        }
        if let Some(fd) = &self.stdin
            && !self.stdin_rest.is_empty()
        {
            add(Watch::Stdin, fd.as_fd(), PollFlags::OUT);
        }
        for (index, client) in self.clients.iter().enumerate() {
            if let Some(fd) = &client.stdin
                && self.stdin_rest.is_empty()
            {
                add(Watch::ClientStdin(index), fd.as_fd(), PollFlags::IN);
            }
            for (number, sink) in client.outputs.iter().enumerate() {
                if let Some(sink) = sink {
                    // Without anything to write only its going away is of interest, which poll always tells.
                    let flags = if sink.is_pending() { PollFlags::OUT } else { PollFlags::empty() };
                    add(Watch::ClientOutput(index, number), sink.fd.as_fd(), flags);
                }
            }
        }
    }

    /// Does what a watched descriptor is ready for.
    pub fn handle(&mut self, watch: Watch, buffer: &mut [u8], now: i64) {
        match watch {
            Watch::Output(number) => {
                self.read_output(number, buffer, now);
            }
            Watch::Stdin => self.write_stdin(),
            Watch::ClientStdin(index) => self.read_client(index, buffer),
            Watch::ClientOutput(index, number) => self.flush_client(index, number),
            Watch::Log => self.log.flush(),
        }
    }

    /// Whether there was something.
    fn read_output(&mut self, number: usize, buffer: &mut [u8], now: i64) -> usize {
        let Some(fd) = &self.outputs[number] else { return 0 };
        match read_some(fd, buffer) {
            ReadOutcome::Bytes(count) => {
                self.log.write(STREAMS[number], &buffer[..count], now);
                self.send_to_clients(number, &buffer[..count]);
                count
            }
            ReadOutcome::Nothing => 0,
            ReadOutcome::End => {
                self.outputs[number] = None;
                0
            }
        }
    }

    fn send_to_clients(&mut self, number: usize, bytes: &[u8]) {
        for client in &mut self.clients {
            let gone = client.outputs[number].as_mut().is_some_and(|sink| sink.send(bytes).is_err());
            if gone {
                client.outputs[number] = None;
            }
        }
    }

    fn flush_client(&mut self, index: usize, number: usize) {
        let Some(slot) = self.clients.get_mut(index).map(|c| &mut c.outputs[number]) else { return };
        let Some(sink) = slot else { return };
        // Called without anything pending means that the reader is gone.
        if !sink.is_pending() || sink.flush().is_err() {
            *slot = None;
        }
    }

    fn read_client(&mut self, index: usize, buffer: &mut [u8]) {
        let Some(client) = self.clients.get_mut(index) else { return };
        let Some(fd) = &client.stdin else { return };
        match read_some(fd, buffer) {
            ReadOutcome::Bytes(count) => {
                self.stdin_rest.extend_from_slice(&buffer[..count]);
                self.write_stdin();
            }
            ReadOutcome::Nothing => {}
            ReadOutcome::End => {
                client.stdin = None;
                if self.stdin_once {
                    self.stdin_ending = true;
                    self.write_stdin();
                }
            }
        }
    }

    fn write_stdin(&mut self) {
        let Some(fd) = &self.stdin else {
            self.stdin_rest.clear();
            return;
        };
        match write_some(fd, &self.stdin_rest) {
            Ok(written) => {
                self.stdin_rest.drain(..written);
            }
            // The container does not read any more.
            Err(_) => self.drop_stdin(),
        }
        // A terminal's end is a character that its user types, not a closed descriptor.
        if self.stdin_ending && self.stdin_rest.is_empty() && !self.terminal {
            self.drop_stdin();
        }
    }

    fn drop_stdin(&mut self) {
        self.stdin = None;
        self.stdin_rest = Vec::new();
    }

    pub fn attach(&mut self, client: Attachment) {
        self.clients.push(client);
    }

    /// Drops clients that went, and all once the container has ended and they have got everything.
    pub fn tidy_clients(&mut self) {
        if self.exit.is_some() {
            for client in &mut self.clients {
                client.stdin = None;
                for sink in &mut client.outputs {
                    if sink.as_ref().is_some_and(|s| !s.is_pending()) {
                        *sink = None;
                    }
                }
            }
        }
        self.clients.retain(|client| !client.is_over());
    }

    pub fn resize(&self, columns: u16, rows: u16) -> Result<(), Failure> {
        let terminal = self.outputs[0].as_ref().filter(|_| self.terminal);
        let terminal = terminal.ok_or_else(|| Failure::new(FailureKind::NotFound, "the container has no terminal"))?;
        Ok(pty::resize(terminal, columns, rows)?)
    }

    /// Sends a signal to the first process, or to all.
    pub fn signal(&self, signal: i32, all: bool, cgroups: &Cgroups) -> Result<(), Failure> {
        if self.exit.is_some() {
            return Err(Failure::new(FailureKind::NotFound, "the container has ended"));
        }
        if all && !(self.own_pid && signal == libc::SIGKILL) {
            cgroups.signal_all(&self.cgroup, signal)?;
        }
        let sent = process::signal(self.handle.as_fd(), signal);
        sent.map_err(|e| Failure::other(format!("send signal {signal}: {e}")))
    }

    /// The first process has ended: takes the rest of its output, writes down how it ended.
    pub fn ended(&mut self, code: i32, cgroups: &Cgroups, buffer: &mut [u8], now: i64) -> Exit {
        if !self.own_pid {
            // Those that it leaves behind belong to it. What cannot be listed is killed with the cgroup later.
            let _ = cgroups.signal_all(&self.cgroup, libc::SIGKILL);
        }
        self.drop_stdin();
        for number in 0..STREAMS.len() {
            let mut total = 0;
            while total < MAX_REST {
                match self.read_output(number, buffer, now) {
                    0 => break,
                    count => total += count,
                }
            }
        }
        self.log.finish(now);
        self.outputs = [None, None];
        let oom_killed = cgroups.oom_kills(&self.cgroup).is_ok_and(|kills| kills > 0);
        let exit = Exit { container: self.id.clone(), code, oom_killed, finished_at: now };
        if let Err(e) = exit.write(&self.exit_file) {
            crate::server::complain(&format!("write {}: {e}", self.exit_file.display()));
        }
        self.exit = Some(exit.clone());
        exit
    }
}

//! The shim's loop: answers the daemon, moves output, reaps. It never waits for anything but poll, and for the files of
//! logs; a log that may not wait has a process of its own for that, which only a container's end waits for.

use crate::attach::{Attachment, Sink};
use crate::cri_log::Log;
use crate::identity::Report;
use crate::join;
use crate::launch::{self, Launch};
use crate::prepare::nonblocking;
use crate::protocol::{
    Answer, Call, ContainerSpec, ExecSpec, Failure, FailureKind, FromShim, PidNamespace, Request, Started,
};
use crate::sandbox::Sandbox;
use crate::task::{Task, Watch};
use pintle_linux::frame::{Frame, Receiver, Sender};
use pintle_linux::{Context, process};
use rustix::event::{PollFd, PollFlags};
use rustix::process::WaitOptions;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

/// Daemons that are connected at the same time: one, and for a moment its successor.
const MAX_CONNECTIONS: usize = 8;

/// Clients that may wait for containers of this sandbox to start.
const MAX_EARLY: usize = 64;

/// Runs until it is asked to end. The process's exit code.
pub fn run() -> i32 {
    match Server::new() {
        Ok(mut server) => server.serve(),
        Err(error) => {
            complain(&error.to_string());
            1
        }
    }
}

/// Stderr is a file in the sandbox's directory, for whoever looks into a broken one.
pub fn complain(text: &str) {
    let line = format!("{text}\n");
    // There is nobody left to tell.
    let _ = rustix::io::write(rustix::stdio::stderr(), line.as_bytes());
}

struct Connection {
    number: u64,
    stream: UnixStream,
    receiver: Receiver,
    sender: Sender,
    broken: bool,
}

/// A process between fork and exec.
struct Starting {
    connection: u64,
    call: u64,
    launch: Launch,
    kind: StartKind,
    receiver: Receiver,
    ready: Option<(Started, Option<OwnedFd>)>,
    failure: Option<Failure>,
}

enum StartKind {
    Container(Box<ContainerSpec>, Log),
    Exec(String),
}

struct RunningExec {
    id: String,
    pid: i32,
    handle: OwnedFd,
}

/// Which descriptor poll spoke of.
#[derive(Clone, Copy)]
enum Token {
    Listener,
    Signals,
    Connection(u64),
    Starting(i32),
    Task(usize, Watch),
}

struct Server {
    listener: UnixListener,
    signals: OwnedFd,
    connections: Vec<Connection>,
    next_connection: u64,
    sandbox: Option<Sandbox>,
    tasks: Vec<Task>,
    starting: Vec<Starting>,
    execs: Vec<RunningExec>,
    /// Clients of containers that are not started yet, so that they miss nothing.
    early: Vec<(String, Attachment)>,
    /// `State` calls that wait for starts to be over, by connection and number.
    waiting_state: Vec<(u64, u64)>,
    buffer: Vec<u8>,
    ending: bool,
}

impl Server {
    fn new() -> pintle_linux::Result<Self> {
        let listens = rustix::net::sockopt::socket_acceptconn(rustix::stdio::stdin());
        let listens = listens.and_then(|listens| if listens { Ok(()) } else { Err(rustix::io::Errno::INVAL) });
        listens.context(|| "take standard input as the socket to listen on, as pintle starts this program")?;
        // Nothing in a container may look into the shim or into its children before they execute.
        let hidden = rustix::process::DumpableBehavior::NotDumpable;
        rustix::process::set_dumpable_behavior(hidden).context(|| "become undumpable")?;
        // Who lacks the right to lower it is as likely to be killed as before; containers have scores of their own.
        let _ = std::fs::write("/proc/self/oom_score_adj", "-999");
        // A process group leader cannot, and need not.
        let _ = rustix::process::setsid();
        // Orphans of containers in the machine's pid namespace are ours to reap.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).context(|| "become a subreaper")?;
        // SAFETY: nothing is open in this process yet but stdio.
        #[allow(unsafe_code)]
        unsafe {
            process::close_from(3)?;
        }
        let listener = take_stdin()?;
        let listener = UnixListener::from(listener);
        listener.set_nonblocking(true).context(|| "make the listening socket non-blocking")?;
        let ignored = [libc::SIGCHLD, libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];
        Ok(Self {
            listener,
            signals: process::signal_descriptor(&ignored)?,
            connections: Vec::new(),
            next_connection: 0,
            sandbox: None,
            tasks: Vec::new(),
            starting: Vec::new(),
            execs: Vec::new(),
            early: Vec::new(),
            waiting_state: Vec::new(),
            buffer: vec![0; 16 << 10],
            ending: false,
        })
    }

    fn serve(&mut self) -> i32 {
        while !self.ending {
            for token in self.wait() {
                self.dispatch(token);
            }
            self.tidy();
        }
        for connection in &mut self.connections {
            // The daemon sees the end of the connection in any case.
            let _ = connection.sender.flush(connection.stream.as_fd());
        }
        if let Some(sandbox) = &self.sandbox {
            sandbox.close();
        }
        0
    }

    /// Polls, and returns what is ready.
    fn wait(&self) -> Vec<Token> {
        let mut watched = vec![
            (Token::Listener, PollFd::new(&self.listener, PollFlags::IN)),
            (Token::Signals, PollFd::new(&self.signals, PollFlags::IN)),
        ];
        for connection in &self.connections {
            let writable = if connection.sender.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            let fd = PollFd::new(&connection.stream, PollFlags::IN | writable);
            watched.push((Token::Connection(connection.number), fd));
        }
        for starting in &self.starting {
            let fd = PollFd::new(&starting.launch.socket, PollFlags::IN);
            watched.push((Token::Starting(starting.launch.pid), fd));
        }
        for (index, task) in self.tasks.iter().enumerate() {
            task.watches(|watch, fd, flags| {
                watched.push((Token::Task(index, watch), PollFd::from_borrowed_fd(fd, flags)));
            });
        }
        let (tokens, mut fds): (Vec<Token>, Vec<PollFd<'_>>) = watched.into_iter().unzip();
        if rustix::event::poll(&mut fds, None).is_err() {
            return Vec::new();
        }
        let ready = fds.iter().zip(&tokens).filter(|(fd, _)| !fd.revents().is_empty());
        ready.map(|(_, token)| *token).collect()
    }

    fn dispatch(&mut self, token: Token) {
        match token {
            Token::Listener => self.accept(),
            Token::Signals => self.reap(),
            Token::Connection(number) => self.serve_connection(number),
            Token::Starting(pid) => self.hear(pid),
            Token::Task(index, watch) => {
                let now = now();
                if let Some(task) = self.tasks.get_mut(index) {
                    task.handle(watch, &mut self.buffer, now);
                }
            }
        }
    }

    fn tidy(&mut self) {
        self.connections.retain(|c| !c.broken);
        for task in &mut self.tasks {
            task.tidy_clients();
        }
        if !self.starting.iter().any(|s| matches!(s.kind, StartKind::Container(..))) {
            for (connection, call) in std::mem::take(&mut self.waiting_state) {
                self.reply(connection, call, Ok(self.state()), None);
            }
        }
    }

    fn state(&self) -> Answer {
        Answer::State(self.tasks.iter().map(Task::state).collect())
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            let own = rustix::process::geteuid();
            let trusted = rustix::net::sockopt::socket_peercred(&stream).is_ok_and(|peer| peer.uid == own);
            if !trusted || self.connections.len() >= MAX_CONNECTIONS || stream.set_nonblocking(true).is_err() {
                continue;
            }
            self.next_connection += 1;
            self.connections.push(Connection {
                number: self.next_connection,
                stream,
                receiver: Receiver::default(),
                sender: Sender::default(),
                broken: false,
            });
        }
    }

    fn serve_connection(&mut self, number: u64) {
        let Some(connection) = self.connections.iter_mut().find(|c| c.number == number) else { return };
        let flushed = connection.sender.flush(connection.stream.as_fd());
        let mut frames = Vec::new();
        let read = read_frames(&connection.stream, &mut connection.receiver, &mut frames);
        connection.broken = flushed.is_err() || read.is_err();
        for frame in frames {
            match serde_json::from_slice::<Call>(&frame.bytes) {
                Ok(call) => self.call(number, call, frame.descriptors),
                Err(error) => complain(&format!("a call that cannot be read: {error}")),
            }
        }
    }

    fn call(&mut self, connection: u64, call: Call, descriptors: Vec<OwnedFd>) {
        let number = call.number;
        let done = match call.request {
            Request::Start(spec) => self.start(connection, number, spec).map(|()| None),
            Request::Exec(spec) => self.exec(connection, number, *spec, descriptors).map(|()| None),
            Request::State => {
                self.waiting_state.push((connection, number));
                Ok(None)
            }
            other => self.act(other, descriptors).map(Some),
        };
        match done {
            Ok(None) => {}
            Ok(Some(answer)) => self.reply(connection, number, Ok(answer), None),
            Err(failure) => self.reply(connection, number, Err(failure), None),
        }
    }

    /// What is done at once.
    fn act(&mut self, request: Request, descriptors: Vec<OwnedFd>) -> Result<Answer, Failure> {
        match request {
            Request::Sandbox(spec) => {
                if self.sandbox.is_some() {
                    return Err(Failure::other("the sandbox is there already"));
                }
                self.sandbox = Some(Sandbox::create(&spec, descriptors.into_iter().next())?);
            }
            Request::Signal { container, signal, all } => {
                self.task(&container)?.signal(signal, all, &self.sandbox()?.cgroups)?;
            }
            Request::SignalExec { exec, signal } => {
                let found = self.execs.iter().find(|e| e.id == exec);
                let found = found.ok_or_else(|| Failure::new(FailureKind::NotFound, "the process has ended"))?;
                process::signal(found.handle.as_fd(), signal).map_err(|e| Failure::other(e.to_string()))?;
            }
            Request::Attach { container, stdin, stdout, stderr } => {
                let client = attachment([stdin, stdout, stderr], descriptors)?;
                if self.tasks.iter().any(|t| t.id == container) {
                    self.running(&container)?.attach(client);
                } else if self.early.len() < MAX_EARLY {
                    self.early.push((container, client));
                } else {
                    return Err(Failure::other("too many clients wait for containers to start"));
                }
                return Ok(Answer::Attached(now()));
            }
            Request::Resize { container, columns, rows } => self.task(&container)?.resize(columns, rows)?,
            Request::ReopenLog { container } => {
                let reopened = self.running(&container)?.log.reopen();
                reopened.map_err(|e| Failure::other(format!("reopen the log file: {e}")))?;
            }
            Request::Forget { container } => {
                self.tasks.retain(|t| t.id != container || t.exit.is_none());
                self.early.retain(|(id, _)| *id != container);
            }
            Request::Shutdown => {
                self.kill_everything();
                self.ending = true;
            }
            Request::Start(_) | Request::Exec(_) | Request::State => {
                return Err(Failure::other("not done at once"));
            }
        }
        Ok(Answer::Done)
    }

    /// The daemon ends its containers before; what runs now is something that it does not know.
    fn kill_everything(&self) {
        for starting in &self.starting {
            // It has ended meanwhile, here and below.
            let _ = process::signal(starting.launch.handle.as_fd(), libc::SIGKILL);
        }
        for task in self.tasks.iter().filter(|t| t.exit.is_none()) {
            if let Some(sandbox) = &self.sandbox {
                let _ = task.signal(libc::SIGKILL, true, &sandbox.cgroups);
            }
        }
    }

    fn sandbox(&self) -> Result<&Sandbox, Failure> {
        self.sandbox.as_ref().ok_or_else(|| Failure::other("the sandbox is not there yet"))
    }

    fn task(&self, id: &str) -> Result<&Task, Failure> {
        self.tasks.iter().find(|t| t.id == id).ok_or_else(|| no_container(id))
    }

    fn running(&mut self, id: &str) -> Result<&mut Task, Failure> {
        let found = self.tasks.iter_mut().find(|t| t.id == id && t.exit.is_none());
        found.ok_or_else(|| no_container(id))
    }

    fn start(&mut self, connection: u64, call: u64, spec: Box<ContainerSpec>) -> Result<(), Failure> {
        let sandbox = self.sandbox()?;
        let known = self.starting.iter().any(|s| matches!(&s.kind, StartKind::Container(c, _) if c.id == spec.id));
        if known || self.tasks.iter().any(|t| t.id == spec.id) {
            return Err(Failure::other(format!("container {} was started already", spec.id)));
        }
        let at = match &spec.pid {
            PidNamespace::At(path) => Some(open_namespace(path)?),
            _ => None,
        };
        let pid_of = match &spec.pid {
            PidNamespace::Own | PidNamespace::Host => None,
            PidNamespace::At(_) => at.as_ref().map(AsFd::as_fd),
            PidNamespace::Sandbox => {
                let pause = sandbox.pause.as_ref().ok_or_else(|| Failure::other("the pod has no pid namespace"))?;
                Some(pause.handle.as_fd())
            }
            PidNamespace::Container(id) => Some(self.task(id)?.handle.as_fd()),
        };
        let log = Log::of(&spec)
            .map_err(|e| Failure::other(format!("failed to open the log file {:?}: {e}", spec.log_path)))?;
        let launch = launch::container(sandbox, &spec, pid_of)?;
        self.add_starting(connection, call, launch, StartKind::Container(spec, log));
        Ok(())
    }

    fn exec(&mut self, connection: u64, call: u64, spec: ExecSpec, fds: Vec<OwnedFd>) -> Result<(), Failure> {
        let sandbox = self.sandbox()?;
        let task = self.task(&spec.container)?;
        if task.exit.is_some() {
            return Err(no_container(&spec.container));
        }
        let target = join::Target { first: task.handle.as_fd(), cgroup: &task.cgroup };
        let launch = join::container(sandbox, &target, &spec, fds)?;
        self.add_starting(connection, call, launch, StartKind::Exec(spec.id));
        Ok(())
    }

    fn add_starting(&mut self, connection: u64, call: u64, launch: Launch, kind: StartKind) {
        let receiver = Receiver::default();
        self.starting.push(Starting { connection, call, launch, kind, receiver, ready: None, failure: None });
    }

    /// Reads what a starting child reports; the end of its socket means that it executes, or failed.
    fn hear(&mut self, pid: i32) {
        let Some(index) = self.starting.iter().position(|s| s.launch.pid == pid) else { return };
        let starting = &mut self.starting[index];
        let mut frames = Vec::new();
        let over = read_frames(&starting.launch.socket, &mut starting.receiver, &mut frames).is_err();
        for frame in frames {
            match serde_json::from_slice(&frame.bytes) {
                Ok(Report::Ready(started)) => {
                    starting.ready = Some((started, frame.descriptors.into_iter().next()));
                }
                Ok(Report::Failed(failure)) => starting.failure = Some(failure),
                Err(error) => starting.failure = Some(Failure::other(format!("unreadable report: {error}"))),
            }
        }
        if over {
            let starting = self.starting.swap_remove(index);
            self.finish_start(starting);
        }
    }

    fn finish_start(&mut self, starting: Starting) {
        let Starting { connection, call, launch, kind, ready, failure, .. } = starting;
        let (mut started, controller) = match (failure, ready) {
            (None, Some(ready)) => ready,
            (Some(failure), _) => return self.reply(connection, call, Err(failure), None),
            (None, None) => {
                let failure = Failure::other("the process ended before it could be executed");
                return self.reply(connection, call, Err(failure), None);
            }
        };
        started.pid = launch.pid;
        match kind {
            StartKind::Container(spec, log) => {
                let mut stdio = launch.stdio;
                if let Some(controller) = controller.and_then(|c| nonblocking(c).ok()) {
                    stdio.stdin = controller.try_clone().ok().filter(|_| spec.stdin);
                    stdio.stdout = Some(controller);
                }
                let mut task = Task::new(&spec, launch.pid, launch.handle, stdio, log);
                for (_, client) in self.early.extract_if(.., |(id, _)| *id == spec.id) {
                    task.attach(client);
                }
                self.tasks.push(task);
                self.reply(connection, call, Ok(Answer::Started(started)), None);
            }
            StartKind::Exec(id) => {
                self.execs.push(RunningExec { id, pid: launch.pid, handle: launch.handle });
                self.reply(connection, call, Ok(Answer::Started(started)), controller);
            }
        }
    }

    fn reap(&mut self) {
        // Which signals came does not matter: those beside SIGCHLD are for nobody, and that one is asked after.
        let mut infos = [0_u8; 1024];
        while rustix::io::read(&self.signals, &mut infos[..]).is_ok_and(|count| count > 0) {}
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let code = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => code,
                (None, Some(signal)) => 128 + signal,
                (None, None) => continue,
            };
            self.ended(pid.as_raw_nonzero().get(), code);
        }
    }

    fn ended(&mut self, pid: i32, code: i32) {
        // A child that executed and ended at once: its report is complete, and comes first.
        self.hear(pid);
        if let Some(task) = self.tasks.iter_mut().find(|t| t.pid == pid && t.exit.is_none()) {
            if let Some(sandbox) = &self.sandbox {
                let exit = task.ended(code, &sandbox.cgroups, &mut self.buffer, now());
                self.tell_all(&FromShim::Exited(exit));
            }
        } else if let Some(index) = self.execs.iter().position(|e| e.pid == pid) {
            let exec = self.execs.swap_remove(index);
            self.tell_all(&FromShim::ExecExited { exec: exec.id, code });
        }
    }

    fn reply(&mut self, connection: u64, number: u64, result: Result<Answer, Failure>, fd: Option<OwnedFd>) {
        // The caller may have gone: what it asked for has happened all the same.
        if let Some(connection) = self.connections.iter_mut().find(|c| c.number == connection) {
            send(connection, &FromShim::Reply { number, result }, fd);
        }
    }

    fn tell_all(&mut self, message: &FromShim) {
        for connection in &mut self.connections {
            send(connection, message, None);
        }
    }
}

fn send(connection: &mut Connection, message: &FromShim, fd: Option<OwnedFd>) {
    let bytes = serde_json::to_vec(message).unwrap_or_default();
    connection.sender.push(Frame { bytes, descriptors: fd.into_iter().collect() });
    connection.broken |= connection.sender.flush(connection.stream.as_fd()).is_err();
}

fn open_namespace(path: &std::path::Path) -> Result<std::fs::File, Failure> {
    let opened = std::fs::File::open(path);
    opened.map_err(|e| Failure::other(format!("open the pid namespace {}: {e}", path.display())))
}

fn no_container(id: &str) -> Failure {
    Failure::new(FailureKind::NotFound, format!("container {id} is not running"))
}

fn attachment(wanted: [bool; 3], descriptors: Vec<OwnedFd>) -> Result<Attachment, Failure> {
    let mut given = descriptors.into_iter();
    let mut next = |wanted: bool| -> Result<Option<OwnedFd>, Failure> {
        let fd = if wanted { given.next() } else { None };
        Ok(fd.map(nonblocking).transpose()?)
    };
    let stdin = next(wanted[0])?;
    let outputs = [next(wanted[1])?.map(Sink::new), next(wanted[2])?.map(Sink::new)];
    Ok(Attachment { stdin, outputs })
}

/// Takes the listening socket that the shim is started with, and puts /dev/null in its place.
fn take_stdin() -> pintle_linux::Result<OwnedFd> {
    let stdin = rustix::stdio::stdin();
    let listener = rustix::io::fcntl_dupfd_cloexec(stdin, 3).context(|| "take the listening socket (stdin)")?;
    let null = std::fs::File::open("/dev/null").context(|| "open /dev/null")?;
    process::place_stdio(null.as_fd(), 0)?;
    Ok(listener)
}

/// Reads all that is there. An error is also the end of the stream.
fn read_frames(stream: &UnixStream, receiver: &mut Receiver, frames: &mut Vec<Frame>) -> std::io::Result<()> {
    loop {
        match receiver.receive(stream.as_fd()) {
            Ok(true) => {
                while let Some(frame) = receiver.pop()? {
                    frames.push(frame);
                }
            }
            Ok(false) => return Err(ErrorKind::UnexpectedEof.into()),
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Nanoseconds since the epoch. The shim has no clock to be given: it is a process of its own.
#[allow(clippy::disallowed_methods)]
fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// An attach or exec passes up to three.
const _: () = assert!(pintle_linux::frame::MAX_DESCRIPTORS >= 3);

//! Terminals, descriptors that go on to the program, and roots that cannot be pivoted into.

use crate::bundle::{Bundle, Done};
use pintle_linux::process::PidFd;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use serde_json::json;
use std::fs::File;
use std::io::{BufRead, BufReader, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::Duration;

/// A bundle whose program has a terminal of 30 rows and 90 columns.
fn with_terminal(script: &str) -> Bundle {
    let mut bundle = Bundle::new(&["sh", "-c", script]);
    bundle.config["process"]["terminal"] = json!(true);
    bundle.config["process"]["consoleSize"] = json!({ "height": 30, "width": 90 });
    bundle.save();
    bundle
}

/// The socket of a caller such as containerd's shim.
struct Console {
    path: String,
    listener: UnixListener,
}

impl Console {
    fn new(bundle: &Bundle) -> Self {
        let path = bundle.path("console");
        let _ = std::fs::remove_file(&path);
        Self { listener: UnixListener::bind(&path).unwrap(), path }
    }

    /// The terminal that came, and the name beside it. It came before the command ended.
    fn terminal(&self) -> (File, String) {
        self.listener.set_nonblocking(true).unwrap();
        let (stream, _) = self.listener.accept().expect("the runtime has connected");
        let (mut name, mut space) = ([0; 64], [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))]);
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(&mut name)];
        let received = rustix::net::recvmsg(&stream, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
        let descriptor: OwnedFd = control
            .drain()
            .find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
                _ => None,
            })
            .expect("a descriptor");
        (File::from(descriptor), String::from_utf8_lossy(&name[..received.bytes]).into_owned())
    }
}

/// Everything until the other side is closed, which a terminal tells as an error.
fn all_of(terminal: &mut File) -> String {
    let mut text = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(count) = terminal.read(&mut buffer) {
        if count == 0 {
            break;
        }
        text.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8_lossy(&text).replace("\r\n", "\n")
}

fn run_with(bundle: &Bundle, command: &str, flags: &[&str]) -> Done {
    let directory = bundle.path("");
    bundle.run(&[&[command], flags, &["--bundle", &directory, &bundle.id]].concat())
}

#[test]
fn a_terminal_goes_to_the_console_socket_with_its_size() {
    let bundle =
        with_terminal("stty size; [ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo terminal; read line; echo got $line");
    let console = Console::new(&bundle);
    let done = run_with(&bundle, "create", &["--console-socket", &console.path]);
    assert_eq!(done.code, 0, "{done:?}");
    let (mut terminal, name) = console.terminal();
    assert_eq!(name, "/dev/ptmx");
    terminal.write_all(b"typed\n").unwrap();
    assert_eq!(bundle.on("start", &[]).code, 0);
    let said = all_of(&mut terminal);
    assert!(said.contains("30 90\nterminal\n") && said.ends_with("got typed\n"), "{said:?}");
    bundle.wait();
}

#[test]
fn a_further_process_has_a_terminal_of_its_own() {
    let bundle = Bundle::new(&["sleep", "1000"]);
    assert_eq!(bundle.create().code, 0);
    bundle.on("start", &[]);
    let console = Console::new(&bundle);
    let pid_file = bundle.path("pid");
    let flags = ["exec", "--tty", "--detach", "--console-socket", &console.path, "--pid-file", &pid_file, &bundle.id];
    let script = "read line; echo got $line";
    let done = bundle.run(&[&flags[..], &["sh", "-c", script]].concat());
    assert_eq!(done.code, 0, "{done:?}");
    let pid: i32 = std::fs::read_to_string(&pid_file).unwrap().parse().unwrap();
    let process = PidFd::open(pid).unwrap();
    let (mut terminal, _) = console.terminal();
    terminal.write_all(b"typed\n").unwrap();
    assert!(all_of(&mut terminal).ends_with("got typed\n"));
    // Its parent is gone, so that another reaps it: it only has to end.
    assert!(process.wait(Duration::from_secs(30)).unwrap());
}

#[test]
fn a_foreground_container_shows_its_terminal_and_its_exit_code() {
    let bundle = with_terminal("stty size; exit 3");
    let done = run_with(&bundle, "run", &[]);
    assert_eq!((done.code, done.stdout.replace("\r\n", "\n").as_str()), (3, "30 90\n"), "{done:?}");
}

#[test]
fn terminals_and_sockets_belong_together() {
    let bundle = with_terminal("true");
    let done = run_with(&bundle, "create", &[]);
    assert!(done.code == 1 && done.stderr.contains("without setting console socket"), "{done:?}");
    let bundle = Bundle::new(&["true"]);
    bundle.save();
    let console = Console::new(&bundle);
    let done = run_with(&bundle, "create", &["--console-socket", &console.path]);
    assert!(done.code == 1 && done.stderr.contains("cannot use console socket"), "{done:?}");
    let done = run_with(&with_terminal("true"), "create", &["--console-socket", "/nowhere"]);
    assert!(done.code == 1 && done.stderr.contains("console socket /nowhere"), "{done:?}");
}

/// Runs a command with a pipe as descriptor 3 and another one as 4; what came out of both.
fn with_two_descriptors(bundle: &Bundle, arguments: &[&str]) -> (i32, String, String) {
    let (first, first_inside) = UnixStream::pair().unwrap();
    let (second, second_inside) = UnixStream::pair().unwrap();
    let mut command = bundle.command(arguments);
    command.stdout(Stdio::null());
    // Where they overwrite nothing.
    let high = [&first_inside, &second_inside].map(|end| rustix::io::fcntl_dupfd_cloexec(end, 100).unwrap());
    let numbers = high.each_ref().map(OwnedFd::as_raw_fd);
    // SAFETY: dup2 may be called between fork and exec.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(move || {
            for (target, number) in (3..).zip(numbers) {
                if libc::dup2(number, target) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
    let code = command.status().unwrap().code().unwrap_or(-1);
    drop((first_inside, second_inside, high));
    let line = |stream: UnixStream| {
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        line
    };
    (code, line(first), line(second))
}

#[test]
fn descriptors_that_are_asked_for_go_on_and_others_do_not() {
    let script = "echo three >&3; (echo four >&4) 2>/dev/null; true";
    let bundle = Bundle::new(&["sh", "-c", script]);
    bundle.save();
    let directory = bundle.path("");
    let run = |number| {
        let arguments = ["run", "--preserve-fds", number, "--bundle", &directory, &bundle.id];
        with_two_descriptors(&bundle, &arguments)
    };
    assert_eq!(run("2"), (0, "three\n".to_owned(), "four\n".to_owned()));
    bundle.on("delete", &[]);
    assert_eq!(run("1"), (0, "three\n".to_owned(), String::new()));
}

#[test]
fn descriptors_go_on_to_further_processes() {
    let bundle = Bundle::new(&["sleep", "1000"]);
    assert_eq!(bundle.create().code, 0);
    bundle.on("start", &[]);
    let script = "echo three >&3; (echo four >&4) 2>/dev/null; true";
    let arguments = ["exec", "--preserve-fds", "1", &bundle.id, "sh", "-c", script];
    assert_eq!(with_two_descriptors(&bundle, &arguments), (0, "three\n".to_owned(), String::new()));
}

#[test]
fn without_pivot_the_root_is_the_bundles_all_the_same() {
    let bundle = Bundle::new(&["sh", "-c", "ls /; cd ../../..; ls | head -n 1; cat /proc/1/cmdline | head -c 2"]);
    bundle.save();
    let done = run_with(&bundle, "run", &["--no-pivot"]);
    assert_eq!((done.code, done.stdout.as_str()), (0, "bin\ndev\nproc\nsys\ntmp\nbin\nsh"), "{done:?}");
}

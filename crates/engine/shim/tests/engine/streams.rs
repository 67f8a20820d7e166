//! Stdio of containers and of processes run in them: logs, attach, exec, terminals, ports.

use crate::lifecycle::wait_for_text;
use crate::machine::*;
use pintle_cri::*;
use pintle_runtime::options::ContainerOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn read_all(reader: Option<ByteReader>) -> String {
    let mut text = String::new();
    let mut reader = reader.expect("a stream");
    tokio::time::timeout(PATIENCE, reader.read_to_string(&mut text)).await.expect("the stream should end").unwrap();
    text
}

async fn read_until(reader: &mut ByteReader, end: &str) -> String {
    let mut text = String::new();
    let read = async {
        while !text.contains(end) {
            let mut piece = [0; 256];
            let count = reader.read(&mut piece).await.unwrap();
            assert!(count > 0, "ended with {text:?}");
            text.push_str(std::str::from_utf8(&piece[..count]).unwrap());
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("more should come");
    text
}

fn exec(id: &str, command: &[&str]) -> ExecRequest {
    ExecRequest {
        container_id: id.to_owned(),
        command: strings(command),
        stdout: true,
        stderr: true,
        ..Default::default()
    }
}

#[tokio::test]
async fn logs_have_the_format_of_cri() {
    let machine = Machine::new().await;
    let sandbox = machine.sandbox().await;
    let id = machine.shell(&sandbox, "echo one; echo two >&2; echo -n rest").await;
    let status = machine.ended(&id).await;
    let log = std::fs::read_to_string(&status.log_path).unwrap();
    let mut lines: Vec<(&str, &str)> = log.lines().map(|line| line.split_at(30)).collect();
    lines.sort_by_key(|(_, rest)| *rest);
    for (time, _) in &lines {
        assert!(time.starts_with("20") && time.ends_with('Z') && time.as_bytes()[19] == b'.', "{log}");
    }
    let rest: Vec<&str> = lines.iter().map(|(_, rest)| *rest).collect();
    assert_eq!(rest, [" stderr F two", " stdout F one", " stdout P rest"]);
    machine.finish().await;
}

#[tokio::test]
async fn logs_go_on_in_a_new_file_after_a_rotation() {
    let machine = Machine::new().await;
    let sandbox = machine.sandbox().await;
    let script = "echo old; while ! busybox test -e /tmp/go; do :; done; echo new; sleep 1000";
    let id = machine.shell(&sandbox, script).await;
    let log = machine.engine().container_status(&id).await.unwrap().log_path;
    wait_for_text(&log, "old").await;
    std::fs::rename(&log, format!("{log}.1")).unwrap();
    machine.engine().reopen_container_log(&id).await.unwrap();
    machine.engine().exec_sync(&id, &strings(&["touch", "/tmp/go"]), 10).await.unwrap();
    wait_for_text(&log, "new").await;
    assert!(!text_of(&log).contains("old"));
    machine.finish().await;
}

/// A pipe that nobody reads stands for a disk that takes no more: the container goes on, what waits is bounded, and of its
/// lines the oldest are kept.
#[tokio::test]
async fn a_log_that_stalls_does_not_stop_a_container_that_may_not_wait() {
    const LINES: u32 = 1_000_000;
    let machine = Machine::new().await;
    let sandbox = machine.sandbox().await;
    let path = machine.logs().join("stalled.log");
    std::fs::create_dir_all(machine.logs()).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, 0o600.into()).unwrap();
    let held = std::fs::File::options().read(true).write(true).open(&path).unwrap();
    let config = ContainerConfig {
        command: strings(&["sh", "-c", &format!("busybox seq 0 {LINES}; touch /written; exec sleep 1000")]),
        image: "test".to_owned(),
        log_path: "stalled.log".to_owned(),
        ..ContainerConfig::default()
    };
    let options = ContainerOptions { log_ring: Some(100_000), ..ContainerOptions::default() };
    let id = machine.engine().create_container_with(&sandbox, config, options).await.unwrap();
    machine.engine().start_container(&id).await.unwrap();
    let most = || machine.shims().into_iter().map(own_memory).max();
    let before = most().unwrap();
    let written = strings(&["sh", "-c", "while ! busybox test -e /written; do :; done"]);
    machine.engine().exec_sync(&id, &written, 30).await.unwrap();
    let grown = most().unwrap() - before;
    assert!(grown < 1024, "{grown} KiB more than before");
    let mut reader = std::fs::File::open(&path).unwrap();
    drop(held);
    let read = tokio::task::spawn_blocking(move || std::io::read_to_string(&mut reader).unwrap());
    machine.engine().stop_container(&id, 0).await.unwrap();
    let text = read.await.unwrap();
    let numbers: Vec<u32> = text.lines().map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    assert!(numbers.len() < LINES as usize / 10, "{} lines were kept", numbers.len());
    // So many fit before the first is dropped; until all is stalled, some that come later find room again.
    assert!(numbers.iter().copied().take(5_000).eq(0..5_000), "not the first lines were kept");
    assert!(numbers.is_sorted());
    machine.finish().await;
}

/// The memory of a process that is not of files, as pages of its program are, in KiB.
fn own_memory(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
async fn exec_sync_gives_output_and_code_and_keeps_its_time() {
    let machine = Machine::new().await;
    let sandbox = machine.sandbox().await;
    let id = machine.shell_with(&sandbox, "sleep 1000", |c| c.security.run_as_user = Some(33)).await;
    let run = |script: &'static str, timeout| {
        let (machine, id) = (&machine, &id);
        async move { machine.engine().exec_sync(id, &strings(&["sh", "-c", script]), timeout).await }
    };
    let done = run("echo out; echo err >&2; id -u; exit 5", 0).await.unwrap();
    assert_eq!((done.stdout, done.stderr, done.exit_code), (b"out\n33\n".to_vec(), b"err\n".to_vec(), 5));
    let late = run("sleep 1000", 1).await.unwrap_err();
    assert!(matches!(late, CriError::DeadlineExceeded(_)), "{late}");
    let absent = machine.engine().exec_sync(&id, &strings(&["nope"]), 5).await.unwrap_err().to_string();
    assert!(absent.contains("exec: \"nope\": executable file not found in $PATH"), "{absent}");
    let left = run("sleep 1000 & echo started", 0).await.unwrap();
    assert_eq!(left.stdout, b"started\n");
    machine.engine().stop_container(&id, 0).await.unwrap();
    let error = run("true", 0).await.unwrap_err();
    assert!(matches!(error, CriError::FailedPrecondition(_)), "{error}");
    machine.finish().await;
}

#[tokio::test]
async fn exec_carries_stdin_and_the_exit_code() {
    let machine = Machine::new().await;
    let sandbox = machine.sandbox().await;
    let id = machine.shell(&sandbox, "sleep 1000").await;
    let request = ExecRequest { stdin: true, ..exec(&id, &["sh", "-c", "cat; echo end >&2; exit 4"]) };
    let mut session = machine.engine().exec(request).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"through").await.unwrap();
    drop(stdin);
    let (out, err) = tokio::join!(read_all(session.stdout.take()), read_all(session.stderr.take()));
    assert_eq!((out.as_str(), err.as_str()), ("through", "end\n"));
    assert_eq!(session.exit.await.unwrap(), ExitOutcome::Code(4));
    machine.finish().await;
}

#[tokio::test]
async fn a_terminal_has_a_size_and_a_name_in_the_container() {
    let machine = Machine::new().await;
    let sandbox = machine.sandbox().await;
    let id = machine.shell(&sandbox, "sleep 1000").await;
    let request = ExecRequest { stdin: true, tty: true, ..exec(&id, &["sh"]) };
    let mut session = machine.engine().exec(request).await.unwrap();
    let (mut stdin, mut stdout) = (session.stdin.take().unwrap(), session.stdout.take().unwrap());
    session.resize.send(TerminalSize { width: 91, height: 17 }).await.unwrap();
    read_until(&mut stdout, "#").await;
    stdin
        .write_all(b"until stty size | grep -q 17.91; do :; done; readlink /proc/self/fd/0; echo $TERM\n")
        .await
        .unwrap();
    let text = read_until(&mut stdout, "xterm\r\n").await;
    assert!(text.contains("/dev/pts/0"), "{text}");
    stdin.write_all(b"exit 6\n").await.unwrap();
    assert_eq!(session.exit.await.unwrap(), ExitOutcome::Code(6));
    machine.finish().await;
}

#[tokio::test]
async fn a_terminal_has_its_size_when_the_program_starts() {
    let machine = Machine::new().await;
    let sandbox = machine.sandbox().await;
    let id = machine.shell(&sandbox, "sleep 1000").await;
    let size = Some(TerminalSize { width: 91, height: 17 });
    let request = ExecRequest { tty: true, size, ..exec(&id, &["stty", "size"]) };
    let mut session = machine.engine().exec(request).await.unwrap();
    read_until(session.stdout.as_mut().unwrap(), "17 91\r\n").await;
    assert_eq!(session.exit.await.unwrap(), ExitOutcome::Code(0));
    machine.finish().await;
}

#[tokio::test]
async fn attach_sees_output_and_feeds_stdin_once() {
    let machine = Machine::new().await;
    let sandbox = machine.sandbox().await;
    let id = machine
        .shell_with(&sandbox, "while read line; do echo got $line; done; echo over; exit 8", |c| {
            (c.stdin, c.stdin_once) = (true, true);
        })
        .await;
    let request = AttachRequest { container_id: id.clone(), stdin: true, stdout: true, stderr: true, tty: false };
    let mut session = machine.engine().attach(request).await.unwrap();
    let (mut stdin, mut stdout) = (session.stdin.take().unwrap(), session.stdout.take().unwrap());
    stdin.write_all(b"a\n").await.unwrap();
    assert_eq!(read_until(&mut stdout, "\n").await, "got a\n");
    drop(stdin);
    assert_eq!(read_all(Some(stdout)).await, "over\n");
    assert_eq!(session.exit.await.unwrap(), ExitOutcome::Code(8));
    assert_eq!(text_of(&machine.ended(&id).await.log_path), "got a\nover\n");
    machine.finish().await;
}

#[tokio::test]
async fn attach_to_a_terminal_resizes_it() {
    let machine = Machine::new().await;
    let sandbox = machine.sandbox().await;
    let script = "read go; until stty size | grep -q '33 44'; do :; done; readlink /proc/self/fd/1; ls -l /dev/console";
    let id = machine.shell_with(&sandbox, script, |c| (c.stdin, c.tty) = (true, true)).await;
    let request = AttachRequest { container_id: id.clone(), stdin: true, stdout: true, stderr: false, tty: true };
    let mut session = machine.engine().attach(request).await.unwrap();
    session.resize.send(TerminalSize { width: 44, height: 33 }).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"go\n").await.unwrap();
    let text = read_all(session.stdout.take()).await;
    assert!(text.contains("/dev/pts/0") && text.contains("/dev/console"), "{text}");
    assert_eq!(machine.ended(&id).await.exit_code, 0);
    machine.finish().await;
}

#[tokio::test]
async fn a_slow_client_gets_everything() {
    let machine = Machine::new().await;
    let sandbox = machine.sandbox().await;
    let script = "read go; dd if=/dev/zero bs=1024 count=2048 2>/dev/null; sleep 0";
    let id = machine.shell_with(&sandbox, script, |c| (c.stdin, c.stdin_once) = (true, true)).await;
    let request = AttachRequest { container_id: id.clone(), stdin: true, stdout: true, stderr: false, tty: false };
    let mut session = machine.engine().attach(request).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"go\n").await.unwrap();
    assert_eq!(read_all(session.stdout.take()).await.len(), 2 << 20);
    machine.finish().await;
}

#[tokio::test]
async fn ports_inside_the_sandbox_are_reached() {
    let machine = Machine::new().await;
    let sandbox = machine.sandbox().await;
    let id = machine.shell(&sandbox, "echo hello | nc -l -p 8080").await;
    let listening = "until grep -q ':1F90 .* 0A ' /proc/net/tcp /proc/net/tcp6; do :; done";
    let waited = machine.engine().exec_sync(&id, &strings(&["sh", "-c", listening]), 20).await.unwrap();
    assert_eq!(waited.exit_code, 0);
    let mut stream = machine.engine().port_forward(&sandbox, 8080).await.unwrap();
    let mut text = [0; 6];
    stream.read_exact(&mut text).await.unwrap();
    assert_eq!(&text, b"hello\n");
    let refused = machine.engine().port_forward(&sandbox, 9).await.err().unwrap().to_string();
    assert!(refused.contains("connection refused"), "{refused}");
    drop(stream);
    machine.finish().await;
}

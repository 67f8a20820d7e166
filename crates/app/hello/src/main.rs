//! The HTTP server of the example image: answers every request on port 8080 with the name of its pod, and datagrams to
//! that port as well.
//!
//! `PORT` changes the port. `/healthz` answers `ok`; `/env` shows the environment. One thread per connection is
//! plenty here, and needs nothing but the standard library.

use rustix::process::Signal;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const MAX_HEAD_BYTES: u64 = 16 << 10;
const IDLE: Duration = Duration::from_secs(60);
/// How long it answers after it was told to end: clients may not have heard yet that it goes.
const DRAIN: Duration = Duration::from_secs(2);

/// Whether it was told to end: then connections are closed after their next answer.
static ENDING: AtomicBool = AtomicBool::new(false);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = std::env::var("PORT").ok().and_then(|p| p.parse().ok()).unwrap_or(8080u16);
    let name = std::fs::read_to_string("/etc/hostname").map(|n| n.trim().to_owned()).unwrap_or_else(|_| "hello".into());
    let version = std::env::var("VERSION").unwrap_or_else(|_| "v1".into());
    // Before any thread is there: all of them must leave these signals to the one that reads them.
    let signals = pintle_linux::process::signal_descriptor(&[Signal::TERM.as_raw(), Signal::INT.as_raw()])?;
    std::thread::spawn(move || end_when_told(&signals));
    // A socket of IPv6 is for both families; some machines have one only.
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))?;
    let datagrams =
        UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).or_else(|_| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)))?;
    let answer = format!("Hello from {name} ({version})\n");
    std::thread::Builder::new().stack_size(64 << 10).spawn(move || answer_datagrams(&datagrams, answer.as_bytes()))?;
    say(&format!("hello {version} from {name}, listening on port {port}"));
    for connection in listener.incoming() {
        let Ok(connection) = connection else { continue };
        let (name, version) = (name.clone(), version.clone());
        // A connection that cannot get a thread is dropped: the client sees it closed.
        let _ = std::thread::Builder::new().stack_size(64 << 10).spawn(move || serve(connection, &name, &version));
    }
    Ok(())
}

/// Answers every datagram, whatever it says, with the same words.
fn answer_datagrams(socket: &UdpSocket, answer: &[u8]) {
    loop {
        let mut ignored = [0];
        if let Ok((_, peer)) = socket.recv_from(&mut ignored) {
            // A client that can't be answered asks again.
            let _ = socket.send_to(answer, peer);
        }
    }
}

/// Waits for a signal, lets requests under way and those that still come be answered, and ends the process.
fn end_when_told(signals: &OwnedFd) {
    let mut ready = [rustix::event::PollFd::new(signals, rustix::event::PollFlags::IN)];
    while rustix::event::poll(&mut ready, None).is_err() {}
    ENDING.store(true, Ordering::Relaxed);
    say("told to end");
    std::thread::sleep(DRAIN);
    std::process::exit(0);
}

fn say(line: &str) {
    // Nobody reads the log when this fails, so there is nobody to tell.
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Answers the requests of one connection until the client closes it or falls silent.
fn serve(mut connection: TcpStream, name: &str, version: &str) -> std::io::Result<()> {
    connection.set_read_timeout(Some(IDLE))?;
    let mut reader = BufReader::with_capacity(4096, connection.try_clone()?);
    while let Some((path, keep_alive)) = read_request(&mut reader)? {
        let (status, body) = match path.as_str() {
            "/healthz" => ("200 OK", "ok\n".to_owned()),
            "/env" => ("200 OK", std::env::vars().map(|(k, v)| format!("{k}={v}\n")).collect()),
            "/" | "/hello" => ("200 OK", format!("Hello from {name} ({version})\n")),
            _ => ("404 Not Found", format!("{path} is not here; try /, /healthz or /env\n")),
        };
        let keep_alive = keep_alive && !ENDING.load(Ordering::Relaxed);
        let connection_header = if keep_alive { "keep-alive" } else { "close" };
        let length = body.len();
        write!(
            connection,
            "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: {connection_header}\r\n\r\n{body}"
        )?;
        say(&format!("{status} {path}"));
        if !keep_alive {
            break;
        }
    }
    Ok(())
}

/// Reads a request's head; nothing at the end of the connection or when it is no HTTP.
fn read_request(reader: &mut impl BufRead) -> std::io::Result<Option<(String, bool)>> {
    let mut head = reader.take(MAX_HEAD_BYTES);
    let mut line = String::new();
    head.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (Some(_method), Some(path), Some(protocol)) = (words.next(), words.next(), words.next()) else {
        return Ok(None);
    };
    let path = path.split('?').next().unwrap_or_default().to_owned();
    let mut keep_alive = protocol != "HTTP/1.0";
    let mut length = 0u64;
    loop {
        let mut header = String::new();
        if head.read_line(&mut header)? == 0 {
            return Ok(None);
        }
        let Some((key, value)) = header.trim_end().split_once(':') else { break };
        match key.to_ascii_lowercase().as_str() {
            "connection" => keep_alive = !value.trim().eq_ignore_ascii_case("close"),
            "content-length" => length = value.trim().parse().unwrap_or(0),
            _ => {}
        }
    }
    let rest = head.into_inner();
    std::io::copy(&mut rest.take(length.min(1 << 20)), &mut std::io::sink())?;
    Ok(Some((path, keep_alive)))
}

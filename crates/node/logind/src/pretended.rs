//! A system bus with a logind on it that ends no machine, for tests.

use crate::wire::{Kind, Message, PRELUDE, Value};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, broadcast};
use tokio::task::JoinSet;

/// Ends when it is dropped.
pub struct PretendedBus {
    socket: PathBuf,
    state: Arc<Mutex<State>>,
    news: broadcast::Sender<bool>,
    asked: Arc<Notify>,
    _serving: JoinSet<()>,
}

struct State {
    delay: Duration,
    overrides: PathBuf,
    is_stubborn: bool,
    is_ending: bool,
    held: Vec<String>,
    /// Our ends of the inhibitors: they end with them.
    inhibitors: Vec<std::os::unix::net::UnixStream>,
}

impl PretendedBus {
    /// Serves `bus` in a folder; `logind.conf.d` in it is where the longest delay is read from.
    pub fn start(folder: &Path, delay: Duration) -> Self {
        let socket = folder.join("bus");
        let listener = UnixListener::bind(&socket).expect("a socket in a folder for tests");
        let overrides = folder.join("logind.conf.d");
        let (held, inhibitors) = Default::default();
        let state = State { delay, overrides, is_stubborn: false, is_ending: false, held, inhibitors };
        let state = Arc::new(Mutex::new(state));
        let (news, _) = broadcast::channel(16);
        let mut serving = JoinSet::new();
        let asked = Arc::new(Notify::new());
        let (shared, heard, told) = (Arc::clone(&state), news.clone(), Arc::clone(&asked));
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&shared), heard.subscribe(), Arc::clone(&told)));
            }
        });
        Self { socket, state, news, asked, _serving: serving }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Says that the machine is about to end, or is not.
    pub fn tell(&self, is_ending: bool) {
        self.lock().is_ending = is_ending;
        // Nobody may listen.
        let _ = self.news.send(is_ending);
    }

    /// Goes by no file from now on.
    pub fn be_stubborn(&self) {
        self.lock().is_stubborn = true;
    }

    /// What it was asked to wait for: `shutdown WHO WHY delay` each.
    pub fn held(&self) -> Vec<String> {
        self.lock().held.clone()
    }

    /// Whether somebody still holds up the end.
    pub fn is_held(&self) -> bool {
        let open = |mut end: &std::os::unix::net::UnixStream| !matches!(end.read(&mut [0]), Ok(0));
        self.lock().inhibitors.iter().any(open)
    }

    /// Waits until somebody holds up the end.
    pub async fn held_by_someone(&self) {
        while !self.is_held() {
            self.asked.notified().await;
        }
    }

    /// Waits until nobody holds up the end any more.
    pub async fn released(&self) {
        let ends: Vec<_> = self.lock().inhibitors.iter().map(|end| end.try_clone().expect("a descriptor")).collect();
        for end in ends {
            let mut end = UnixStream::from_std(end).expect("a socket that does not block");
            // An error is an end, too.
            let _ = end.read(&mut [0]).await;
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(
    mut stream: UnixStream,
    state: Arc<Mutex<State>>,
    mut news: broadcast::Receiver<bool>,
    asked: Arc<Notify>,
) {
    let mut incoming = Vec::new();
    let greeting: [(&str, &str); 3] = [("\0AUTH", "OK 0123\r\n"), ("NEGOTIATE", "AGREE_UNIX_FD\r\n"), ("BEGIN", "")];
    for (word, answer) in greeting {
        let line = loop {
            if let Some(end) = incoming.windows(2).position(|two| two == b"\r\n") {
                break incoming.drain(..end + 2).collect::<Vec<u8>>();
            }
            if stream.read_buf(&mut incoming).await.unwrap_or(0) == 0 {
                return;
            }
        };
        assert!(line.starts_with(word.as_bytes()), "{:?}", String::from_utf8_lossy(&line));
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
    loop {
        while let Some(call) = next(&mut incoming) {
            answer(&stream, &state, &call).await;
            if call.member == "Inhibit" {
                asked.notify_one();
            }
        }
        tokio::select! {
            read = stream.read_buf(&mut incoming) => if read.unwrap_or(0) == 0 { return },
            Ok(is_ending) = news.recv() => {
                let signal = Message {
                    kind: Kind::Signal,
                    serial: 1,
                    path: "/org/freedesktop/login1".into(),
                    interface: "org.freedesktop.login1.Manager".into(),
                    member: "PrepareForShutdown".into(),
                    body: vec![Value::Flag(is_ending)],
                    ..Message::default()
                };
                if stream.write_all(&signal.encode()).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn next(incoming: &mut Vec<u8>) -> Option<Message> {
    let length = Message::length(incoming.first_chunk::<PRELUDE>()?).expect("a message");
    (incoming.len() >= length).then(|| {
        let bytes: Vec<u8> = incoming.drain(..length).collect();
        Message::decode(&bytes).expect("a message")
    })
}

async fn answer(stream: &UnixStream, state: &Mutex<State>, call: &Message) {
    let mut reply = Message { kind: Kind::Reply, serial: 1, reply_to: call.serial, ..Message::default() };
    let text = |at: usize| match call.body.get(at) {
        Some(Value::Text(text)) => text.as_str(),
        _ => "",
    };
    let mut file = None;
    match (call.member.as_str(), text(1)) {
        ("Hello", _) => reply.body = vec![":1.1".into()],
        ("AddMatch", _) => {}
        ("Get", "InhibitDelayMaxUSec") => {
            let delay = lock(state).delay.as_micros() as u64;
            reply.body = vec![Value::Variant(Box::new(Value::Number(delay)))];
        }
        ("Get", "PreparingForShutdown") => {
            reply.body = vec![Value::Variant(Box::new(Value::Flag(lock(state).is_ending)))];
        }
        ("KillUnit", _) => lock(state).read_override(),
        ("Inhibit", _) => {
            let (theirs, ours) = std::os::unix::net::UnixStream::pair().expect("a pair of sockets");
            ours.set_nonblocking(true).expect("an option of a socket");
            let mut state = lock(state);
            state.held.push(format!("{} {} {} {}", text(0), text(1), text(2), text(3)));
            state.inhibitors.push(ours);
            (reply.body, reply.files, file) = (vec![Value::File(0)], 1, Some(theirs));
        }
        _ => (reply.kind, reply.error) = (Kind::Error, "org.freedesktop.DBus.Error.UnknownMethod".into()),
    }
    let bytes = reply.encode();
    let sent = stream.async_io(tokio::io::Interest::WRITABLE, || {
        let files: Vec<_> = file.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&files));
        }
        Ok(rustix::net::sendmsg(stream.as_fd(), &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)?)
    });
    // A caller who is gone needs no answer.
    let _ = sent.await;
}

impl State {
    fn read_override(&mut self) {
        if self.is_stubborn {
            return;
        }
        for entry in std::fs::read_dir(&self.overrides).into_iter().flatten().flatten() {
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            let seconds = text.lines().find_map(|line| line.strip_prefix("InhibitDelayMaxSec=")?.parse().ok());
            self.delay = seconds.map_or(self.delay, Duration::from_secs);
        }
    }
}

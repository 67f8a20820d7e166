//! Clusters of real etcd servers on loopback, whose members can be killed, paused and cut off.
//!
//! Needs `etcd` in the path (Debian: etcd-server). Members end with the [`Cluster`].

use rustix::process::{Pid, Signal, kill_process};
use std::net::{SocketAddr, TcpListener as BlockingListener};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How the clients' side of a cluster is secured: files in PEM.
#[derive(Clone, Debug)]
pub struct Security {
    pub certificate: std::path::PathBuf,
    pub key: std::path::PathBuf,
    /// Clients must have a certificate of this authority.
    pub authority: std::path::PathBuf,
}

/// A running cluster.
pub struct Cluster {
    members: Vec<Member>,
    _directory: TempDir,
}

struct Member {
    arguments: Vec<String>,
    client: SocketAddr,
    process: Option<Child>,
    proxy: Option<Proxy>,
}

fn free_address() -> SocketAddr {
    let listener = BlockingListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("its address")
}

impl Cluster {
    /// Starts as many members; they answer a little later.
    pub fn start(size: usize) -> Self {
        Self::with(size, None, &[])
    }

    /// Starts members whose clients need certificates, with further arguments for etcd.
    pub fn with(size: usize, security: Option<&Security>, more: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let addresses: Vec<_> = (0..size).map(|_| (free_address(), free_address())).collect();
        let names: Vec<_> = addresses.iter().enumerate().map(|(i, (_, peer))| format!("m{i}=http://{peer}")).collect();
        let members = addresses.iter().enumerate().map(|(i, (client, peer))| {
            let data = directory.path().join(format!("m{i}"));
            let scheme = if security.is_some() { "https" } else { "http" };
            let mut arguments: Vec<String> = vec![
                format!("--name=m{i}"),
                format!("--data-dir={}", data.display()),
                format!("--listen-client-urls={scheme}://{client}"),
                format!("--advertise-client-urls={scheme}://{client}"),
                format!("--listen-peer-urls=http://{peer}"),
                format!("--initial-advertise-peer-urls=http://{peer}"),
                format!("--initial-cluster={}", names.join(",")),
                "--heartbeat-interval=20".into(),
                "--election-timeout=200".into(),
                "--logger=zap".into(),
                "--log-level=fatal".into(),
            ];
            if let Some(security) = security {
                arguments.push(format!("--cert-file={}", security.certificate.display()));
                arguments.push(format!("--key-file={}", security.key.display()));
                arguments.push(format!("--trusted-ca-file={}", security.authority.display()));
                arguments.push("--client-cert-auth".into());
            }
            arguments.extend(more.iter().map(|&argument| argument.to_owned()));
            Member { arguments, client: *client, process: None, proxy: None }
        });
        let mut cluster = Self { members: members.collect(), _directory: directory };
        (0..size).for_each(|member| cluster.run(member));
        cluster
    }

    /// Where clients reach the members, through the proxies where there are some.
    pub fn endpoints(&self) -> Vec<String> {
        let reached = |member: &Member| member.proxy.as_ref().map_or(member.client, |proxy| proxy.address);
        self.members.iter().map(|member| format!("http://{}", reached(member))).collect()
    }

    /// The same with certificates.
    pub fn secure_endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| format!("https://{}", member.client)).collect()
    }

    /// Puts a proxy before each member, so that clients can be cut off.
    pub async fn with_proxies(mut self) -> Self {
        for member in &mut self.members {
            member.proxy = Some(Proxy::start(member.client).await);
        }
        self
    }

    /// Starts a member, anew or for the first time.
    pub fn run(&mut self, member: usize) {
        let member = &mut self.members[member];
        let process = Command::new("etcd").args(&member.arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        member.process = Some(process.expect("start etcd: install the package etcd-server"));
    }

    /// Kills a member: it writes nothing more.
    pub fn kill(&mut self, member: usize) {
        if let Some(mut process) = self.members[member].process.take() {
            process.kill().expect("kill");
            process.wait().expect("wait");
        }
    }

    fn signal(&self, member: usize, signal: Signal) {
        let process = self.members[member].process.as_ref().expect("a running member");
        kill_process(Pid::from_child(process), signal).expect("signal");
    }

    /// Lets a member do nothing until it is resumed; its connections stay open.
    pub fn pause(&self, member: usize) {
        self.signal(member, Signal::STOP);
    }

    pub fn resume(&self, member: usize) {
        self.signal(member, Signal::CONT);
    }

    /// Lets nothing through between clients and a member, without a word to either.
    pub fn cut_off(&self, member: usize) {
        self.members[member].proxy.as_ref().expect("a proxy").open.send_replace(false);
    }

    pub fn join(&self, member: usize) {
        self.members[member].proxy.as_ref().expect("a proxy").open.send_replace(true);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        (0..self.members.len()).for_each(|member| self.kill(member));
    }
}

/// Passes bytes on while it is open.
struct Proxy {
    address: SocketAddr,
    open: watch::Sender<bool>,
    task: tokio::task::AbortHandle,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("listen");
        let address = listener.local_addr().expect("address");
        let (open, state) = watch::channel(true);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let state = state.clone();
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(target).await else { return };
                    let ((from_client, to_client), (from_server, to_server)) =
                        (client.into_split(), server.into_split());
                    tokio::join!(pass(from_client, to_server, state.clone()), pass(from_server, to_client, state));
                });
            }
        });
        Self { address, open, task: task.abort_handle() }
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut open: watch::Receiver<bool>) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if open.wait_for(|open| *open).await.is_err() || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

//! A small HTTP server on loopback, where exec, attach and port-forward take place at addresses that serve once.
//!
//! A call over the socket leaves its request here and answers with `http://127.0.0.1:PORT/exec/TOKEN`; the token is
//! random, good for a minute, and for one connection.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use pintle_cri::{AttachRequest, CriError, ExecRequest, ExitOutcome, Runtime};
use pintle_grpc::{Code, Status};
use pintle_streaming::{ClientStreams, UpgradeError, Upgraded, Wants, upgrade_exec, upgrade_port_forward};
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::OnceCell;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const TOKEN_LIFE: Duration = Duration::from_secs(60);
/// Requests that wait for their connection.
const MAX_WAITING: usize = 1000;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

enum Asked {
    Exec(ExecRequest),
    Attach(AttachRequest),
    PortForward(String),
}

impl Asked {
    fn verb(&self) -> &'static str {
        match self {
            Self::Exec(_) => "exec",
            Self::Attach(_) => "attach",
            Self::PortForward(_) => "portforward",
        }
    }
}

pub(super) struct Streams {
    runtime: Arc<dyn Runtime>,
    stop: CancellationToken,
    port: OnceCell<u16>,
    waiting: Mutex<HashMap<String, (Instant, Asked)>>,
}

impl Streams {
    pub(super) fn new(runtime: Arc<dyn Runtime>, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self { runtime, stop, port: OnceCell::new(), waiting: Mutex::default() })
    }

    pub(super) async fn exec(self: &Arc<Self>, request: ExecRequest) -> Result<String, Status> {
        check(request.stdin, request.stdout, request.stderr, request.tty)?;
        if request.command.is_empty() {
            return Err(Status::invalid("the command is missing"));
        }
        self.wait(Asked::Exec(request)).await
    }

    pub(super) async fn attach(self: &Arc<Self>, request: AttachRequest) -> Result<String, Status> {
        check(request.stdin, request.stdout, request.stderr, request.tty)?;
        self.wait(Asked::Attach(request)).await
    }

    pub(super) async fn port_forward(self: &Arc<Self>, sandbox_id: String) -> Result<String, Status> {
        self.wait(Asked::PortForward(sandbox_id)).await
    }

    /// The address at which a request is served.
    async fn wait(self: &Arc<Self>, asked: Asked) -> Result<String, Status> {
        let port = *self.port.get_or_try_init(|| self.listen()).await?;
        let token = hex(rand::random::<[u8; 16]>());
        let url = format!("http://127.0.0.1:{port}/{}/{token}", asked.verb());
        let mut waiting = self.waiting.lock();
        let now = Instant::now();
        waiting.retain(|_, (until, _)| *until > now);
        if waiting.len() >= MAX_WAITING {
            let text = "maximum number of in-flight requests exceeded";
            return Err(Status::new(Code::RESOURCE_EXHAUSTED, text));
        }
        waiting.insert(token, (now + TOKEN_LIFE, asked));
        Ok(url)
    }

    async fn listen(self: &Arc<Self>) -> Result<u16, Status> {
        let failed = |e: std::io::Error| Status::internal(format!("listen on 127.0.0.1 for streams: {e}"));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let stop = this.stop.clone();
            // Streams end with the server.
            let _ended = stop.run_until_cancelled(this.accept(listener)).await;
        });
        Ok(port)
    }

    async fn accept(self: Arc<Self>, listener: TcpListener) {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            // Keystrokes go out one by one.
            let _ = stream.set_nodelay(true);
            let this = Arc::clone(&self);
            tokio::spawn(async move {
                let service = service_fn(|request| {
                    let response = this.answer(request);
                    async move { Ok::<_, Infallible>(response) }
                });
                let mut builder = hyper::server::conn::http1::Builder::new();
                let connection = builder.keep_alive(false).serve_connection(TokioIo::new(stream), service);
                // A client that goes has no more to say.
                let _ended = this.stop.run_until_cancelled(connection.with_upgrades()).await;
            });
        }
    }

    fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path().trim_start_matches('/').to_owned();
        let (verb, token) = path.split_once('/').unwrap_or_default();
        let found = self.waiting.lock().remove(token);
        let asked = match found {
            Some((until, asked)) if until > Instant::now() && asked.verb() == verb => asked,
            _ => return refusal(StatusCode::NOT_FOUND, "there is no such request, or it was served already"),
        };
        let runtime = Arc::clone(&self.runtime);
        let answered = match asked {
            Asked::PortForward(sandbox) => {
                upgrade_port_forward(request).map(|upgraded| forward(upgraded, runtime, sandbox))
            }
            Asked::Exec(asked) => {
                let wants = wants(asked.stdin, asked.stdout, asked.stderr, asked.tty);
                upgrade_exec(request, wants).map(|Upgraded { response, streams }| {
                    tokio::spawn(async move {
                        let Some((client, status)) = opened(streams).await else { return };
                        told(status, pintle_streaming::exec(runtime.as_ref(), asked, client).await).await;
                    });
                    response
                })
            }
            Asked::Attach(asked) => {
                let wants = wants(asked.stdin, asked.stdout, asked.stderr, asked.tty);
                upgrade_exec(request, wants).map(|Upgraded { response, streams }| {
                    tokio::spawn(async move {
                        let Some((client, status)) = opened(streams).await else { return };
                        let (tty, session) = (asked.tty, runtime.attach(asked).await);
                        let outcome = pintle_streaming::join(session, tty, client).await;
                        // How the container ended is in its status.
                        told(status, outcome.map(|_| ExitOutcome::Code(0))).await;
                    });
                    response
                })
            }
        };
        answered.unwrap_or_else(|error| refusal(error.code(), &error.to_string()))
    }
}

fn hex(bytes: [u8; 16]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn wants(stdin: bool, stdout: bool, stderr: bool, tty: bool) -> Wants {
    Wants { stdin, stdout, stderr, tty }
}

fn check(stdin: bool, stdout: bool, stderr: bool, tty: bool) -> Result<(), Status> {
    if tty && stderr {
        return Err(Status::invalid("tty and stderr cannot both be true"));
    }
    if !(stdin || stdout || stderr) {
        return Err(Status::invalid("one of stdin, stdout, or stderr must be set"));
    }
    Ok(())
}

fn refusal(code: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(format!("{text}\n")));
    *response.status_mut() = code;
    response
}

async fn opened(
    streams: impl Future<Output = Result<pintle_streaming::ExecStreams, UpgradeError>>,
) -> Option<(ClientStreams, pintle_streaming::StatusWriter)> {
    match streams.await {
        Ok(pintle_streaming::ExecStreams { stdin, stdout, stderr, resize, status }) => {
            Some((ClientStreams { stdin, stdout, stderr, resize }, status))
        }
        Err(error) => {
            tracing::debug!(%error, "a client did not go through with its upgrade");
            None
        }
    }
}

async fn told(status: pintle_streaming::StatusWriter, outcome: Result<ExitOutcome, CriError>) {
    match outcome {
        Ok(ExitOutcome::Code(code)) => status.exited(code).await,
        Ok(ExitOutcome::Detached) => status.exited(0).await,
        Err(error) => status.failed(&error.to_string()).await,
    }
}

fn forward(
    upgraded: Upgraded<pintle_streaming::PortForward>,
    runtime: Arc<dyn Runtime>,
    sandbox: String,
) -> Response<Full<Bytes>> {
    let Upgraded { response, streams } = upgraded;
    tokio::spawn(async move {
        let mut connections = match streams.await {
            Ok(connections) => connections,
            Err(error) => return tracing::debug!(%error, "a client did not go through with its upgrade"),
        };
        // Dropped, and so ended, with the client's connection.
        let mut forwarding = tokio::task::JoinSet::new();
        while let Some(connection) = connections.accept().await {
            while forwarding.try_join_next().is_some() {}
            let (runtime, sandbox) = (Arc::clone(&runtime), sandbox.clone());
            forwarding.spawn(async move {
                let pintle_streaming::PortStream { port, data, error } = connection;
                pintle_streaming::forward(runtime.as_ref(), &sandbox, port, data, error).await;
            });
        }
    });
    response
}

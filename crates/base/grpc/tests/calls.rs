//! A server on a socket and clients of it: answers, failures, streams, limits and deadlines.

use futures::FutureExt;
use futures::future::BoxFuture;
use pintle_grpc::{Answer, Call, CallError, Code, Limits, Service, SocketClient, Status, bind, serve};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

pintle_grpc::messages! {
    Text { 1 text: String, 2 times: u32, }
}

struct Echo;

impl Service for Echo {
    fn call(self: Arc<Self>, call: Call) -> BoxFuture<'static, Result<Answer, Status>> {
        async move {
            match call.method.as_str() {
                "/test.Echo/Once" => Ok(Answer::once(&call.request::<Text>()?)),
                "/test.Echo/Many" => {
                    let text: Text = call.request()?;
                    let mut left = text.times;
                    Ok(Answer::many(futures::stream::poll_fn(move |_| {
                        let next = match left {
                            0 => Some(Err(Status::new(Code::OUT_OF_RANGE, "no more"))),
                            n => Some(Ok(Text { times: n, ..text.clone() })),
                        };
                        left = left.saturating_sub(1);
                        std::task::Poll::Ready(next)
                    })))
                }
                "/test.Echo/Never" => std::future::pending().await,
                other => Err(Status::unknown_method(other)),
            }
        }
        .boxed()
    }
}

struct Served {
    client: SocketClient,
    path: PathBuf,
    stop: CancellationToken,
    _folder: tempfile::TempDir,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn served() -> Served {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("echo.sock");
    let (listener, stop) = (bind(&path, 0o660).unwrap(), CancellationToken::new());
    let limits = Limits { max_message: 1000, ..Limits::default() };
    tokio::spawn(serve(listener, Arc::new(Echo), limits, stop.clone()));
    Served { client: SocketClient::new(&path), path, stop, _folder: folder }
}

fn text(text: &str, times: u32) -> Text {
    Text { text: text.to_owned(), times }
}

#[tokio::test]
async fn a_call_is_answered_once_or_many_times() {
    let served = served();
    let answer: Text = served.client.call("/test.Echo/Once", &text("hé", 7), None).await.unwrap();
    assert_eq!(answer, text("hé", 7));
    let empty: Text = served.client.call("/test.Echo/Once", &Text::default(), None).await.unwrap();
    assert_eq!(empty, Text::default());
    let mut stream = served.client.stream::<_, Text>("/test.Echo/Many", &text("x", 2)).await.unwrap();
    assert_eq!(stream.next().await.unwrap(), Some(text("x", 2)));
    assert_eq!(stream.next().await.unwrap(), Some(text("x", 1)));
    let end = stream.next().await.unwrap_err();
    assert_eq!(end, CallError::Status { code: Code::OUT_OF_RANGE.0, message: "no more".to_owned() });
}

#[tokio::test]
async fn failures_are_told() {
    let served = served();
    let call = async |method: &str, request: &Text| {
        served.client.call::<_, Text>(method, request, None).await.unwrap_err().status().to_string()
    };
    let unknown = call("/test.Echo/None", &Text::default()).await;
    assert_eq!(unknown, "rpc error: code = Unimplemented desc = unknown method None for service test.Echo");
    let large = call("/test.Echo/Once", &text(&"x".repeat(2000), 0)).await;
    assert_eq!(large, "rpc error: code = ResourceExhausted desc = received message larger than max (2003 vs. 1000)");
    let channel = served.client.channel().await.unwrap();
    let broken = channel.call_bytes("/test.Echo/Once", &[0x0a, 9], None).await.unwrap_err().status();
    assert_eq!(broken.code, Code::INTERNAL);
    // The connection goes on.
    assert!(served.client.call::<_, Text>("/test.Echo/Once", &Text::default(), None).await.is_ok());
}

#[tokio::test]
async fn both_sides_keep_the_time() {
    let served = served();
    let timeout = Some(Duration::from_millis(50));
    let late = served.client.call::<_, Text>("/test.Echo/Never", &Text::default(), timeout).await.unwrap_err();
    assert_eq!(late.status().code, Code::DEADLINE_EXCEEDED);
    let channel = served.client.channel().await.unwrap();
    let late = channel.call_bytes("/test.Echo/Never", &[], timeout).await.unwrap_err();
    assert_eq!(late.status().code, Code::DEADLINE_EXCEEDED);
}

#[tokio::test]
async fn a_server_that_comes_back_is_found() {
    let served = served();
    assert!(bind(&served.path, 0o660).is_err(), "it lives");
    assert!(served.client.call::<_, Text>("/test.Echo/Once", &Text::default(), None).await.is_ok());
    let channel = served.client.channel().await.unwrap();
    served.stop.cancel();
    // Answers when the connection is gone.
    assert!(channel.call_bytes("/test.Echo/Never", &[], None).await.is_err());
    let gone = served.client.call::<_, Text>("/test.Echo/Once", &Text::default(), None).await.unwrap_err();
    assert!(matches!(&gone, CallError::NotSent(why) if why.contains("dial unix")), "{gone:?}");
    let (listener, stop) = (bind(&served.path, 0o660).unwrap(), CancellationToken::new());
    tokio::spawn(serve(listener, Arc::new(Echo), Limits::default(), stop.clone()));
    assert!(served.client.call::<_, Text>("/test.Echo/Once", &Text::default(), None).await.is_ok());
    stop.cancel();
}

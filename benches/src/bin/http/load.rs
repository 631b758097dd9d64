//! The load: a process of its own that sends the same request on a few connections, the next when the last is answered.
//! It reads no more of an answer than it must: on a small machine it stands in the server's way.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CONNECTIONS: usize = 16;
const WARM: Duration = Duration::from_millis(200);
const MEASURED: Duration = Duration::from_millis(800);

/// What one connection has sent.
#[derive(Debug, Clone, Copy, Default)]
struct Sent {
    all: usize,
    measured: usize,
}

pub fn run(address: &str, header: &str, value: &str) {
    let request =
        format!("GET /issues HTTP/1.1\r\nhost: {address}\r\nuser-agent: bench/1.0\r\n{header}: {value}\r\n\r\n");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let sent = runtime.block_on(async {
        let start = Instant::now();
        let connections = (0..CONNECTIONS).map(|_| converse(address, request.as_bytes(), start));
        futures_util::future::join_all(connections).await
    });
    let (all, measured) = sent.iter().fold((0, 0), |sum, sent| (sum.0 + sent.all, sum.1 + sent.measured));
    println!("{}", json!({ "requests": all, "per_second": measured as f64 / MEASURED.as_secs_f64() }));
}

async fn converse(address: &str, request: &[u8], start: Instant) -> Sent {
    let mut stream = TcpStream::connect(address).await.expect("the server takes a connection");
    stream.set_nodelay(true).expect("a connection without delay");
    let mut answer = vec![0; 4096];
    let length = first(&mut stream, request, &mut answer).await;
    let mut sent = Sent { all: 1, measured: 0 };
    loop {
        stream.write_all(request).await.expect("the server reads");
        stream.read_exact(&mut answer[..length]).await.expect("every answer is as long as the first");
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "it is admitted");
        sent.all += 1;
        match start.elapsed() {
            elapsed if elapsed > WARM + MEASURED => return sent,
            elapsed => sent.measured += usize::from(elapsed > WARM),
        }
    }
}

/// Sends the first request, and tells how long its answer is.
async fn first(stream: &mut TcpStream, request: &[u8], answer: &mut [u8]) -> usize {
    stream.write_all(request).await.expect("the server reads");
    let mut length = 0;
    while !answer[..length].ends_with(b"\r\n\r\n[]") {
        let read = stream.read(&mut answer[length..]).await.expect("the server answers");
        let text = String::from_utf8_lossy(&answer[..length + read]);
        assert!(read > 0 && text.starts_with("HTTP/1.1 200 "), "{text}");
        length += read;
    }
    length
}

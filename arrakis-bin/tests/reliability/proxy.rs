//! A way to the server on which things go wrong: a proxy that takes one request per connection and has
//! a fault for each.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What becomes of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Way {
    /// It is answered.
    Pass,
    /// It is answered late.
    Delay(Duration),
    /// The connection is reset before the request was read whole.
    Reset,
    /// The request arrives; of the answer so many bytes come back.
    Cut(usize),
    /// The request arrives; no answer comes for as long as the sender waits.
    Freeze,
    /// The request goes nowhere; no answer comes for as long as the sender waits.
    Swallow,
    /// The request goes nowhere, and this is the answer.
    Say(&'static str),
    /// The request goes nowhere; the answer is a server's refusal of the event that it names.
    Refuse,
}

impl Way {
    fn name(&self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Delay(_) => "delay",
            Self::Reset => "reset",
            Self::Cut(_) => "cut",
            Self::Freeze => "freeze",
            Self::Swallow => "swallow",
            Self::Say(_) => "say",
            Self::Refuse => "refuse",
        }
    }
}

/// The answers of things that are not the server, or of a server that cannot take more.
pub(crate) const ANSWERS: [&str; 7] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 15\r\nConnection: close\r\n\r\n<html>log in</h",
    "HTTP/1.1 200 OK\r\nContent-Length: 16\r\nConnection: close\r\n\r\n{\"success\":true}",
    "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "HTTP/1.1 503 Service Unavailable\r\nRetry-After: soon\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "\0\r\n\x7fELF this is not HTTP\r\n\r\n",
];

/// A running proxy.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    state: Mutex<State>,
    /// A request has come.
    came: Condvar,
}

#[derive(Debug, Default)]
struct State {
    next: VecDeque<Way>,
    taken: BTreeMap<&'static str, u64>,
    answer_bytes: usize,
}

impl Proxy {
    /// A proxy of the server at `upstream`, such as `127.0.0.1:3000`.
    pub(crate) fn start(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let upstream = upstream.parse().unwrap();
        let shared = Arc::new(Shared { upstream, state: Mutex::default(), came: Condvar::new() });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = Arc::clone(&serving);
                // A connection that fails on either side is a fault like the others.
                std::thread::spawn(move || shared.serve(client).ok());
            }
        });
        Self { address, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/api/claude-hooks", self.address)
    }

    /// Gives the next requests these ways; those after them pass.
    pub(crate) fn set_next(&self, ways: impl IntoIterator<Item = Way>) {
        self.shared.state().next = ways.into_iter().collect();
    }

    /// Waits until all ways that were set are taken, or `is_over` says so, which is asked every moment.
    pub(crate) fn wait_until_taken(&self, mut is_over: impl FnMut() -> bool) {
        const MOMENT: Duration = Duration::from_millis(100);
        const DEADLINE: Duration = Duration::from_secs(60);
        let started = Instant::now();
        let mut state = self.shared.state();
        while !state.next.is_empty() {
            assert!(started.elapsed() < DEADLINE, "waited in vain for requests: {state:?}");
            let waited = self.shared.came.wait_timeout(state, MOMENT);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            if is_over() {
                return;
            }
        }
    }

    /// How many requests did not just pass.
    pub(crate) fn faults(&self) -> u64 {
        let state = self.shared.state();
        state.taken.iter().filter(|(way, _)| **way != "pass").map(|(_, count)| count).sum()
    }

    /// How many requests went each way.
    pub(crate) fn taken(&self) -> BTreeMap<&'static str, u64> {
        self.shared.state().taken.clone()
    }

    /// The length of the longest answer of the server: the one to an event, not to a spool's report.
    pub(crate) fn answer_bytes(&self) -> usize {
        self.shared.state().answer_bytes
    }
}

impl Shared {
    fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        let mut first = [0];
        // A connection that is opened and never used takes no fault with it.
        if client.peek(&mut first)? == 0 {
            return Ok(());
        }
        let way = {
            let mut state = self.state();
            let way = state.next.pop_front().unwrap_or(Way::Pass);
            *state.taken.entry(way.name()).or_default() += 1;
            way
        };
        self.came.notify_all();
        if way == Way::Reset {
            // What was sent and not read makes the system answer with a reset.
            return Ok(());
        }
        let request = message(&mut client)?;
        match way {
            Way::Say(answer) => return end(&mut client, answer.as_bytes()),
            Way::Refuse => return end(&mut client, refusal(&request).as_bytes()),
            Way::Swallow => return wait_for_end(&mut client),
            _ => {}
        }
        let mut server = TcpStream::connect(self.upstream)?;
        server.write_all(&request)?;
        let answer = closing(message(&mut server)?);
        let mut state = self.state();
        state.answer_bytes = state.answer_bytes.max(answer.len());
        drop(state);
        match way {
            Way::Freeze => wait_for_end(&mut client),
            Way::Cut(at) => end(&mut client, &answer[..at.min(answer.len())]),
            Way::Delay(time) => {
                std::thread::sleep(time);
                end(&mut client, &answer)
            }
            _ => end(&mut client, &answer),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads one HTTP message, whose body has a length.
fn message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut message = Vec::new();
    let mut part = [0; 65536];
    let mut whole = None;
    while whole.is_none_or(|whole| message.len() < whole) {
        let read = stream.read(&mut part)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        message.extend_from_slice(&part[..read]);
        whole = whole.or_else(|| length(&message));
    }
    Ok(message)
}

/// The length of a message of which this is the beginning.
fn length(message: &[u8]) -> Option<usize> {
    let head = head_bytes(message)?;
    let text = String::from_utf8_lossy(&message[..head]).to_ascii_lowercase();
    let body = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    Some(head + body.map_or(0, |length| length.trim().parse().unwrap()))
}

fn head_bytes(message: &[u8]) -> Option<usize> {
    message.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

/// The answer with the announcement that the connection ends after it.
fn closing(answer: Vec<u8>) -> Vec<u8> {
    let head = head_bytes(&answer).unwrap() - 2;
    [&answer[..head], b"connection: close\r\n", &answer[head..]].concat()
}

/// The answer to an event that the server does not take.
fn refusal(request: &[u8]) -> String {
    let text = String::from_utf8_lossy(request);
    let mut lines = text.lines().filter_map(|line| line.split_once(": "));
    let id = lines.find(|(name, _)| name.eq_ignore_ascii_case("x-request-id"));
    let body = serde_json::json!({
        "success": false,
        "error": { "code": "invalid_payload", "message": "not like this" },
        "requestId": id.map(|(_, id)| id),
    });
    let body = body.to_string();
    let length = body.len();
    format!(
        "HTTP/1.1 422 Unprocessable Content\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

fn end(client: &mut TcpStream, answer: &[u8]) -> io::Result<()> {
    client.write_all(answer)?;
    client.shutdown(Shutdown::Both)
}

/// Keeps the connection until the client gives up.
fn wait_for_end(client: &mut TcpStream) -> io::Result<()> {
    io::copy(client, &mut io::sink()).map(drop)
}

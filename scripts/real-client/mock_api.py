"""A mock of the Messages API, for one client on loopback.

A prompt names a scene: `scene=parallel`. The newest user message that names one decides, and the number of answers
since then says which step of the scene comes next. After the last step comes a short text. The mock keeps no
conversation: all it needs is in the request. It only counts how often it has seen a request that is to fail first.

    python3 mock_api.py PORT LOG

LOG gets one JSON line for each request: time, method, path and body.
"""

import json
import re
import sys
import threading
import time
import uuid
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SCENE = re.compile(r"\bscene=([a-z0-9-]+)")

USAGE = {
    "input_tokens": 900,
    "cache_creation_input_tokens": 70,
    "cache_read_input_tokens": 500,
    "output_tokens": 60,
}


# --- what the model does ----------------------------------------------------------------------------------------


def text(words):
    return {"type": "text", "text": words}


def thinking(words):
    return {"type": "thinking", "thinking": words, "signature": "bW9jayBzaWduYXR1cmU="}


def tool(name, **given):
    return {"type": "tool_use", "id": "toolu_" + uuid.uuid4().hex[:24], "name": name, "input": given}


def bash(command, **more):
    return tool("Bash", command=command, description="a step of the mock", **more)


def agent(task):
    return tool(
        "Agent",
        description=task,
        prompt=f"scene=inside-agent {task}",
        subagent_type="general-purpose",
        run_in_background=False,
    )


def wait(seconds):
    """The answer begins after this time."""
    return {"wait": seconds}


def trickle(seconds, pieces=40):
    """A text that takes this time to arrive."""
    return {"trickle": seconds, "pieces": pieces}


def refuse(status, kind, times=None):
    """An error instead of an answer; with `times`, only for so many requests."""
    return {"status": status, "kind": kind, "times": times}


def scenes(cwd):
    """The steps of each scene. `cwd` is the folder that the client works in."""
    file = f"{cwd}/poem.txt"
    return {
        "text": [[text("A short answer.\n\nWith a second paragraph, ünïcode 漢字 😀 and `code`.")]],
        "think": [[thinking("First I think about it."), text("Then I say it.")]],
        "bash": [[text("I run a command."), bash("echo out; echo err >&2")]],
        "fail": [[bash("echo broken >&2; exit 3")]],
        "files": [
            [tool("Write", file_path=file, content="one\ntwo ü 漢字 😀\n")],
            [tool("Read", file_path=file)],
            [tool("Edit", file_path=file, old_string="one", new_string="first")],
            [tool("Read", file_path=f"{cwd}/no-such-file")],
        ],
        "parallel": [[bash(f"sleep 0.2; echo number {n}") for n in range(4)] + [tool("Read", file_path="/etc/hosts")]],
        "unknown-tool": [[tool("NoSuchTool", anything=1)]],
        # The client refuses a command that begins with a long sleep.
        "slow": [[bash("echo begins; sleep 6; echo ends")]],
        "very-slow": [[bash("echo begins; sleep 60; echo ends")]],
        "background": [[bash("sleep 1; echo from the background", run_in_background=True)]],
        "agent": [[agent("look around")]],
        "two-agents": [[agent("look left"), agent("look right")]],
        "inside-agent": [[text("I am a subagent."), bash("echo from a subagent")]],
        "late": [[wait(8), text("A late answer.")]],
        "trickle": [[trickle(6)]],
        "bad-request": [[refuse(400, "invalid_request_error")]],
        "overloaded-once": [[refuse(529, "overloaded_error", times=1), text("The second request was taken.")]],
        "overloaded": [[refuse(529, "overloaded_error")]],
    }


def texts_of(content):
    if isinstance(content, str):
        return content
    return "\n".join(part.get("text", "") for part in content if part.get("type") == "text")


def is_compaction(body):
    """Whether the request asks for a summary of the conversation."""
    messages = body.get("messages", [])
    last = texts_of(messages[-1]["content"]) if messages else ""
    return "summary" in last and "<summary>" in last


def next_step(body, cwd):
    """What the model answers: the scene's name and the blocks of its next step."""
    if is_compaction(body):
        return "compaction", [text("<analysis>All of it.</analysis>\n<summary>What was said, in short.</summary>")]
    if not body.get("tools"):
        # A side request: a title, a check of the quota.
        return "side", [text('{"title": "A title by the mock", "isNewTopic": true}')]
    name, since = None, 0
    for at, message in enumerate(body["messages"]):
        found = SCENE.findall(texts_of(message["content"])) if message["role"] == "user" else []
        if found:
            name, since = found[-1], at
    if name is None:
        return "none", [text("An answer to a prompt that names no scene.")]
    done = sum(message["role"] == "assistant" for message in body["messages"][since:])
    steps = scenes(cwd).get(name, [])
    return name, steps[done] if done < len(steps) else [text(f"The scene {name} is over.")]


# --- how it says it ---------------------------------------------------------------------------------------------


class Refusal(Exception):
    """The request is answered with an error of the API."""

    def __init__(self, status, kind):
        super().__init__(kind)
        self.status, self.kind = status, kind


class MockApi(ThreadingHTTPServer):
    """The server. `asked` holds the scenes of the requests, in their order."""

    daemon_threads = True

    def __init__(self, port, log, cwd):
        super().__init__(("127.0.0.1", port), Handler)
        self.log, self.cwd = open(log, "a", encoding="utf-8"), cwd
        self.lock, self.refused, self.asked = threading.Lock(), Counter(), []

    def note(self, method, path, body):
        line = json.dumps({"at": time.time(), "method": method, "path": path, "body": body})
        with self.lock:
            self.log.write(line + "\n")
            self.log.flush()

    def answer(self, body):
        """The blocks of the answer, after refusals and waiting."""
        name, step = next_step(body, self.cwd)
        with self.lock:
            self.asked.append(name)
        blocks = []
        for block in step:
            if "status" in block:
                with self.lock:
                    self.refused[name] += 1
                    refuses = block["times"] is None or self.refused[name] <= block["times"]
                if refuses:
                    raise Refusal(block["status"], block["kind"])
            elif "wait" in block:
                time.sleep(block["wait"])
            else:
                blocks.append(block)
        return blocks


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """The log has each request already."""

    def do_GET(self):
        self.server.note(self.command, self.path, None)
        self.send_error_object(404, "not_found_error")

    do_HEAD = do_GET

    def do_POST(self):
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        try:
            body = json.loads(raw)
        except ValueError:
            body = None
        self.server.note(self.command, self.path, body)
        path = self.path.partition("?")[0]
        if body is None or path not in ("/v1/messages", "/v1/messages/count_tokens"):
            return self.send_error_object(404, "not_found_error")
        if path.endswith("count_tokens"):
            return self.send_object(200, {"input_tokens": 1000})
        try:
            blocks = self.server.answer(body)
        except Refusal as refusal:
            return self.send_error_object(refusal.status, refusal.kind)
        try:
            self.send_message(body, blocks)
        except ConnectionError:
            pass  # The client has interrupted the answer.

    def send_object(self, status, value):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def send_error_object(self, status, kind):
        self.send_object(status, {"type": "error", "error": {"type": kind, "message": "an error of the mock"}})

    def send_message(self, body, blocks):
        stop = "tool_use" if any(block.get("type") == "tool_use" for block in blocks) else "end_turn"
        message = {
            "id": "msg_" + uuid.uuid4().hex[:24],
            "type": "message",
            "role": "assistant",
            "model": body.get("model"),
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {**USAGE, "output_tokens": 1},
        }
        if not body.get("stream"):
            whole = [block for block in blocks if "type" in block]
            return self.send_object(200, {**message, "content": whole, "stop_reason": stop, "usage": USAGE})
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("request-id", "req_" + uuid.uuid4().hex[:24])
        self.send_header("connection", "close")
        self.close_connection = True
        self.end_headers()
        self.send_event("message_start", message=message)
        for index, block in enumerate(blocks):
            self.send_block(index, block)
        self.send_event("message_delta", delta={"stop_reason": stop, "stop_sequence": None}, usage=USAGE)
        self.send_event("message_stop")

    def send_block(self, index, block):
        pause = 0
        if "trickle" in block:
            pause = block["trickle"] / block["pieces"]
            start = text("")
            deltas = [{"type": "text_delta", "text": f"Piece {n}. "} for n in range(block["pieces"])]
        elif block["type"] == "text":
            start = text("")
            deltas = [{"type": "text_delta", "text": block["text"]}]
        elif block["type"] == "thinking":
            start = {"type": "thinking", "thinking": "", "signature": ""}
            deltas = [
                {"type": "thinking_delta", "thinking": block["thinking"]},
                {"type": "signature_delta", "signature": block["signature"]},
            ]
        else:
            start = {**block, "input": {}}
            deltas = [{"type": "input_json_delta", "partial_json": json.dumps(block["input"])}]
        self.send_event("content_block_start", index=index, content_block=start)
        for delta in deltas:
            self.send_event("content_block_delta", index=index, delta=delta)
            time.sleep(pause)
        self.send_event("content_block_stop", index=index)

    def send_event(self, kind, **fields):
        self.wfile.write(f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode())
        self.wfile.flush()


if __name__ == "__main__":
    MockApi(int(sys.argv[1]), sys.argv[2], ".").serve_forever()

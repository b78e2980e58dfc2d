"""Sessions without a terminal: `claude -p`, with one prompt or a stream of them."""

import json
import signal
import subprocess

from sessions import COMMAND, session
from stage import Late, stop, wait_until

# How long one client may run, in seconds.
CLIENT_SECONDS = 90

TRUSTED = ("--permission-mode", "bypassPermissions")


def run(stage, it, *arguments):
    """Runs one client to its end. Its exit code says nothing of use here: some sessions are to fail."""
    client = stage.spawn(stage.client_command(*arguments), stage.client_env(it.name), it.name, stdin=subprocess.DEVNULL)
    try:
        client.wait(CLIENT_SECONDS)
    except subprocess.TimeoutExpired:
        stop(client)
        raise Late(f"the end of the client did not come within {CLIENT_SECONDS} s") from None


class Stream:
    """One client that reads prompts and controls as lines of JSON."""

    def __init__(self, stage, it, *arguments):
        self.stage, self.it = stage, it
        command = stage.client_command(
            "-p", "--verbose", "--input-format", "stream-json", "--output-format", "stream-json", *TRUSTED, *arguments
        )
        self.client = stage.spawn(command, stage.client_env(it.name), it.name, stdin=subprocess.PIPE)
        self.output = stage.logs / f"{it.name}.out"

    def __enter__(self):
        return self

    def __exit__(self, failed, *_):
        self.client.stdin.close()
        if failed:
            return stop(self.client)
        try:
            self.client.wait(CLIENT_SECONDS)
        except subprocess.TimeoutExpired:
            stop(self.client)
            raise Late("the end of the client did not come after its input had ended") from None

    def send(self, value):
        self.client.stdin.write(json.dumps(value).encode() + b"\n")
        self.client.stdin.flush()

    def say(self, text, **more):
        self.send({"type": "user", "message": {"role": "user", "content": self.it.say(text, **more)}})

    def control(self, name, **request):
        """Asks the client for something beside prompts, and waits for its answer."""
        self.send({"type": "control_request", "request_id": name, "request": request})
        wait_until(lambda: f'"request_id":"{name}"' in self.output.read_text(), f"the answer to {name}")

    def wait_for_results(self, times):
        wait_until(lambda: self.output.read_text().count('"type":"result"') >= times, f"result number {times}")


@session("text")
def _(stage, it):
    run(stage, it, *TRUSTED, "-p", it.say("scene=text Say something."))


@session("think")
def _(stage, it):
    run(stage, it, *TRUSTED, "-p", it.say("scene=think Think first."))


@session("bash")
def _(stage, it):
    run(
        stage,
        it,
        *TRUSTED,
        "-p",
        it.say('scene=bash Run a command.\n\n  With more lines,\n\tünïcode 漢字 😀 and "quotes".'),
    )


@session("continue", continues="bash")
def _(stage, it):
    run(stage, it, *TRUSTED, "-p", "--continue", it.say("scene=fail Go on, and fail."))


@session("fork", continues="bash", is_fork=True)
def _(stage, it):
    run(stage, it, *TRUSTED, "-p", "--continue", "--fork-session", it.say("scene=bash Go another way."))


@session("files")
def _(stage, it):
    run(stage, it, *TRUSTED, "-p", it.say("scene=files Write, read and edit a file."))


@session("parallel")
def _(stage, it):
    run(stage, it, *TRUSTED, "-p", it.say("scene=parallel Five tools at once."))


@session("unknown-tool")
def _(stage, it):
    run(stage, it, *TRUSTED, "-p", it.say("scene=unknown-tool Call a tool that is not there."))


@session("agent")
def _(stage, it):
    run(stage, it, *TRUSTED, "-p", it.say("scene=agent Send a subagent."))


@session("two-agents")
def _(stage, it):
    run(stage, it, *TRUSTED, "-p", it.say("scene=two-agents Send two subagents."))


@session("background")
def _(stage, it):
    run(stage, it, *TRUSTED, "-p", it.say("scene=background Start something in the background."))


@session("compact-before")
def _(stage, it):
    run(stage, it, *TRUSTED, "-p", it.say("scene=bash Something to sum up."))


@session("compact", continues="compact-before")
def _(stage, it):
    run(stage, it, *TRUSTED, "-p", "--continue", it.say("/compact keep the commands", COMMAND))


@session("slash-command")
def _(stage, it):
    run(stage, it, *TRUSTED, "-p", it.say("/greet the world"))


@session("denied")
def _(stage, it):
    run(stage, it, "--permission-mode", "default", "-p", it.say("scene=files Ask for a permission that nobody gives."))


@session("bad-request")
def _(stage, it):
    run(stage, it, *TRUSTED, "-p", it.say("scene=bad-request Ask for what the server refuses."))


@session("overloaded-once")
def _(stage, it):
    run(stage, it, *TRUSTED, "-p", it.say("scene=overloaded-once The second request is taken."))


@session("overloaded")
def _(stage, it):
    run(stage, it, *TRUSTED, "-p", it.say("scene=overloaded No request is taken."))


@session("stream")
def _(stage, it):
    with Stream(stage, it) as client:
        client.say("scene=bash First of the stream.")
        client.wait_for_results(1)
        client.control("model", subtype="set_model", model="sonnet")
        # The client writes the command into the transcript that a person would have typed.
        it.say("/model sonnet", fate=COMMAND)
        client.say("scene=text Second of the stream, to another model.")
        client.wait_for_results(2)
        client.say("scene=very-slow Third of the stream, interrupted.")
        stage.wait_for_event(it.name, "PreToolUse", times=2)
        client.control("interrupt", subtype="interrupt")
        client.wait_for_results(3)
        client.say("/clear", fate=COMMAND)
        client.wait_for_results(4)
        client.say("scene=bash Fourth of the stream, after it was cleared.")
        client.wait_for_results(5)


@session("stream-meanwhile")
def _(stage, it):
    with Stream(stage, it) as client:
        client.say("scene=slow A tool that takes its time.")
        stage.wait_for_event(it.name, "PreToolUse")
        client.say("Said meanwhile: use oak.")
        client.wait_for_results(1)


@session("terminated")
def _(stage, it):
    command = stage.client_command(*TRUSTED, "-p", it.say("scene=very-slow A tool that is cut off."))
    client = stage.spawn(command, stage.client_env(it.name), it.name, stdin=subprocess.DEVNULL)
    stage.wait_for_event(it.name, "PreToolUse")
    client.send_signal(signal.SIGTERM)
    client.wait(CLIENT_SECONDS)

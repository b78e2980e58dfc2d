"""The place where sessions are played: scratch folders, the mock, Arrakis, and the clients' processes."""

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from client import CannotRun, environment, skip_first_questions
from mock_api import MockApi

HERE = os.path.dirname(os.path.abspath(__file__))

# How long anything that is waited for in a session may take, in seconds.
PATIENCE_SECONDS = 40

# How long Arrakis may take until everything is delivered after the last session, in seconds. The drainer reads
# transcripts once more 10 s after a session's end.
DELIVERY_SECONDS = 90


class Late(Exception):
    """What was waited for did not come."""


def wait_until(happened, what, seconds=PATIENCE_SECONDS):
    """Asks until there is an answer, and returns it."""
    end = time.monotonic() + seconds
    while not (answer := happened()):
        if time.monotonic() > end:
            raise Late(f"{what} did not come within {seconds} s")
        time.sleep(0.05)
    return answer


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def stop(process, seconds=5):
    """Ends a process and its group: politely, then not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            pass
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue
        return


def command_of(pid):
    """The command line of a process, so that no other one is ended in its place; empty if there is none."""
    return subprocess.run(["ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout


def end_all(pids, seconds=5):
    """Ends processes that are nobody's children: politely, then not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        pids = [pid for pid in pids if is_alive(pid)]
        for pid in pids:
            os.kill(pid, number)
        end = time.monotonic() + seconds
        while any(map(is_alive, pids)) and time.monotonic() < end:
            time.sleep(0.05)


def is_alive(pid):
    """Whether a process runs. One that has ended and waits for its parent to ask does not."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")


class Stage:
    """Use it as a context manager: it starts the mock and Arrakis, and stops what was started."""

    def __init__(self, folder, program, binaries, events):
        self.folder, self.program, self.binaries, self.events = folder, program, binaries, events
        self.home, self.work, self.seen = folder / "home", folder / "work", folder / "seen"
        self.logs = folder / "logs"
        # For sockets, whose paths are short: so it is not below `folder`.
        self.temporary = Path(tempfile.mkdtemp(prefix="real-client-"))
        self.tmux_socket = str(self.temporary / "tmux.sock")
        # The screen of a client that has ended stays, so that it can be kept; and tmux outlives its last session, which
        # else ends it while the next one begins.
        self.tmux_settings = str(self.temporary / "tmux.conf")
        Path(self.tmux_settings).write_text("set -g remain-on-exit on\nset -g exit-empty off\n")
        self.running, self.mock = [], None
        self.drainers, self.ended = folder / "drainers", folder / "ended"

    def __enter__(self):
        try:
            self.set_up()
        except BaseException:
            self.close()
            raise
        return self

    def set_up(self):
        for made in (self.home, self.work, self.seen, self.logs):
            made.mkdir()
        self.prepare_project()
        self.mock = MockApi(0, self.logs / "api.jsonl", str(self.work))
        threading.Thread(target=self.mock.serve_forever, daemon=True).start()
        self.env = environment(self.home, self.temporary, self.mock.server_address[1])
        # Where the hook spools if its home cannot be written: not the developer's place.
        self.env["ARRAKIS_FALLBACK_HOME"] = str(self.folder / "fallback")
        self.env["ARRAKIS_BIN"] = str(self.write_drainer())
        skip_first_questions(self.home, self.work)
        self.serve(self.home / ".arrakis")
        self.registered = self.arrakis("install", "--json")["added"]
        self.write_counter_settings()

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.stop_terminals()
        for process in reversed(self.running):
            stop(process)
        self.stop_drainers()
        if self.mock:
            self.mock.shutdown()
        shutil.rmtree(self.temporary, ignore_errors=True)

    def prepare_project(self):
        """A small project: instructions, and a command of its own."""
        (self.work / "CLAUDE.md").write_text("A project to play in.\n")
        commands = self.work / ".claude" / "commands"
        commands.mkdir(parents=True)
        (commands / "greet.md").write_text("---\ndescription: greets\n---\nGreet $ARGUMENTS. scene=bash\n")
        subprocess.run(
            ["git", "init", "--quiet", str(self.work)],
            check=True,
            env={"PATH": os.environ["PATH"], "HOME": str(self.home)},
        )

    def write_drainer(self):
        """What hooks start as a drainer: Arrakis, whose process id is noted, since drainers are nobody's children.

        The id is written before the end is looked for, so that a drainer which starts at the end is found or goes.
        """
        program = self.folder / "drainer.sh"
        program.write_text(f"""#!/bin/sh
echo $$ >>"{self.drainers}"
[ -e "{self.ended}" ] || exec "{self.binaries}/arrakis" "$@"
""")
        program.chmod(0o700)
        return program

    def stop_drainers(self):
        """Ends the drainers that have not ended by themselves. No other one begins after that."""
        self.ended.touch()
        pids = self.drainers.read_text().split() if self.drainers.exists() else ()
        own = (str(self.binaries), f"/bin/sh {self.folder}")
        end_all([int(pid) for pid in pids if command_of(pid).startswith(own)])

    def stop_terminals(self):
        """Ends tmux and its clients. These still call their last hooks, which may start a drainer."""
        if os.path.exists(self.tmux_socket):
            tmux = ["tmux", "-S", self.tmux_socket]
            panes = subprocess.run(
                [*tmux, "list-panes", "-a", "-F", "#{pane_pid}"], capture_output=True, text=True, check=False
            )
            subprocess.run([*tmux, "kill-server"], capture_output=True, check=False)
            end_all([int(pid) for pid in panes.stdout.split()])

    def write_counter_settings(self):
        """Registers the counter beside the hook that `arrakis install` has registered."""
        counter = {"hooks": [{"type": "command", "command": f"{HERE}/counter.sh", "timeout": 5}]}
        self.hooks = {event: [counter] for event in self.events}
        self.counter_settings = self.folder / "settings.json"
        self.counter_settings.write_text(json.dumps({"hooks": self.hooks}))

    def settings_with_hook(self, event, command):
        """Settings with the counter and one more hook."""
        path = self.folder / f"settings-{event}.json"
        more = {"hooks": [{"type": "command", "command": command, "timeout": 5}]}
        path.write_text(json.dumps({"hooks": {**self.hooks, event: [*self.hooks[event], more]}}))
        return path

    # --- processes --------------------------------------------------------------------------------------------

    def spawn(self, command, env, log, **more):
        """Starts a process in a group of its own; its standard error, and output unless it is piped, go to a file."""
        with open(self.logs / f"{log}.err", "ab") as errors, open(self.logs / f"{log}.out", "ab") as output:
            more.setdefault("stdout", output)
            process = subprocess.Popen(
                [str(part) for part in command], env=env, cwd=self.work, stderr=errors, start_new_session=True, **more
            )
        self.running.append(process)
        return process

    def client_env(self, name):
        seen = self.seen / name
        seen.mkdir(exist_ok=True)
        return {**self.env, "REAL_CLIENT_SEEN": str(seen)}

    def client_command(self, *arguments, settings=None):
        return [self.program, "--settings", settings or self.counter_settings, *arguments]

    # --- Arrakis ----------------------------------------------------------------------------------------------

    def arrakis_env(self, home):
        kept = ("PATH", "HOME", "LANG", "ARRAKIS_FALLBACK_HOME", "ARRAKIS_BIN")
        return {**{name: self.env[name] for name in kept}, "ARRAKIS_HOME": str(home)}

    def serve(self, home):
        """Starts `arrakis up` for a home, and waits until it listens."""
        port = free_port()
        server = self.spawn(
            [self.binaries / "arrakis", "up", "--json", "--listen", f"127.0.0.1:{port}"],
            self.arrakis_env(home),
            f"up-{home.name.strip('.')}",
            stdin=subprocess.DEVNULL,
        )

        def listens():
            if server.poll() is not None:
                raise CannotRun(f"`arrakis up` ended with {server.returncode}: see {self.logs}/up-*.err")
            try:
                return socket.create_connection(("127.0.0.1", port), 1).close() is None
            except OSError:
                return False

        wait_until(listens, "the start of `arrakis up`")

    def arrakis(self, *arguments, home=None, may_fail=False):
        """Runs a command of Arrakis, and returns what it says: read if it is JSON, else the text."""
        done = subprocess.run(
            [self.binaries / "arrakis", *arguments],
            env=self.arrakis_env(home or self.home / ".arrakis"),
            cwd=self.work,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        if done.returncode != 0 and not may_fail:
            raise CannotRun(f"`arrakis {' '.join(arguments)}` ended with {done.returncode}: {done.stderr.strip()}")
        return json.loads(done.stdout) if "--json" in arguments else done.stdout

    def export(self):
        """Every stored event, as `arrakis export` writes it."""
        path = self.folder / "export.jsonl"
        self.arrakis("export", "--all", "--output", path)
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [line for line in lines if "envelope" in line]

    def conversations(self, home=None):
        """Every conversation, whole."""
        listed = self.arrakis("conversations", "list", "--limit", "1000", "--json", home=home)
        return [self.arrakis("conversations", "show", one["sessionId"], "--json", home=home) for one in listed]

    def transcript_lines(self):
        """Every line of every transcript that the client has written."""
        for path in sorted((self.home / ".claude" / "projects").rglob("*.jsonl")):
            for line in path.read_text(encoding="utf-8").splitlines():
                yield json.loads(line)

    def wait_for_delivery(self, home=None):
        """Waits until the spool is empty, transcripts are read, and no drainer runs. Returns the last status."""

        def delivered():
            spool = self.arrakis("status", "--json", home=home)["spool"]
            idle = spool["pending"] == 0 and spool["processing"] == 0 and not spool["drainerRunning"]
            return spool if idle else time.sleep(0.5)

        return wait_until(delivered, "the end of delivery", DELIVERY_SECONDS)

    # --- what the client has given to its hooks ---------------------------------------------------------------

    def payloads(self, name):
        """What the counter has seen of a session, in order, as pairs of the file and its bytes."""
        return [(path, path.read_bytes()) for path in sorted((self.seen / name).glob("*.json"))]

    def count_events(self, name, event, **fields):
        """How many calls the counter has seen for an event, with these fields."""
        found = 0
        for _, payload in self.payloads(name):
            try:
                value = json.loads(payload)
            except ValueError:
                continue
            found += value.get("hook_event_name") == event and all(value.get(k) == v for k, v in fields.items())
        return found

    def wait_for_event(self, name, event, times=1, **fields):
        wait_until(lambda: self.count_events(name, event, **fields) >= times, f"{event} number {times} of {name}")

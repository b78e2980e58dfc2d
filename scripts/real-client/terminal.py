"""Sessions in a terminal, through tmux."""

import base64
import re
import shlex
import subprocess
import time

from sessions import COMMAND, UNSENT, session
from stage import Late, wait_until

# What stands before the client's input, when it is empty or not.
INPUT = re.compile(r"^[│|\s]*[>❯](?:\s|$)", re.M)

# An image of one pixel.
DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="

# How long the client gets to work on a key before the next one, in seconds.
SETTLED_SECONDS = 0.6

# What is typed is looked for on the screen by its last characters, this many.
SHOWN_CHARACTERS = 12


class Terminal:
    """One interactive client in a terminal of its own."""

    def __init__(self, stage, it, settings=None):
        self.stage, self.it, self.settings = stage, it, settings

    def tmux(self, *arguments):
        done = subprocess.run(
            ["tmux", "-S", self.stage.tmux_socket, "-f", self.stage.tmux_settings, *arguments],
            text=True,
            capture_output=True,
            env=self.env,
            cwd=self.stage.work,
            check=False,
        )
        if done.returncode != 0:
            raise Late(f"tmux {arguments[0]} failed: {done.stderr.strip()}")
        return done.stdout

    def __enter__(self):
        self.env = self.stage.client_env(self.it.name)
        command = self.stage.client_command("--permission-mode", "bypassPermissions", settings=self.settings)
        # tmux gives a new session the environment of its server, which an earlier session has started.
        inside = ["env", "-i", *(f"{name}={value}" for name, value in self.env.items()), *map(str, command)]
        self.tmux("new-session", "-d", "-s", self.it.name, "-x", "150", "-y", "50", shlex.join(inside))
        try:
            self.wait_for_screen(INPUT)
        except Late as late:
            self.__exit__(Late)
            raise late
        self.settle()
        return self

    def __exit__(self, failed, *_):
        try:
            if not failed:
                self.submit("/exit")
                self.stage.wait_for_event(self.it.name, "SessionEnd")
                wait_until(self.has_ended, "the end of the client")
        except Late:
            failed = True
            raise
        finally:
            if failed:
                (self.stage.logs / f"{self.it.name}.screen").write_text(self.screen())
            self.tmux("kill-session", "-t", self.it.name)

    def has_ended(self):
        return self.tmux("display-message", "-p", "-t", self.it.name, "#{pane_dead}").strip() == "1"

    def screen(self):
        return self.tmux("capture-pane", "-p", "-t", self.it.name)

    def wait_for_screen(self, pattern):
        """Waits for a text on the screen, as long as the client lives."""

        def shows():
            if self.has_ended():
                raise Late("the client has ended")
            return re.search(pattern, self.screen())

        return wait_until(shows, f"{getattr(pattern, 'pattern', pattern)!r} on the screen")

    def settle(self):
        """Gives the client time for what was typed, where the screen does not tell."""
        time.sleep(SETTLED_SECONDS)

    def type(self, text):
        self.tmux("send-keys", "-t", self.it.name, "-l", "--", text)
        # The input shows the end of it, if need be after a line break.
        self.wait_for_screen(re.escape(text[-SHOWN_CHARACTERS:].strip()))
        self.settle()

    def interrupt(self):
        """Presses Esc, and waits for its effect: a letter typed at once would be taken for one with Alt."""
        self.press("Escape")
        wait_until(lambda: "esc to interrupt" not in self.screen(), "the end of the answer that was interrupted")

    def paste(self, text):
        self.tmux("set-buffer", "--", text)
        self.tmux("paste-buffer", "-p", "-t", self.it.name)
        self.settle()

    def press(self, *keys):
        for key in keys:
            self.tmux("send-keys", "-t", self.it.name, key)
            self.settle()

    def submit(self, text):
        self.type(text)
        self.press("Enter")

    def say(self, text, **more):
        self.submit(self.it.say(text, **more))

    def wait_for(self, event, times=1, **fields):
        self.stage.wait_for_event(self.it.name, event, times, **fields)


@session("terminal", in_terminal=True)
def _(stage, it):
    with Terminal(stage, it) as client:
        client.say("scene=files First in the terminal.")
        client.wait_for("Stop")
        client.say("scene=think Second in the terminal.")
        client.wait_for("Stop", 2)


@session("queued", in_terminal=True)
def _(stage, it):
    with Terminal(stage, it) as client:
        client.say("scene=slow A tool runs while more is typed.")
        client.wait_for("PreToolUse")
        client.say("Typed during a tool: use walnut.")
        client.say("Typed during a tool as well: use birch.")
        client.wait_for("Stop")


@session("taken-back", in_terminal=True)
def _(stage, it):
    with Terminal(stage, it) as client:
        client.say("scene=slow A tool runs while something is taken back.")
        client.wait_for("PreToolUse")
        client.say("Taken back: use mahogany.", fate=UNSENT)
        client.press("Up", "C-u")
        client.wait_for("Stop")
        client.say("scene=text After something was taken back.")
        client.wait_for("Stop", 2)


@session("two-taken-back", in_terminal=True)
def _(stage, it):
    with Terminal(stage, it) as client:
        client.say("scene=slow A tool runs while two prompts are taken back.")
        client.wait_for("PreToolUse")
        client.say("Taken back first: use teak.", fate=UNSENT)
        client.say("Taken back second: use ebony.", fate=UNSENT)
        client.press("Up")
        (stage.logs / f"{it.name}.input").write_text(client.screen())
        client.press("C-u", "C-u", "C-u")
        client.wait_for("Stop")
        client.say("scene=text After two were taken back.")
        client.wait_for("Stop", 2)


@session("queued-while-answering", in_terminal=True)
def _(stage, it):
    with Terminal(stage, it) as client:
        client.say("scene=trickle An answer comes slowly.")
        wait_until(lambda: "trickle" in stage.mock.asked, "the request of the slow answer")
        client.say("scene=text Typed during an answer.")
        client.wait_for("Stop", 2)


@session("interrupted", in_terminal=True)
def _(stage, it):
    with Terminal(stage, it) as client:
        client.say("scene=very-slow A tool that is interrupted.")
        client.wait_for("PreToolUse")
        client.interrupt()
        client.say("scene=text After the interruption.")
        client.wait_for("Stop")


@session("interrupted-with-queue", in_terminal=True)
def _(stage, it):
    with Terminal(stage, it) as client:
        client.say("scene=very-slow A tool that is interrupted while something waits.")
        client.wait_for("PreToolUse")
        client.say("scene=text Waited for a tool that was interrupted.")
        client.interrupt()
        client.wait_for("Stop")


@session("unanswered", in_terminal=True)
def _(stage, it):
    with Terminal(stage, it) as client:
        client.say("scene=text Before it is withdrawn.")
        client.wait_for("Stop")
        client.say("scene=late Withdrawn before an answer.", fate=UNSENT)
        wait_until(lambda: "late" in stage.mock.asked, "the request of the withdrawn prompt")
        client.interrupt()
        client.press("C-u")
        client.say("scene=text After it was withdrawn.")
        client.wait_for("Stop", 2)


@session("shell", in_terminal=True)
def _(stage, it):
    with Terminal(stage, it) as client:
        client.say("scene=text Before a command of one's own.")
        client.wait_for("Stop")
        client.say("!echo typed by hand", fate=COMMAND)
        client.wait_for("Stop", 2)


@session("rewound", in_terminal=True)
def _(stage, it):
    with Terminal(stage, it) as client:
        client.say("scene=text First, kept.")
        client.wait_for("Stop")
        client.say("scene=text Second, rewound.")
        client.wait_for("Stop", 2)
        client.press("Escape", "Escape")
        client.wait_for_screen("Rewind")
        client.press("Up", "Enter")
        client.wait_for_screen("Restore")
        client.press("Enter")
        client.wait_for_screen(INPUT)
        client.press("C-u")
        client.say("scene=text Third, instead of the second.")
        client.wait_for("Stop", 3)


@session("cleared", in_terminal=True)
def _(stage, it):
    with Terminal(stage, it) as client:
        client.say("scene=text Before it is cleared.")
        client.wait_for("Stop")
        client.say("/clear", fate=COMMAND)
        client.wait_for("SessionStart", 1, source="clear")
        client.say("scene=text After it was cleared.")
        client.wait_for("Stop", 2)


@session("compacted", in_terminal=True)
def _(stage, it):
    with Terminal(stage, it) as client:
        client.say("scene=bash Before the summary.")
        client.wait_for("Stop")
        client.say("/compact keep the names of the woods", fate=COMMAND)
        client.wait_for("PostCompact")
        client.say("scene=text After the summary.")
        client.wait_for("Stop", 2)


@session("blocked", in_terminal=True)
def _(stage, it):
    block = "if grep -q forbidden; then echo 'a hook forbids it' >&2; exit 2; fi"
    with Terminal(stage, it, stage.settings_with_hook("UserPromptSubmit", block)) as client:
        client.say("scene=text Before the one that is blocked.")
        client.wait_for("Stop")
        client.say("scene=text Something forbidden.", fate=UNSENT)
        client.wait_for_screen("a hook forbids it")
        client.press("C-u")
        client.say("scene=text After the one that was blocked.")
        client.wait_for("Stop", 2)


@session("pasted", in_terminal=True)
def _(stage, it):
    lines = "\n".join(f"pasted line {n}" for n in range(1, 13))
    with Terminal(stage, it) as client:
        client.say("scene=slow A tool runs while something is pasted.")
        client.wait_for("PreToolUse")
        client.type("Queued with a paste: ")
        client.paste(lines)
        client.press("Enter")
        it.say(f"Queued with a paste: {lines}", is_pasted=True)
        client.wait_for("Stop")
        client.type("scene=text Alone with a paste: ")
        client.paste(lines)
        client.press("Enter")
        it.say(f"scene=text Alone with a paste: {lines}", is_pasted=True)
        client.wait_for("Stop", 2)


@session("image", in_terminal=True)
def _(stage, it):
    picture = stage.work / "dot.png"
    picture.write_bytes(base64.b64decode(DOT))
    with Terminal(stage, it) as client:
        client.say("scene=slow A tool runs while an image is pasted.")
        client.wait_for("PreToolUse")
        client.type("Queued with an image: ")
        client.paste(str(picture))
        (stage.logs / f"{it.name}.input").write_text(client.screen())
        client.press("Enter")
        it.say("Queued with an image: [Image #1]")
        client.wait_for("Stop")

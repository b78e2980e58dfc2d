"""The client: installs it, tells the events that it knows, and makes the environment that it runs in."""

import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

PACKAGE = "@anthropic-ai/claude-code"

# How long npm may take, in seconds: the package has some 400 MB.
NPM_SECONDS = 540

# No key: the mock asks for none. The client wants one that looks like one.
DUMMY_KEY = "sk-ant-mock-000000000000000000000000"


class CannotRun(Exception):
    """The tool cannot do its work; the text says why and what to do."""


def cache_folder():
    """Where clients and runs are kept: never in the checkout, never in the client's own folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "arrakis-real-client"


def npm(*arguments):
    if shutil.which("npm") is None:
        raise CannotRun("npm is missing: install Node.js")
    try:
        done = subprocess.run(["npm", *arguments], capture_output=True, text=True, timeout=NPM_SECONDS)
    except subprocess.TimeoutExpired:
        raise CannotRun(f"npm {arguments[0]} took longer than {NPM_SECONDS} s") from None
    if done.returncode != 0:
        raise CannotRun(
            f"npm {arguments[0]} failed; with --version X a client that was installed before runs "
            f"without network\n{done.stderr.strip()}"
        )
    return done.stdout


def install(version, cache):
    """Installs a version of the client where it is missing. Returns the version and the path of the program."""
    if version == "latest":
        version = npm("view", PACKAGE, "version").strip()
    if not re.fullmatch(r"\d[\w.-]*", version):
        raise CannotRun(f"{version!r} is no version of the client; give one such as 2.1.332")
    folder = cache / "clients" / version
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".installing-") as temporary:
            npm("install", "--prefix", temporary, "--no-audit", "--no-fund", "--ignore-scripts", f"{PACKAGE}@{version}")
            os.rename(temporary, folder)
            os.mkdir(temporary)  # for the context manager, which removes it
    programs = [path for path in folder.glob("node_modules/@anthropic-ai/claude-code-*/claude") if path.is_file()]
    if len(programs) != 1:
        raise CannotRun(
            f"{folder} holds {len(programs)} native clients instead of one: the package has changed, or this "
            "platform has none; remove the folder to install again"
        )
    return version, programs[0]


def known_events(program):
    """The names of the hook events that the client's program lists, which may be more than the sessions show."""
    names = set()
    pattern = re.compile(rb'"PreToolUse","PostToolUse"(?:,"[A-Z][A-Za-z]{2,40}"){10,100}')
    # Read in overlapping pieces: the program is some hundred megabytes.
    overlap, tail = 8192, b""
    with open(program, "rb") as file:
        while piece := file.read(16 << 20):
            for found in pattern.findall(tail + piece):
                names.update(name.decode() for name in re.findall(rb'"(\w+)"', found))
            tail = piece[-overlap:]
    return sorted(names)


def environment(home, temporary, port):
    """The whole environment of the client: nothing of the developer's comes through."""
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "HOME": str(home),
        # Else the client shares a folder in /tmp with the developer's own.
        "TMPDIR": str(temporary),
        "CLAUDE_CODE_TMPDIR": str(temporary),
        "SHELL": "/bin/bash",
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
        "IS_SANDBOX": "1",  # root may skip permissions
        "ANTHROPIC_API_KEY": DUMMY_KEY,
        "ANTHROPIC_BASE_URL": f"http://127.0.0.1:{port}",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_MAX_RETRIES": "1",
        "DISABLE_AUTOUPDATER": "1",
        "DISABLE_ERROR_REPORTING": "1",
        "DISABLE_TELEMETRY": "1",
    }


def skip_first_questions(home, cwd):
    """Answers what an interactive client asks on its first start: theme, key, and whether the folder is trusted."""
    state = {
        "hasCompletedOnboarding": True,
        "theme": "dark",
        "bypassPermissionsModeAccepted": True,
        "customApiKeyResponses": {"approved": [DUMMY_KEY[-20:]], "rejected": []},
        "projects": {str(cwd): {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True}},
    }
    (home / ".claude.json").write_text(json.dumps(state))

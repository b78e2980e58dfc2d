"""What Arrakis has made of the sessions, against what was really given to it and said.

Each check returns findings: dicts with `check`, `session` and `text`, and what helps to look into it.
"""

import hashlib
import json
import re
from collections import Counter, defaultdict

from sessions import COMMAND, SENT, UNSENT
from survey import shortened

# Arrakis did not exist before, and nor did any client.
FIRST_YEAR = 2020

TIME = re.compile(r"(\d{4})-\d\d-\d\dT\d\d:\d\d:\d\d[\d.]*(?:Z|[+-]\d\d:\d\d)")

PASTE_TAG = re.compile(r"</?pasted_content[^>]*>")

# What a tool or a person said is no time of Arrakis.
SAID = ("content", "blocks", "parameters", "response", "error", "payload")


def finding(check, session, text, **more):
    return {"check": check, "session": session, "text": text, **more}


def digest(payload):
    return "sha256:" + hashlib.sha256(payload).hexdigest()


def conservation(stage, sessions, exported):
    """Whether every payload that the client gave is stored, byte for byte, exactly once."""
    given, sources = Counter(), {}
    for session in sessions:
        for path, payload in stage.payloads(session.name):
            # The client ends a payload with a line break, which is no part of it.
            key = digest(payload.rstrip(b"\n"))
            given[key] += 1
            sources[key] = (session.name, path)
    stored = Counter(event["digest"] for event in exported if event["eventType"] != "Transcript")
    values = {json.dumps(event["payload"], sort_keys=True) for event in exported}
    found = []
    for key in given:
        session, path = sources[key]
        if stored[key] == given[key]:
            continue
        if stored[key] > given[key]:
            what = f"given {given[key]} times and stored {stored[key]} times"
        elif json.dumps(json.loads(path.read_bytes()), sort_keys=True) in values:
            what = "stored with other bytes, though of the same value"
        else:
            what = f"given {given[key]} times and stored {stored[key]} times; or it is stored changed"
        found.append(
            finding("conservation", session, what, payload=str(path), example=shortened(json.loads(path.read_bytes())))
        )
    for event in exported:
        if event["eventType"] != "Transcript" and event["digest"] not in given:
            found.append(
                finding(
                    "conservation",
                    None,
                    "stored, but the counter has not seen it: it was changed, or the counter was cut off",
                    example=shortened(event["payload"]),
                )
            )
    return sum(given.values()), found


def is_shown_as(said, text):
    """Whether a text is a prompt's. The `!` of a shell command may be left out, and so may tags around a paste."""
    if said.fate == COMMAND:
        return text.strip().lstrip("!").strip() == said.text.lstrip("!").strip()
    if said.is_pasted:
        return PASTE_TAG.sub("", text).split() == said.text.split()
    return text == said.text


def is_unsent(message):
    """Whether Arrakis says of a message that it never reached the model."""
    return message["origin"] == "withdrawn"


def prompts(sessions, ids, conversations, view):
    """Whether the user's messages are the prompts that were submitted, each once."""
    by_name = {session.name: session for session in sessions}
    shown = defaultdict(Counter)
    found = []
    for conversation in conversations:
        name, place = owner(conversation, sessions, ids), {"view": view, "conversation": conversation["sessionId"]}
        allowed = said_in(conversation["sessionId"], sessions, ids, by_name)
        for message in conversation["messages"]:
            if message["role"] != "user" or message.get("agentId"):
                continue
            prompt = next((said for said in allowed if is_shown_as(said, message["content"])), None)
            if prompt is None:
                text = "a message of the user is none of the prompts that were submitted"
                found.append(finding("not the person's words", name, text, **place, **where(message)))
            elif prompt.fate == UNSENT and not is_unsent(message):
                text = "a prompt that the model never got is shown as if it had been said"
                found.append(finding("unsent prompt shown", name, text, **place, **where(message)))
            else:
                shown[prompt.text][conversation["sessionId"]] += 1
    for session in sessions:
        for said in session.said:
            times = shown[said.text]
            own = sum(times[session_id] for session_id in ids[session.name])
            if own == 0 and said.fate == SENT:
                found.append(
                    finding(
                        "prompt missing",
                        session.name,
                        "a prompt that was submitted is not shown",
                        view=view,
                        example=shortened(said.text),
                    )
                )
            # A fork may repeat what was said before it.
            if own > 1 or any(n > 1 for n in times.values()):
                found.append(
                    finding(
                        "prompt doubled",
                        session.name,
                        f"a prompt is shown {sum(times.values())} times",
                        view=view,
                        conversation=", ".join(times),
                        example=shortened(said.text),
                    )
                )
    return found


def owner(conversation, sessions, ids):
    """The name of the first session that a conversation belongs to."""
    return next((session.name for session in sessions if conversation["sessionId"] in ids[session.name]), None)


def where(message):
    return {"at": message["at"], "example": shortened(message["content"])}


def said_in(session_id, sessions, ids, by_name):
    """The prompts that may stand in a conversation: those of its sessions, and of what a fork of them comes from."""
    allowed = []
    for session in sessions:
        if session_id in ids[session.name]:
            allowed += session.said
            if session.is_fork and session.continues in by_name:
                parents = ids[session.continues]
                allowed += [said for other in sessions if ids[other.name] & parents for said in other.said]
    return allowed


def old_times(sessions, ids, conversations, view):
    """Times before there was a client: made up from nothing."""
    found = []
    for conversation in conversations:
        name = owner(conversation, sessions, ids)
        places = Counter()
        walk_times(conversation, "", places)
        for place, times in sorted(places.items()):
            found.append(
                finding(
                    "time before 2020",
                    name,
                    f"at {place}",
                    view=view,
                    conversation=conversation["sessionId"],
                    times=times,
                )
            )
    return found


def walk_times(value, place, places):
    if isinstance(value, dict):
        for name, inner in value.items():
            if name not in SAID:
                walk_times(inner, f"{place}.{name}".lstrip("."), places)
    elif isinstance(value, list):
        for inner in value:
            walk_times(inner, place + "[]", places)
    elif isinstance(value, str) and (time := TIME.fullmatch(value)) and int(time[1]) < FIRST_YEAR:
        places[place] += 1


def gaps(sessions, ids, conversations):
    """What Arrakis itself says that hooks or transcript lack."""
    found = []
    for conversation in conversations:
        name = owner(conversation, sessions, ids)
        for gap in conversation["reconciliation"]["gaps"]:
            found.append(
                finding(
                    "gap",
                    name,
                    "Arrakis says that something is missing",
                    conversation=conversation["sessionId"],
                    example=shortened(gap),
                )
            )
    return found


def not_understood(exported, *reports):
    """What Arrakis says that it does not know: lines of unknown types, by type, and lines that it cannot read."""
    unknown = Counter()
    for event in exported:
        if event["eventType"] == "Transcript":
            unknown.update(event["payload"].get("unknown", {}))
    for report in reports:
        for name, times in unknown_in(report).items():
            unknown[name] = max(unknown[name], times)
    found = [
        finding("type not known", None, f"{times} {'line' if times == 1 else 'lines'} of the type {name}")
        for name, times in sorted(unknown.items())
    ]
    unreadable = [line for report in reports for line in report.get("unreadableLines", ())]
    return found + [finding("line not read", None, line["reason"], example=shortened(line)) for line in unreadable]


def unknown_in(report):
    """The counts of unknown types anywhere in a report of Arrakis, by type."""
    if isinstance(report, list):
        parts = [unknown_in(inner) for inner in report]
    elif isinstance(report, dict):
        parts = [
            (
                value
                if name in ("unknown", "unknownTypes", "unknownLines") and isinstance(value, dict)
                else unknown_in(value)
            )
            for name, value in report.items()
        ]
    else:
        return {}
    counts = Counter()
    for part in parts:
        counts.update(part)
    return counts


def not_registered(listed, registered):
    """Events that the client knows and `arrakis install` does not register."""
    # A hook for WorktreeCreate has to make the worktree itself, so nobody registers one only to watch.
    missing = sorted(set(listed) - set(registered) - {"WorktreeCreate"})
    return [
        finding("event not registered", None, f"`arrakis install` registers no hook for {event}") for event in missing
    ]

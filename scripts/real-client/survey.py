"""Which names the client uses: events, fields, types of lines. And how they differ from the names that are known.

A survey maps categories to names, and each name to a shortened example. `known.json` has the same without examples.
"""

import json

EXAMPLE_CHARACTERS = 100

# Objects in a line whose fields are listed as well.
NESTED = ("message", "message.usage", "origin", "turnPosition", "compactMetadata", "permissionDecision")

# Fields whose values are names of the client's, not of anybody's work.
ENUMERATED = (
    "operation",
    "reason",
    "promptSource",
    "rowSource",
    "turnOrigin",
    "origin.kind",
    "toolDenialKind",
    "permissionDecision.decision",
    "permissionDecision.source",
    "attachment.commandMode",
    "promptSubmitEnding.ending.kind",
)


def shortened(value):
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= EXAMPLE_CHARACTERS else text[: EXAMPLE_CHARACTERS - 1] + "…"


def at_path(value, path):
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


class Survey:
    def __init__(self):
        self.names = {}

    def note(self, category, name, example):
        self.names.setdefault(category, {}).setdefault(name, shortened(example))

    def note_fields(self, category, value, prefix=""):
        for name, field in value.items():
            self.note(category, prefix + name, field)

    def add_listed_event(self, name):
        self.note("events that the client's program lists", name, "")

    def add_payload(self, payload):
        event = str(payload.get("hook_event_name"))
        self.note("events that were sent", event, payload)
        self.note_fields(f"fields of {event}", payload)

    def add_line(self, line):
        kind = str(line.get("type"))
        self.note("types of lines", kind, line)
        if kind == "system":
            self.note("subtypes of system lines", str(line.get("subtype")), line)
            kind = f"system {line.get('subtype')}"
        self.note_fields(f"fields of lines: {kind}", line)
        for path in NESTED:
            if isinstance(inner := at_path(line, path), dict):
                self.note_fields(f"fields of lines: {kind}", inner, path + ".")
        for path in ENUMERATED:
            if isinstance(value := at_path(line, path), str):
                self.note(f"values of {path} in {kind} lines", value, line)
        if isinstance(attachment := line.get("attachment"), dict):
            self.note("types of attachments", str(attachment.get("type")), attachment)
            self.note_fields(f"fields of attachments: {attachment.get('type')}", attachment)
        content = at_path(line, "message.content")
        for block in content if isinstance(content, list) else ():
            self.note(f"types of blocks in {kind} lines", str(block.get("type")), block)

    def compare(self, known):
        """The names that are new, with an example, and those that are known and were not seen."""
        new = [
            {"category": category, "name": name, "example": example}
            for category, names in sorted(self.names.items())
            for name, example in sorted(names.items())
            if name not in known.get(category, ())
        ]
        gone = [
            {"category": category, "name": name}
            for category, names in sorted(known.items())
            for name in names
            if name not in self.names.get(category, ())
        ]
        return new, gone

    def accept(self, version, path):
        """Makes these names the known ones. What was seen with the same version earlier stays known."""
        before = read_known(path)
        kept = before["names"] if before["client"] == version else {}
        names = {
            category: sorted({*kept.get(category, ()), *self.names.get(category, ())})
            for category in sorted({*kept, *self.names})
        }
        path.write_text(
            json.dumps({"client": version, "names": names}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )


def read_known(path):
    if not path.exists():
        return {"client": None, "names": {}}
    return json.loads(path.read_text(encoding="utf-8"))

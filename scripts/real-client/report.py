"""The report, for people."""


def written(report):
    """The lines of the report."""
    lines = [
        f"Claude Code {report['client']}, {report['arrakis']} of {report['binaries']}",
        f"sessions      {len(report['played'])} played in {report['seconds']:.0f} s"
        + (f", {len(report['notPlayed'])} not played" if report["notPlayed"] else ""),
        f"conservation  {report['hookCalls']} hook calls, {report['transcriptEvents']} events of transcripts, "
        f"{report['conversations']} conversations",
        f"names         {report['names']} seen; {len(report['new'])} new and {len(report['gone'])} gone since "
        f"{report['knownClient']}",
    ]
    for reason in report["notPlayed"]:
        lines.append(f"not played    {reason['session']}: {reason['reason']}")
    if report["goneNotJudged"]:
        lines.append(f"gone names    not judged: {report['goneNotJudged']}")
    for category, names in by("category", report["new"]).items():
        lines += block(f"New in {category}", [f"{new['name']}  {new['example']}" for new in names])
    for category, names in by("category", report["gone"]).items():
        lines += block(f"Gone from {category}", [", ".join(gone["name"] for gone in names)])
    for check, findings in by("check", report["findings"]).items():
        alike = by(likeness, findings)
        told = [tell(findings) for findings in alike.values()]
        lines += block(f"{check[0].upper()}{check[1:]} ({len(findings)})", told[:SHOWN])
        if len(told) > SHOWN:
            lines.append(f"  ... and {len(told) - SHOWN} more: --json has all")
    count = len(report["new"]) + len(report["gone"]) + len(report["findings"])
    lines += [
        "",
        f"{count} findings. Everything is in {report['folder']}" if count else "Nothing new, and all is understood.",
    ]
    return lines


# How many lines one check may take.
SHOWN = 15

# Findings whose examples begin alike, to this number of characters, are told as one.
ALIKE_CHARACTERS = 30


def likeness(finding):
    return finding["text"], finding.get("example", "")[:ALIKE_CHARACTERS]


def by(key, findings):
    """Findings in groups, by a field or by what a function says of them."""
    groups = {}
    for finding in findings:
        groups.setdefault(finding[key] if isinstance(key, str) else key(finding), []).append(finding)
    return groups


def block(title, lines):
    return ["", title, *(f"  {line}" for line in lines)] if lines else []


def tell(alike):
    """One line for findings that are alike: what, an example, how often, and in which sessions."""
    first = alike[0]
    places = list(
        dict.fromkeys(
            " ".join(filter(None, (one["session"], f"({one['view']})" if "view" in one else None))) for one in alike
        )
    )
    where = ", ".join(place for place in places[:PLACES] if place) + (
        f" and {len(places) - PLACES} more" if len(places) > PLACES else ""
    )
    often = f"{len(alike)} times, " if len(alike) > 1 else ""
    return (
        first["text"]
        + (f"  {first['example']}" if "example" in first else "")
        + (f"  [{often}{where}]" if where else "")
    )


# How many sessions are named for findings that are alike.
PLACES = 4

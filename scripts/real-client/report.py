"""The report, for people."""


def written(report):
    """The lines of the report."""
    lines = [
        f"Claude Code {report['client']}, {report['arrakis']} of {report['binaries']}",
        f"sessions      {len(report['played'])} played in {report['seconds']:.0f} s"
        + (f", {len(report['notPlayed'])} not played" if report["notPlayed"] else ""),
        f"conservation  {report['hookCalls']} hook calls, {report['transcriptEvents']} events of transcripts, "
        f"{report['conversations']} conversations",
        f"names         {report['names']} seen; {len(report['new'])} new, {len(report['gone'])} gone since {report['knownClient']}",
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
        lines += block(f"{check[0].upper()}{check[1:]} ({len(findings)})", [told(finding) for finding in findings[:SHOWN]])
        if len(findings) > SHOWN:
            lines.append(f"  ... and {len(findings) - SHOWN} more: --json has all")
    count = len(report["new"]) + len(report["gone"]) + len(report["findings"])
    lines += ["", f"{count} findings. Everything is in {report['folder']}" if count else "Nothing new, and all is understood."]
    return lines


# How many findings of one check are shown.
SHOWN = 12


def by(field, findings):
    groups = {}
    for finding in findings:
        groups.setdefault(finding[field], []).append(finding)
    return groups


def block(title, lines):
    return ["", title, *(f"  {line}" for line in lines)] if lines else []


def told(finding):
    where = " ".join(part for part in (finding["session"], f"({finding['view']})" if "view" in finding else None) if part)
    text = f"{where}: {finding['text']}" if where else finding["text"]
    return f"{text}  {finding['example']}" if "example" in finding else text

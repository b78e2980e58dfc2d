"""Tests of what judges: `python3 -m unittest discover scripts/real-client`. They need neither client nor Arrakis."""

import json
import tempfile
import unittest
from pathlib import Path

import judge
import mock_api
import report
from sessions import COMMAND, UNSENT, Session
from survey import Survey, read_known


class Seen:
    """A stage that has only what the counter has seen."""

    def __init__(self, folder, payloads):
        self.files = []
        for n, payload in enumerate(payloads):
            path = Path(folder) / f"{n}.json"
            path.write_bytes(payload)
            self.files.append((path, payload))

    def payloads(self, _):
        return self.files


def event(payload, event_type="Stop"):
    return {"eventType": event_type, "digest": judge.digest(payload), "payload": json.loads(payload)}


def message(content, **more):
    return {
        "role": "user",
        "origin": "transcript",
        "agentId": None,
        "at": "2026-11-30T00:00:00.000000Z",
        "content": content,
        **more,
    }


def conversation(session_id, *messages):
    return {"sessionId": session_id, "messages": list(messages)}


def checks(findings):
    return [(finding["check"], finding["session"]) for finding in findings]


class Conservation(unittest.TestCase):
    def judged(self, given, stored):
        with tempfile.TemporaryDirectory() as folder:
            return judge.conservation(Seen(folder, given), [Session("one", None)], stored)

    def test_each_payload_once_is_right_and_transcripts_do_not_count(self):
        calls, findings = self.judged(
            [b'{"a":1}\n', b'{"a":1}\n', b'{"b":2}\n'],
            [event(b'{"a":1}'), event(b'{"a":1}'), event(b'{"b":2}'), event(b'{"c":3}', "Transcript")],
        )
        self.assertEqual((calls, findings), (3, []))

    def test_what_is_lost_doubled_changed_or_made_up_is_found(self):
        self.assertIn("stored 0 times", self.judged([b'{"a":1}'], [])[1][0]["text"])
        self.assertIn("stored 2 times", self.judged([b'{"a":1}'], [event(b'{"a":1}')] * 2)[1][0]["text"])
        self.assertIn("other bytes", self.judged([b'{"a":1}'], [event(b'{"a": 1}')])[1][0]["text"])
        self.assertIn("the counter has not seen it", self.judged([], [event(b'{"a":1}')])[1][0]["text"])


class Prompts(unittest.TestCase):
    def setUp(self):
        self.session = Session("one", None)
        self.session.say("First.")
        self.fork = Session("fork", None, continues="one", is_fork=True)
        self.fork.say("Another way.")
        self.ids = {"one": {"s1"}, "fork": {"s2"}}

    def judged(self, *conversations):
        return checks(judge.prompts([self.session, self.fork], self.ids, conversations, "captured"))

    def test_a_fork_may_repeat_the_prompts_of_its_parent_or_not(self):
        first, other = conversation("s1", message("First.")), message("Another way.")
        self.assertEqual(self.judged(first, conversation("s2", message("First."), other)), [])
        self.assertEqual(self.judged(first, conversation("s2", other)), [])

    def test_a_prompt_is_missing_or_doubled(self):
        fork = conversation("s2", message("Another way."))
        self.assertEqual(self.judged(conversation("s1"), fork), [("prompt missing", "one")])
        self.assertEqual(
            self.judged(conversation("s1", message("First."), message("First.")), fork), [("prompt doubled", "one")]
        )
        # That a fork repeats it does not make up for it.
        self.assertEqual(
            self.judged(conversation("s1"), conversation("s2", message("First."), message("Another way."))),
            [("prompt missing", "one")],
        )

    def test_words_of_others_are_found_but_those_of_a_subagents_task_are_none(self):
        fork = conversation("s2", message("Another way."))
        first = message("First.")
        self.assertEqual(
            self.judged(conversation("s1", first, message("<system-reminder>")), fork),
            [("not the person's words", "one")],
        )
        self.assertEqual(self.judged(conversation("s1", first, message("A task.", agentId="a")), fork), [])
        # A prompt of another session is not this one's.
        self.assertEqual(
            self.judged(conversation("s1", first, message("Another way.")), fork), [("not the person's words", "one")]
        )

    def test_what_was_never_sent_is_shown_only_as_that(self):
        self.session.say("Taken back.", fate=UNSENT)
        fork, first = conversation("s2", message("Another way.")), message("First.")
        self.assertEqual(self.judged(conversation("s1", first), fork), [])
        self.assertEqual(self.judged(conversation("s1", first, message("Taken back.", origin="withdrawn")), fork), [])
        self.assertEqual(
            self.judged(conversation("s1", first, message("Taken back.")), fork), [("unsent prompt shown", "one")]
        )

    def test_commands_and_pastes_are_known_in_each_form(self):
        self.session.say("!ls", fate=COMMAND)
        self.session.say("See: a\nb", is_pasted=True)
        pasted = 'See: \n\n<pasted_content id="1">\na\nb\n</pasted_content id="1">'
        own = conversation("s1", message("First."), message("ls"), message(pasted))
        self.assertEqual(self.judged(own, conversation("s2", message("Another way."))), [])


class Times(unittest.TestCase):
    def test_a_time_from_nowhere_is_found_but_not_in_what_was_said(self):
        old = "1970-01-01T00:00:00.000000Z"
        talk = conversation("s1", message(old, at=old), message("2026"))
        talk["toolUses"] = [{"at": old, "parameters": {"since": old}}]
        found = judge.old_times([Session("one", None)], {"one": {"s1"}}, [talk], "captured")
        self.assertEqual(
            [(one["text"], one["times"]) for one in found], [("at messages[].at", 1), ("at toolUses[].at", 1)]
        )


class Understanding(unittest.TestCase):
    def test_unknown_types_come_from_slices_and_reports(self):
        slices = [
            {"eventType": "Transcript", "payload": {"unknown": {"blob": 2}}},
            {"eventType": "Transcript", "payload": {}},
        ]
        found = judge.not_understood(
            slices, {"unknown": {"blob": 1, "shape": 1}}, {"spool": {"transcripts": {"troubles": []}}}
        )
        self.assertEqual([one["text"] for one in found], ["2 lines of the type blob", "1 line of the type shape"])

    def test_an_event_that_nobody_registers_is_found(self):
        found = judge.not_registered(["Stop", "FromTheFuture", "WorktreeCreate"], ["Stop"])
        self.assertEqual(len(found), 1)
        self.assertIn("FromTheFuture", found[0]["text"])


class Names(unittest.TestCase):
    LINE = {"type": "user", "uuid": "u", "origin": {"kind": "human"}, "message": {"content": [{"type": "text"}]}}

    def survey(self, *lines):
        survey = Survey()
        for line in lines:
            survey.add_line(line)
        return survey

    def test_new_and_gone_names_of_types_fields_and_values(self):
        with tempfile.TemporaryDirectory() as folder:
            known = Path(folder) / "known.json"
            self.survey(self.LINE).accept("1", known)
            new, gone = self.survey(self.LINE).compare(read_known(known)["names"])
            self.assertEqual((new, gone), ([], []))
            changed = {**self.LINE, "origin": {"kind": "robot"}, "mood": "x" * 500}
            del changed["uuid"]
            new, gone = self.survey(changed, {"type": "blob"}).compare(read_known(known)["names"])
            self.assertEqual(
                {(one["category"], one["name"]) for one in new},
                {
                    ("fields of lines: user", "mood"),
                    ("values of origin.kind in user lines", "robot"),
                    ("types of lines", "blob"),
                    ("fields of lines: blob", "type"),
                },
            )
            self.assertTrue(all(len(one["example"]) <= 100 for one in new))
            self.assertEqual(
                {(one["category"], one["name"]) for one in gone},
                {("fields of lines: user", "uuid"), ("values of origin.kind in user lines", "human")},
            )

    def test_accepting_keeps_what_was_seen_with_the_same_version_only(self):
        with tempfile.TemporaryDirectory() as folder:
            known = Path(folder) / "known.json"
            self.survey({"type": "a"}).accept("1", known)
            self.survey({"type": "b"}).accept("1", known)
            self.assertEqual(read_known(known)["names"]["types of lines"], ["a", "b"])
            self.survey({"type": "c"}).accept("2", known)
            self.assertEqual(read_known(known)["names"]["types of lines"], ["c"])


class Mock(unittest.TestCase):
    def step(self, *messages):
        return mock_api.next_step({"tools": [{}], "messages": list(messages)}, "/w")

    def test_the_newest_scene_and_the_answers_since_then_decide(self):
        first, other = {"role": "user", "content": "scene=files"}, {
            "role": "user",
            "content": [{"type": "text", "text": "scene=bash"}],
        }
        answer = {"role": "assistant", "content": []}
        self.assertEqual(self.step(first)[1][0]["name"], "Write")
        self.assertEqual(self.step(first, answer)[1][0]["name"], "Read")
        self.assertEqual(self.step(first, answer, other)[1][1]["name"], "Bash")
        self.assertEqual(self.step(other, answer)[1], [mock_api.text("The scene bash is over.")])


class Report(unittest.TestCase):
    def test_findings_that_are_alike_are_one_line(self):
        alike = [judge.finding("gap", name, "something is missing", example="x" * 40 + name) for name in "abcdef"]
        self.assertEqual(report.tell(alike), f"something is missing  {'x' * 40}a  [6 times, a, b, c, d and 2 more]")


if __name__ == "__main__":
    unittest.main()

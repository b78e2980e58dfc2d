"""What a session is, and the list of all of them."""

from dataclasses import dataclass, field

SENT = "sent"
# Submitted, and the model never got it: taken back, or blocked by a hook. It may be shown, but not as something said.
UNSENT = "unsent"
# A command to the client, which Arrakis may show or not, but at most once and as it was typed.
COMMAND = "command"


@dataclass
class Said:
    """A prompt that the session submitted. Texts differ between all sessions, so a text names its prompt."""

    text: str
    fate: str = SENT
    # Whether a part of it was pasted: the client puts tags around that.
    is_pasted: bool = False


@dataclass
class Session:
    """One session: `play(stage, session)` plays it and notes in `said` what a person would have said."""

    name: str
    play: callable
    in_terminal: bool = False
    # The session that this one continues; a fork has an id of its own and the parent's prompts.
    continues: str = None
    is_fork: bool = False
    said: list = field(default_factory=list)

    def say(self, text, fate=SENT, is_pasted=False):
        """Notes a prompt, and returns its text."""
        self.said.append(Said(text, fate, is_pasted))
        return text


ALL = []


def session(name, **more):
    """Puts a function into the list of sessions."""

    def add(play):
        ALL.append(Session(name, play, **more))
        return play

    return add

"""What docs/operations.md quotes, held against what is seen: a quote is a line of the document and of the real output."""

import pathlib
import re

from harness.daemon import eventually

# Beside other booting VMs the first thing to be seen may take minutes.
PATIENCE = 300.0
DOCUMENT = pathlib.Path(__file__).resolve().parents[2] / "docs" / "operations.md"


def words(text):
    """Text as it compares: line breaks and columns do not matter."""
    return " ".join(text.split())


class Story:
    """One story of the document, by its heading."""

    def __init__(self, title):
        self.title = title
        found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
        assert found, f"{DOCUMENT.name} has no story «{title}»"
        self._text = words(found.group(1))

    def sees(self, look, *quotes, seconds=PATIENCE):
        """Until the text that look() returns has every quote; each must be in the story too. The text."""
        unsaid = [quote for quote in quotes if words(quote) not in self._text]
        assert not unsaid, f"the story «{self.title}» does not say {unsaid}"
        latest = ""

        def seen():
            nonlocal latest
            latest = look()
            compared = words(latest)
            return all(words(quote) in compared for quote in quotes)

        def vain():
            missing = [quote for quote in quotes if words(quote) not in words(latest)]
            return f"{missing} in\n{latest}"
        eventually(seen, vain, seconds, interval=0.5)
        return latest


def events(space, name):
    """A line for each event of an object, without age and source: "Warning BackOff Back-off restarting ..."."""
    found = space.list("events", "--field-selector", f"involvedObject.name={name}")
    return "\n".join(f"{event['type']} {event['reason']} {event['message']}" for event in found)


def describe(space, pod):
    """kubectl describe, and the events as above."""
    return space.kubectl("describe", "pod", pod).stdout + "\n" + events(space, pod)


def describe_container(space, pod, name):
    """The container's part of kubectl describe."""
    text = space.kubectl("describe", "pod", pod).stdout
    found = re.search(rf"^  {re.escape(name)}:\n(.*?)(?=^  \S+:\n|^\S)", text, re.MULTILINE | re.DOTALL)
    return found.group(1) if found else ""

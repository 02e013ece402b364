"""docs/troubleshooting.md: each message that it quotes is one that the code can say."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest
from running import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
MESSAGES = re.findall(r"^\| `([^`]+)` \|", PAGE, re.MULTILINE)
OF_OTHERS = {"operator torchvision::nms does not exist"}  # torch says it
ANYTHING = "\0"  # stands for what a message is filled with
MOST_FILLED = 200  # characters
LEAST_OWN = 0.7  # of a quoted message's characters that the code's string must have itself


def texts() -> Iterator[str]:
    """Every string of our code, with ANYTHING where a value goes; adjoining literals are one string already."""
    folders = ("training", "data", "models", "options", "util", "evaluation", "preprocessing", "simulation", "scripts")
    files = [path for folder in (*folders, "programs") for path in (ROOT / folder).rglob("*.py")]
    for path in [*files, *ROOT.glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else ANYTHING for part in node.values)
                yield "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


TEXTS = {" ".join(text.split()) for text in texts()}


def says(message: str) -> bool:
    """Whether a string of the code is this message, `…` or example values in it standing for what differs.

    A message that ends in `…` goes on. The string's own words must be most of the message.
    """
    goes_on = message.endswith("…")
    own = len(message.replace("…", ""))
    for text in TEXTS:
        fixed = text.replace(ANYTHING, "")
        if len(fixed) < LEAST_OWN * own:
            continue
        if goes_on and text.startswith(message.rstrip("…")):
            return True
        pattern = re.escape(text).replace(re.escape(ANYTHING), f".{{0,{MOST_FILLED}}}")
        if re.fullmatch(pattern, message):
            return True
    return False


def test_there_are_messages() -> None:
    assert len(MESSAGES) > 35 and len(set(MESSAGES)) == len(MESSAGES)


@pytest.mark.parametrize("message", [message for message in MESSAGES if message not in OF_OTHERS])
def test_the_code_says_it(message: str) -> None:
    assert says(message)


def test_a_message_that_nobody_says_is_found() -> None:
    assert not says("--name …: the run … is already there; use --force")
    assert not says("a process that loads slices ran out of memory; lower --workers or --batch_size")

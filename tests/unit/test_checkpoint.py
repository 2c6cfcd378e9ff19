"""A checkpoint is read back whole or not at all, of whatever kind of run; also one that an earlier release wrote."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.checkpoint import Checkpoint, Form
from pipeline.cli.republish_marks import MARKS
from pipeline.cli.sending import PROGRESS, Progress
from pipeline.services.republish import Marks

FACTS = ["target", "question"]
PROGRESSED = Progress(40, 39, 999, 3)
MARKED = Marks({"0/3": ("one", 7)}, done={"1/3"}, examined=20, published=10, failed=1)
WITHIN_A_PAGE = Marks({"0/3": ("one", 7)}, {"0/3": {("one", 8), ("one", 9), ("two", 1)}}, {"1/3"}, 20, 10, 1)
KINDS: dict[str, tuple[Form[Any], Any]] = {"send": (PROGRESS, PROGRESSED), "republish": (MARKS, MARKED)}
# Of these facts, as release 1.0.0 names and writes them.
WRITTEN = {
    "send": (
        "50274dccb1fe8f153ea481c57d6c172f011f4164c392347f6f97dd321d57051c",
        '"position": 40, "sent": 39, "sent_bytes": 999, "days": 3',
    ),
    "republish": (
        "6989c4d184c292dd2092073fc939b9816a2e178b6ea07461976bd9e7e96ab997",
        '"places": {"0/3": ["one", 7]}, "done": ["1/3"], "examined": 20, "published": 10, "failed": 1',
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_release_wrote_is_found_and_read_and_written_so_again(tmp_path: Path, kind: str) -> None:
    form, reached = KINDS[kind]
    key, content = WRITTEN[kind]
    text = f'{{"version": 1, "key": "{key}", {content}}}'
    (tmp_path / f"{key[:32]}.json").write_text(text)
    checkpoint = Checkpoint.of(form, tmp_path, FACTS)
    assert checkpoint.read() == reached
    checkpoint.write(reached)
    assert checkpoint.path.read_text() == text
    assert list(tmp_path.iterdir()) == [checkpoint.path]


@pytest.mark.parametrize("kind", [*KINDS, "republish, within a page"])
def test_every_cut_of_a_checkpoint_is_refused_or_whole(tmp_path: Path, kind: str) -> None:
    form, reached = KINDS.get(kind, (MARKS, WITHIN_A_PAGE))
    checkpoint = Checkpoint.of(form, tmp_path, FACTS)
    checkpoint.write(reached)
    whole = checkpoint.path.read_bytes()
    for size in range(len(whole)):
        checkpoint.path.write_bytes(whole[:size])
        assert checkpoint.read() is None
    checkpoint.path.write_bytes(whole)
    assert checkpoint.read() == reached


DAMAGES: dict[str, Callable[[str], str]] = {
    "torn": lambda text: text[:-20],
    "empty": lambda text: "",
    "of another version": lambda text: text.replace('"version": 1', '"version": 2'),
    "counted below 0": lambda text: text.replace('"published": ', '"published": -'),
    "a part that is a number": lambda text: text.replace('"done": [', '"done": [1, '),
    "half a place": lambda text: json.dumps(json.loads(text) | {"places": {"0/3": ["a"]}}),
    "what is settled, of no form": lambda text: json.dumps(json.loads(text) | {"settled": {"0/3": ["one"]}}),
    "what is settled, half a range": lambda text: json.dumps(json.loads(text) | {"settled": {"0/3": {"one": [[1]]}}}),
    "what is settled, in words": lambda text: json.dumps(json.loads(text) | {"settled": {"0/3": {"one": [["1", "2"]]}}}),
    "of another question": lambda text: json.dumps(json.loads(text) | {"key": "another"}),
    "a list": lambda text: "[]",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_marks_that_can_not_be_trusted_are_none(tmp_path: Path, damage: str) -> None:
    at = Checkpoint.of(MARKS, tmp_path, FACTS)
    at.write(MARKED)
    assert at.read() == MARKED
    at.path.write_text(DAMAGES[damage](at.path.read_text()))
    assert at.read() is None


def test_another_question_or_kind_of_run_has_another_checkpoint(tmp_path: Path) -> None:
    paths = {
        Checkpoint.of(MARKS, tmp_path, FACTS).path,
        Checkpoint.of(PROGRESS, tmp_path, FACTS).path,
        Checkpoint.of(MARKS, tmp_path, ["target", "another question"]).path,
    }
    assert len(paths) == 3

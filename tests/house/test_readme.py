"""README and ARCHITECTURE against the code: what they name exists, what exists is named."""

import re
from datetime import UTC, datetime
from pathlib import Path

import typer.main
from pydantic import TypeAdapter

from infra.schemas.openapi import GATEWAY_CODES
from pipeline.api.routes import ROUTES, Read
from pipeline.cli.main import app
from pipeline.domain.authority import Entry, Sender
from pipeline.domain.base import read
from pipeline.domain.candidates import CandidateMessage, Received
from pipeline.domain.canonical import parse_document
from pipeline.domain.commands import COMMAND_TYPES
from pipeline.domain.errors import HTTP_MEANINGS, MEANINGS, Code, HttpCode
from pipeline.domain.intake import read_intake
from pipeline.domain.transitions import TRANSITIONS, EventType

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def section(title: str) -> str:
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_the_first_code_block_is_the_smallest_valid_candidate() -> None:
    first = re.findall(r"```\w*\n(.*?)```", README, re.DOTALL)[0]
    assert first == blocks("json")[0]
    document = parse_document(first)
    received = Received(Sender("AROAEXAMPLE"), "m1", datetime(2026, 1, 1, tzinfo=UTC))
    candidate = read_intake(document, received).signals[0].candidate
    assert candidate is not None
    assert candidate.dedup_key == "checkout-5xx"
    required = {field.alias or name for name, field in CandidateMessage.model_fields.items() if field.is_required()}
    assert set(document) == required


def test_every_field_of_a_candidate_is_in_the_table() -> None:
    named = set(re.findall(r"^\| `(\w+)` \|", section("Report trouble"), re.MULTILINE))
    fields = {str(field.alias or name) for name, field in CandidateMessage.model_fields.items()}
    assert named == fields - {"schemaVersion"}


def test_every_transition_is_in_the_table() -> None:
    rows = re.findall(r"^\| ([A-Z]+) \| ([A-Z]+) \|.*\| (.*) \|$", section("States"), re.MULTILINE)
    assert [(source, target) for source, target, _ in rows] == [(row.source, row.target) for row in TRANSITIONS]
    for (_, _, who), row in zip(rows, TRANSITIONS, strict=True):
        assert {word for word in ("HUMAN", "SYSTEM") if word in who} == set(row.authorities)
        assert ("reason" in who) is row.needs_reason


def test_every_refusal_is_in_the_table_under_its_status() -> None:
    named: dict[str, int] = {}
    for codes, status in re.findall(r"^\| (`[^|]+) \| (\d{3}) \|", section("When opx says no"), re.MULTILINE):
        named |= {code: int(status) for code in re.findall(r"`([a-z-]+)`", codes)}
    expected = {code.value: MEANINGS[code].status for code in Code}
    expected |= {code.value: HTTP_MEANINGS[code].status for code in HttpCode}
    # The gateway's own that a caller can do something about; the others are sizes and failures, named as they are.
    expected |= {"not-signed": 403, "forbidden": 403, "throttled": 429}
    assert named == expected
    assert {"not-signed", "forbidden", "throttled"} <= GATEWAY_CODES.keys()


def test_every_route_and_its_parameters_are_in_the_table() -> None:
    rows = re.findall(r"^\| (`(?:GET|POST|PATCH) [^|]+) \| (.*) \|$", section("Act on incidents"), re.MULTILINE)
    named: set[tuple[str, str]] = set()
    for paths, text in rows:
        method, _, first = re.findall(r"`([^`]+)`", paths)[0].partition(" ")
        others = re.findall(r"`(/[^` ]+)`", paths)
        base = first.rpartition("/")[0]
        found = {(method, first), *((method, base + other) for other in others)}
        named |= found
        for route in ROUTES:
            if (route.method, route.path) in found and isinstance(route.does, Read):
                assert set(route.query) <= set(re.findall(r"`(\w+)`", text)), route.name
    assert named == {(route.method, route.path) for route in ROUTES}


def test_from_nothing_to_a_resolved_incident_are_five_commands() -> None:
    """What they do is seen in tests/e2e/test_readme_walk.py, which runs them as they stand."""
    first = re.findall(r"```sh\n(.*?)```", section("Act on incidents"), re.DOTALL)[0]
    assert len(first.splitlines()) == 5
    assert first.startswith("make up")


def test_every_command_and_event_type_is_named() -> None:
    assert set(re.findall(r"^\| `([a-z-]+)` \|", section("Act on incidents"), re.MULTILINE)) == COMMAND_TYPES
    assert all(kind.value in section("Subscribe") for kind in EventType)


def test_every_command_of_the_terminal_is_named_and_no_other() -> None:
    group = typer.main.get_command(app)
    existing = set(group.commands)  # type: ignore[attr-defined] # the app is a group
    assert set(re.findall(r"`opx (\w+)`", section("The command line"))) == existing


def test_the_registry_entry_shown_is_valid() -> None:
    shown = next(block for block in blocks("json") if "principals" in block)
    assert read(TypeAdapter(Entry), parse_document(shown)).services == ("checkout", "checkout-*")


def test_every_file_that_is_named_exists() -> None:
    names = re.findall(r"`((?:tests|pipeline|consumers|infra)/[\w/.*]+)`", README + ARCHITECTURE)
    assert len(names) > 10
    assert [name for name in names if not list(ROOT.glob(name))] == []

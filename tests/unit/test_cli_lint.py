"""`opx lint` refuses what the door refuses, by line, and sends nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline.cli.main import app

GOOD = {"type": "candidate", "service": "checkout", "severity": "SEV2", "title": "x", "dedupKey": "k"}
ALARMS = Path(__file__).parents[1] / "data" / "cloudwatch_alarms.jsonl"


def lint(tmp_path: Path, *bodies: Any, options: tuple[str, ...] = ()) -> tuple[int, list[dict[str, Any]], dict[str, Any]]:
    path = tmp_path / "messages.jsonl"
    path.write_text("\n".join(body if isinstance(body, str) else json.dumps(body) for body in bodies))
    result = CliRunner().invoke(app, ["lint", str(path), *options])
    *problems, summary = [json.loads(line) for line in result.stdout.splitlines()]
    return result.exit_code, problems, summary


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ("not json", "malformed-json", None),
        (GOOD | {"severity": "SEV9"}, "invalid-field", "severity"),
        (GOOD | {"extra": 1}, "unknown-field", "extra"),
        (GOOD | {"policyId": "nope"}, "policy-unknown", "policyId"),
        (GOOD | {"observedAt": "2099-01-01T00:00:00Z"}, "observed-in-future", "observedAt"),
        ({"type": "detection", "service": "s", "severity": "SEV2", "signalType": "x"}, "rule-unknown", "signalType"),
        (GOOD | {"metadata": {"x": "y" * 5000}}, "invalid-field", "metadata"),
        (GOOD | {"title": "x" * 300_000}, "too-large", "body"),
        ({"type": "dismiss"}, "unknown-type", "type"),
    ],
)
def test_what_the_door_refuses_is_told_by_line_and_field(tmp_path: Path, body: Any, code: str, field: str | None) -> None:
    exit_code, (problem,), summary = lint(tmp_path, GOOD, body)
    assert (exit_code, problem["line"], problem["code"], problem.get("field")) == (1, 2, code, field)
    assert problem["next"]
    assert (summary["messages"], summary["refused"]) == (2, 1)


def test_what_is_fine_is_said_to_be_fine_with_what_becomes_of_it(tmp_path: Path) -> None:
    exit_code, problems, summary = lint(tmp_path, GOOD, GOOD | {"authority": "HUMAN"})
    assert (exit_code, problems, summary["becomes"]) == (0, [], {"judged under policy default": 2})


def test_a_key_that_stands_for_two_messages_is_refused_and_a_copy_is_not(tmp_path: Path) -> None:
    keyed = GOOD | {"idempotencyKey": "a"}
    exit_code, (problem,), summary = lint(tmp_path, keyed, keyed, keyed | {"title": "y"})
    assert (exit_code, problem["line"], problem["code"]) == (1, 3, "key-reused")
    assert summary["becomes"]["copies of an earlier message"] == 1


def test_who_would_send_is_asked_of_the_registry(tmp_path: Path) -> None:
    _, (problem,), _ = lint(tmp_path, GOOD, options=("--as", "AROAEXAMPLEID"))
    assert problem["code"] == "principal-unknown"
    exit_code, problems, _ = lint(tmp_path, GOOD, options=("--as", "000000000000", "--stage", "local"))
    assert (exit_code, problems) == (0, [])


def test_native_alarms_and_a_message_over_several_lines_are_read(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["lint", str(ALARMS), "--as", "queue:alarms"])
    assert (result.exit_code, json.loads(result.stdout)["refused"]) == (0, 0)
    exit_code, problems, summary = lint(tmp_path, json.dumps(GOOD, indent=2))
    assert (exit_code, problems, summary["messages"]) == (0, [], 1)


def test_an_own_rule_takes_a_detection(tmp_path: Path) -> None:
    (tmp_path / "own" / "rules").mkdir(parents=True)
    rule = {"ruleId": "r", "version": 1, "windowS": 60, "threshold": {"detections": 2}, "confidence": 1, "title": "t"}
    (tmp_path / "own" / "rules" / "r.v1.json").write_text(json.dumps(rule))
    body = {"type": "detection", "service": "s", "severity": "SEV2", "signalType": "x"}
    exit_code, _, summary = lint(tmp_path, body, options=("--config", str(tmp_path / "own")))
    assert (exit_code, summary["becomes"]) == (0, {"counted by rule r v1": 1})

"""`opx rules`: a rule tried on messages counts as the door would, and gives the same whatever their order."""

import json
import random
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from pipeline.cli.main import app

ALARMS = Path(__file__).parents[1] / "data" / "cloudwatch_alarms.jsonl"
RULE: dict[str, Any] = {
    "ruleId": "flapping",
    "version": 1,
    "groupBy": ["service", "source"],
    "windowS": 21600,
    "threshold": {"detections": 3},
    "confidence": 0.9,
    "title": "{source} flaps",
}


def run(*arguments: str) -> tuple[int, list[dict[str, Any]]]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, [json.loads(line) for line in result.stdout.splitlines()]


def written(path: Path, document: Any) -> str:
    path.write_text(json.dumps(document))
    return str(path)


def test_the_recorded_alarms_reach_three_in_six_hours_for_ledger_fleet_and_search_alone(tmp_path: Path) -> None:
    rule = written(tmp_path / "flapping.v1.json", RULE)
    code, (*windows, summary) = run("rules", "try", rule, "--against", str(ALARMS))
    assert code == 0
    assert {one["service"] for one in windows if one["reached"]} == {"ledger", "fleet", "search"}
    assert {one["service"] for one in windows if "opensAt" in one} == {"ledger", "fleet", "search"}
    assert (summary["windows"], summary["reached"], summary["opens"]) == (68, 14, 3)
    assert (summary["detections"], summary["recoveries"], summary["unmatched"]) == (116, 114, 0)


def test_order_and_copies_change_nothing(tmp_path: Path) -> None:
    seed = 7
    rule = written(tmp_path / "flapping.v1.json", RULE)
    lines = ALARMS.read_text().splitlines() * 2
    random.Random(seed).shuffle(lines)
    (tmp_path / "shuffled.jsonl").write_text("\n".join(lines))
    _, (*expected, _) = run("rules", "try", rule, "--against", str(ALARMS))
    _, (*found, summary) = run("rules", "try", rule, "--against", str(tmp_path / "shuffled.jsonl"))
    assert found == expected, f"seed {seed}"
    assert summary["copies"] == 116


def test_the_gate_is_asked_under_the_policy_that_is_named(tmp_path: Path) -> None:
    rule = written(tmp_path / "flapping.v1.json", RULE)
    policy = written(tmp_path / "p.v1.json", {"policyId": "p", "version": 1, "allowedSeverities": ["SEV1"]})
    code, (*windows, summary) = run("rules", "try", rule, "--against", str(ALARMS), "--policy", policy)
    assert (code, summary["opens"]) == (0, 0)
    assert {one["gate"] for one in windows if one["reached"]} == {"DEFER: severity"}


def test_what_a_rule_does_not_match_or_opx_would_refuse_is_counted(tmp_path: Path) -> None:
    rule = written(tmp_path / "flapping.v1.json", RULE | {"match": {"services": ["ledger"]}})
    bodies = [
        {"type": "detection", "service": "other", "signalType": "x", "severity": "SEV2",
         "observedAt": "2026-01-31T03:00:00Z"},
        {"type": "detection", "service": "ledger", "signalType": "x", "severity": "SEV2"},
        {"type": "candidate", "service": "ledger", "severity": "SEV2", "title": "t", "dedupKey": "k",
         "observedAt": "2026-01-31T03:00:00Z"},
    ]  # fmt: skip
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, bodies)))
    code, (summary,) = run("rules", "try", rule, "--against", str(tmp_path / "m.jsonl"))
    assert code == 0
    assert [summary[name] for name in ("unmatched", "unread", "candidates")] == [1, 1, 1]


def test_a_wrong_rule_is_refused_with_its_field(tmp_path: Path) -> None:
    rule = written(tmp_path / "flapping.v1.json", RULE | {"groupBy": ["sevice"]})
    result = CliRunner().invoke(app, ["rules", "try", rule, "--against", str(ALARMS)])
    assert result.exit_code == 1
    assert "groupBy" in result.output


def test_the_list_shows_ones_own_rules(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    written(tmp_path / "rules" / "flapping.v1.json", RULE)
    code, found = run("rules", "list", "--config", str(tmp_path))
    assert code == 0
    assert [(one["ruleId"], one["origin"], one["inForce"]) for one in found if one["ruleId"] == "flapping"] == [
        ("flapping", "own", True)
    ]

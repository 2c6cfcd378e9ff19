"""Metrics, alarms, runbooks and README against each other: what one names, the others have."""

import ast
import re
from pathlib import Path

from pipeline.runtime.metrics import MEASURES, Metric, Unit
from tests.house.template import ROOT, load
from tests.support.alarms import alarms, runbook_of
from tests.support.sources import dotted, modules, tree

RUNBOOKS = ROOT / "infra" / "runbooks"
README = (ROOT / "README.md").read_text("utf-8")
TABLE = "pipeline/runtime/metrics.py"
CODE = [name for name in modules("pipeline", "consumers") if name != TABLE]


def watching() -> str:
    return README.split("\n## Watch it\n")[1].split("\n## ")[0]


def test_every_metric_says_what_it_counts_in_which_unit_and_who_writes_it() -> None:
    assert list(MEASURES) == list(Metric)
    for metric, measure in MEASURES.items():
        assert metric.value == metric.name.title().replace("_", ""), metric
        assert measure.means
        assert measure.doors
        assert measure.unit is (Unit.MILLISECONDS if metric.value.endswith(("Lag", "Latency")) else Unit.COUNT)


def test_every_metric_is_written_somewhere_and_nothing_else_is() -> None:
    """A health figure has its metric's name in the service that sums it up, since services know nothing of metrics."""
    written: set[str] = set()
    for name in CODE:
        for node in ast.walk(tree(name)):
            if isinstance(node, ast.Attribute) and dotted(node).startswith("Metric."):
                written.add(Metric[node.attr].value)
            if isinstance(node, ast.Constant) and name == "pipeline/services/health.py" and node.value in set(Metric):
                written.add(str(node.value))
    assert written == {metric.value for metric in Metric}
    calls = [
        f"{name}:{node.lineno}"
        for name in CODE
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Call) and dotted(node.func).endswith(("add_metric", "put_metric_data", "single_metric"))
    ]
    assert [call.partition(":")[0] for call in calls] == ["pipeline/runtime/telemetry.py"], "there is one way out"


def test_every_metric_is_in_the_readme_with_what_it_means() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|$", watching(), re.MULTILINE))
    assert rows == {metric.value: measure.means for metric, measure in MEASURES.items()}


def test_every_alarm_is_in_the_readme_with_its_threshold_and_its_runbook() -> None:
    rows = re.findall(r"^\| \[(\w+)\]\(infra/runbooks/([\w-]+)\.md\) \| [^|]+ \| ([^|]+) \|$", watching(), re.MULTILINE)
    parameters = load()["Parameters"]
    expected = [
        (name.removesuffix("Alarm"), runbook_of(alarm), str(parameters[f"{name.removesuffix('Alarm')}Threshold"]["Default"]))
        for name, alarm in alarms().items()
    ]
    assert sorted(rows) == sorted(expected)


def test_every_alarm_has_a_runbook_in_the_index_and_every_runbook_an_alarm() -> None:
    expected = sorted(runbook_of(alarm) for alarm in alarms().values())
    index = (RUNBOOKS / "README.md").read_text("utf-8")
    assert sorted(re.findall(r"^\| \[([\w-]+)\]\(\1\.md\) \|", index, re.MULTILINE)) == expected
    others = {"README", *re.findall(r"^- \[([\w-]+)\]\(\1\.md\)", index, re.MULTILINE)}
    assert sorted(path.stem for path in RUNBOOKS.glob("*.md") if path.stem not in others) == expected


def pages() -> dict[str, str]:
    return {path.stem: path.read_text("utf-8") for path in sorted(RUNBOOKS.glob("*.md"))}


def test_a_runbook_says_what_is_seen_what_it_means_what_to_run_and_when_to_ignore_it() -> None:
    for alarm in alarms().values():
        page = pages()[runbook_of(alarm)]
        parts = [page.find(f"\n**{part}") for part in ("You see**", "It means**", "Run**", "You may ignore it**")]
        assert -1 < parts[0] < parts[1] < parts[2] < parts[3], runbook_of(alarm)
        assert f"`{alarm.properties['AlarmName']}`" in page
        assert "```sh" in page[parts[2] : parts[3]]
        assert len(page.splitlines()) <= 50, f"{runbook_of(alarm)}: too long for three in the morning"


def test_every_link_of_a_runbook_leads_somewhere() -> None:
    links = [(name, link) for name, page in pages().items() for link in re.findall(r"\]\(([^)]+)\)", page)]
    assert len(links) > 20
    assert [(name, link) for name, link in links if not (RUNBOOKS / Path(link)).is_file()] == []

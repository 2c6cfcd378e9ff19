"""infra/runbooks/restore.md, run as it stands: an event is damaged, and comes back from a table restored beside.

As far as the engine goes: it restores what is there now, whatever the moment asked for, so the restoring comes before the
damage; and backups of deleted tables it does not make.
"""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from botocore import xform_name

from pipeline.local.paths import PROJECT_ROOT
from pipeline.runtime.metrics import Metric
from tests.e2e.test_alarm_causes import Drill, emptied
from tests.support.engine_cli import calling, declared
from tests.support.stack import Stack

pytestmark = pytest.mark.engine
PAGE = (PROJECT_ROOT / "infra" / "runbooks" / "restore.md").read_text("utf-8")
RESTORED = ("restored-incidents", "restored-incident-events", "restored-idempotency")


def block(begins: str) -> list[str]:
    """Return the commands of the first block behind a text."""
    found = re.search(r"```sh\n(.*?)```", PAGE.split(begins, 1)[1], re.DOTALL)
    assert found is not None
    return found[1].splitlines()


class Terminal:
    """Runs a runbook's lines: `opx` as it is, `aws` as botocore calls; ids are put in where the page says ID."""

    def __init__(self, stack: Stack, folder: Path, identity: str) -> None:
        self.stack = stack
        self.opx = calling(stack)
        self.folder = folder
        self.identity = identity

    def run(self, line: str) -> Any:
        line, _, file = line.partition(" > ")
        program, *words = shlex.split(line.replace('"ID"', f'"{self.identity}"').replace(" ID", f" {self.identity}"))
        if program == "opx":
            return self.opx(*words)
        service, operation, *rest = words
        options = dict(zip(rest[::2], rest[1::2], strict=True))
        query = options.pop("--query", None)
        answer = self._call(service, operation, options)
        if file:
            (self.folder / file).write_text(json.dumps(answer[query] if query else answer), encoding="utf-8")
        return answer

    def _call(self, service: str, operation: str, options: dict[str, str]) -> Any:
        client = self.stack.client(service)
        model = client.meta.service_model
        (name,) = [name for name in model.operation_names if xform_name(name, "-") == operation]
        shapes = model.operation_model(name).input_shape.members
        arguments: dict[str, Any] = {}
        for member, shape in shapes.items():
            text = options.pop(f"--{xform_name(member, '-')}", None)
            if text is not None:
                content = (self.folder / text[7:]).read_text("utf-8") if text.startswith("file://") else text
                arguments[member] = json.loads(content) if shape.type_name in ("map", "structure") else content
        assert options == {}
        return getattr(client, xform_name(name))(**arguments)


def test_a_damaged_event_comes_back_from_a_restored_table_as_the_runbook_says(stack: Stack, tmp_path: Path) -> None:
    drill = Drill(stack)
    dynamodb, events = stack.client("dynamodb"), stack.outputs["EventsTableName"]
    identity = declared(calling(stack), "restored")
    assert calling(stack)("note", identity, "what will be damaged")[0] == 0
    assert calling(stack)("mitigate", identity)[0] == 0
    terminal = Terminal(stack, tmp_path, identity)
    restoring, mending = block("**Events or receipts are named.**"), block("Then put back what is named")
    try:
        for line in restoring[:-2]:
            terminal.run(line)
        assert terminal.run(restoring[-2])["Table"]["TableStatus"] == "ACTIVE"
        with emptied(drill, "FanoutFailuresQueueUrl"):
            key = {"incidentId": {"S": identity}, "sequence": {"N": "3"}}
            whole = dynamodb.get_item(TableName=events, Key=key)["Item"]
            dynamodb.put_item(TableName=events, Item=whole | {"timestamp": {"S": "2026-01-31T03:00:00.000000Z"}})
            code, named, _ = terminal.run("opx replay verify ID")
            assert code == 1
            assert [one["divergence"]["kind"] for one in named if "divergence" in one] == ["changed"]
            assert terminal.run(f"{restoring[-1]} ID")[0] == 0
            for line in mending[:-1]:
                terminal.run(line)
            assert dynamodb.get_item(TableName=events, Key=key)["Item"] == whole
            assert terminal.run(mending[-1])[0] == 0
            drill.logged("fanout", Metric.CORRUPTION, 2)
    finally:
        for name in RESTORED:
            dynamodb.delete_table(TableName=name)


def test_rows_that_are_gone_are_written_again_without_any_restore(stack: Stack, tmp_path: Path) -> None:
    identity = declared(calling(stack), "rebuilt")
    dynamodb, table = stack.client("dynamodb"), stack.outputs["IncidentsTableName"]
    key = {"pk": {"S": identity}}
    row = dynamodb.get_item(TableName=table, Key=key)["Item"]
    dynamodb.delete_item(TableName=table, Key=key)
    terminal = Terminal(stack, tmp_path, identity)
    trying, writing = block("**Only rows or pointers are named**")
    assert terminal.run(f"{trying.replace('--everything', '')} ID")[0] in (0, 1)
    assert "Item" not in dynamodb.get_item(TableName=table, Key=key)
    assert terminal.run(f"{writing.replace('--everything', '')} ID")[0] == 0
    assert dynamodb.get_item(TableName=table, Key=key, ConsistentRead=True)["Item"] == row

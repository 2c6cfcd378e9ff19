"""Every command in a runbook is one that exists, with options that exist: at three in the morning nobody should find out."""

import re
import shlex
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import typer
import typer.main
from botocore import xform_name
from botocore.exceptions import UnknownServiceError

from pipeline.api.routes import ROUTES
from pipeline.cli.main import app, hoisted
from pipeline.domain.commands import COMMAND_TYPES
from pipeline.domain.errors import Code, Corrupt, Unavailable
from pipeline.services.fanout import CORRUPTION
from tests.house.template import ROOT, load, of_type, resolve

RUNBOOKS = sorted((ROOT / "infra" / "runbooks").glob("*.md"))
# What the AWS CLI adds of its own: the options of `aws logs tail`, and where `aws lambda invoke` puts the answer.
TAIL = {"--since", "--follow", "--format", "--filter-pattern", "--log-stream-names"}
WRITERS = ("telemetry", "telemetry_scheduled")
GLOBAL = {"--query", "--output"}
OPX: Any = typer.main.get_command(app)
USAGE: Any = typer.BadParameter.__base__
AWS = botocore.session.Session()


def commands(page: str) -> list[tuple[str, bool]]:
    """Return the commands in a page: those of its code blocks, whole, and those its sentences name."""
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    named = re.findall(r"(?<!`)`((?:opx|aws) [^`]+)`(?!`)", page)
    return [(line, True) for block in blocks for line in block.splitlines()] + [
        (" ".join(code.split()), False) for code in named
    ]


def check_opx(words: list[str], *, whole: bool) -> None:
    """Parse a command line as opx would, all the way, and run nothing. Raises a UsageError."""
    context, command, rest = None, OPX, hoisted(words)
    while hasattr(command, "resolve_command"):
        context = command.make_context(command.name or "opx", rest, parent=context)
        _, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        if not (rest or whole):
            return
    command.make_context(command.name, rest, parent=context)


def check_aws(words: list[str]) -> None:
    """Assert that a service has such an operation, and that the operation has such parameters."""
    service, operation, *rest = words
    options = {word for word in rest if word.startswith("--")}
    if (service, operation) == ("logs", "tail"):
        assert options <= TAIL
        assert rest[0].startswith(("/aws/lambda/opx-", "/aws/apigateway/opx-"))
        return
    model = AWS.get_service_model(service)
    names = {xform_name(name, "-"): name for name in model.operation_names}
    assert operation in names, f"aws {service} has no {operation}"
    shape = model.operation_model(names[operation]).input_shape
    members = {xform_name(name, "-") for name in (shape.members if shape else ())}
    assert {option.removeprefix("--").removeprefix("no-") for option in options - GLOBAL} <= members, words


def check(line: str, *, whole: bool = True) -> None:
    program, *words = shlex.split(line, comments=True)
    if program == "export":
        assert all(re.fullmatch(r"(OPX|AWS)_[A-Z]+=[\w-]+", word) for word in words), line
    elif program == "opx":
        check_opx(words, whole=whole)
    else:
        assert program == "aws", line
        check_aws(words)


@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.stem)
def test_every_command_of_a_runbook_exists(page: Path) -> None:
    found = commands(page.read_text("utf-8"))
    assert found
    for line, whole in found:
        check(line, whole=whole)


@pytest.mark.parametrize(
    "line",
    [
        "opx queues list",
        "opx queue list --codes x",
        "opx queue redrive",
        "opx resolve --reasons x",
        "aws lamda list-functions",
        "aws lambda list-function",
        "aws lambda get-function --function opx-api",
        "aws logs tail /aws/lambda/opx-api --sinc 5m",
        "curl localhost",
    ],
)
def test_a_command_that_does_not_exist_is_found(line: str) -> None:
    with pytest.raises((USAGE, AssertionError, UnknownServiceError)):
        check(line)


def test_runbooks_name_functions_queues_and_rules_that_the_template_makes() -> None:
    parts = resolve(load(), "prod")
    names = {
        str(value) for body in parts["Resources"].values() for key, value in body["Properties"].items() if "Name" in key
    }
    names |= {"opx-alarm-", "opx-retention", "opx-health", *(name.rpartition("/")[2] for name in names)}
    text = "\n".join(path.read_text("utf-8") for path in RUNBOOKS)
    assert {name for name in re.findall(r"\bopx-[a-z-]+", text) if name not in names} == set()


def test_a_restore_stops_everything_that_writes_the_tables_and_lets_it_go_on() -> None:
    """Whoever may write an incident's row: each is named where a table is brought back, with its mapping, rule or limit."""
    parts = resolve(load(), "prod", {"ArchiveAfterDays": "90"})
    writers = {
        properties["FunctionName"]
        for _, properties in of_type(parts, "AWS::Serverless::Function")
        if "OPX_IDEMPOTENCY_TABLE" in properties["Environment"]["Variables"]
    }
    page = (
        next(path for path in RUNBOOKS if path.stem == "restore")
        .read_text("utf-8")
        .partition("**A whole table is gone.**")[2]
    )
    stopped = {
        *re.findall(r"list-event-source-mappings --function-name ([\w-]+):live", page),
        *re.findall(r"disable-rule --name ([\w-]+)", page),
        *re.findall(r"put-function-concurrency --function-name ([\w-]+)", page),
    }
    assert stopped == writers == {"opx-candidates", "opx-commands", "opx-api", "opx-retention"}
    assert set(re.findall(r"enable-rule --name ([\w-]+)|delete-function-concurrency --function-name ([\w-]+)", page)) >= {
        ("opx-retention", ""),
        ("", "opx-api"),
    }


def test_a_filter_of_a_runbook_asks_for_what_log_lines_hold() -> None:
    text = "\n".join(path.read_text("utf-8") for path in RUNBOOKS)
    asked = set(re.findall(r"\$\.(\w+) !?[=><]+ (?:\"([\w-]+)\"|\d+)", text))
    written = "\n".join((ROOT / "pipeline" / "runtime" / f"{name}.py").read_text("utf-8") for name in WRITERS)
    fields = {*re.findall(r'"(\w+)":? ?[=:\],]', written), *re.findall(r'line\["(\w+)"\]', written), "level", "message"}
    assert {field for field, _ in asked} <= fields
    values = {route.name for route in ROUTES} | COMMAND_TYPES | {code.value for code in Code} | {CORRUPTION, "ERROR"}
    values |= {Corrupt.__name__, Unavailable.__name__, "applied", "failed", "controls", ""}
    assert {value for _, value in asked} <= values

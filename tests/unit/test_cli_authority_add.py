"""`opx authority add`: what is added is what IAM says and what was asked for, and nothing else in the file moves."""

import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs

import pytest

from pipeline.cli.registry_file import SHIPPED, already_granted, default_path, formatted, second_thoughts, with_entry
from pipeline.cli.terminal import DONE, FAILED, REFUSED
from pipeline.domain.authority import Entry, read_registry
from pipeline.domain.canonical import normalise, parse_document
from pipeline.domain.errors import Rejected
from tests.support.registry import ACCOUNT, entry
from tests.support.registry_file import DOCUMENT, ENTRIES, ROLE, SIGNED, USER, opx


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "authority.json"
    path.write_text(formatted(DOCUMENT), encoding="utf-8")
    return path


# --- add ------------------------------------------------------------------------------------------------------------------

ROLES = {"checkout-monitor": (ROLE, "AROACHECKOUTMONITOR")}
USERS = {"lee": (USER, "AIDALEEOFIAM")}
DETECTOR = ["--operations", "candidate", "--services", "checkout,checkout-*", "--stage", "prod"]


class Iam(ThreadingHTTPServer):
    """IAM's query protocol for GetRole and GetUser, on the loopback interface; `asked` notes every request."""

    asked: list[dict[str, str]]


class _Answers(BaseHTTPRequestHandler):
    server: Iam

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        asked = {name: values[0] for name, values in parse_qs(body).items()}
        self.server.asked.append(asked)
        kind = asked["Action"].removeprefix("Get")
        found = (ROLES if kind == "Role" else USERS).get(asked.get(f"{kind}Name", ""))
        if found is None:
            self._send(404, "<ErrorResponse><Error><Type>Sender</Type><Code>NoSuchEntity</Code></Error></ErrorResponse>")
            return
        arn, unique_id = found
        fields = f"<Path>/</Path><Arn>{arn}</Arn><{kind}Name>x</{kind}Name><{kind}Id>{unique_id}</{kind}Id>"
        inner = f"<{kind}>{fields}<CreateDate>2026-01-01T00:00:00Z</CreateDate></{kind}>"
        self._send(200, f"<Get{kind}Response><Get{kind}Result>{inner}</Get{kind}Result></Get{kind}Response>")

    def _send(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/xml")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def iam(monkeypatch: pytest.MonkeyPatch) -> Iterator[Iam]:
    with Iam(("127.0.0.1", 0), _Answers) as server:
        server.asked = []
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_IAM", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "example")
        yield server
        server.shutdown()


def entries_in(file: Path) -> list[dict[str, Any]]:
    return list(json.loads(file.read_text("utf-8"))["entries"])


def test_a_role_is_added_under_the_unique_id_that_iam_says(file: Path, iam: Iam) -> None:
    code, (told,), _ = opx("add", ROLE, *DETECTOR, "--file", str(file))
    assert code == DONE
    assert (
        entries_in(file)[-1]
        == told["entry"]
        == {
            "id": "checkout-monitor",
            "stages": ["prod"],
            "principals": ["AROACHECKOUTMONITOR"],
            "authorityTypes": ["SYSTEM"],
            "operations": ["candidate"],
            "services": ["checkout", "checkout-*"],
            "note": ROLE,
        }
    )
    assert told["warnings"] == []
    assert [asked["RoleName"] for asked in iam.asked] == ["checkout-monitor"]
    assert opx("check", "AROACHECKOUTMONITOR:i-1", "candidate", "--service", "checkout-eu", "--file", str(file))[0] == DONE


def test_a_user_and_a_session_of_a_role_are_found_by_name(file: Path, iam: Iam) -> None:
    options = ["--operations", "dismiss", "--services", "checkout", "--stage", "prod", "--file", str(file)]
    assert opx("add", USER, "--authority", "HUMAN", "--principal-is-person", "--id", "lee-2", *options)[0] == DONE
    assert opx("add", f"{SIGNED}/i-1", *options)[0] == DONE
    assert [one["principals"] for one in entries_in(file)[-2:]] == [["AIDALEEOFIAM"], ["AROACHECKOUTMONITOR"]]
    assert [asked["Action"] for asked in iam.asked] == ["GetUser", "GetRole"]


def test_all_else_in_the_file_stays_as_it_is_written(file: Path) -> None:
    crowded = file.read_text("utf-8").replace('"version": 1', '"version" :\n\n1')
    file.write_text(crowded, encoding="utf-8")
    _, (told,), _ = opx("add", "AROANEW", *DETECTOR, "--file", str(file))
    assert file.read_text("utf-8").startswith(crowded.rpartition("}\n  ]")[0])
    assert [line for line in told["diff"].splitlines()[2:] if line.startswith("-")] == []


NOT_WRITTEN: dict[str, tuple[list[str], str]] = {
    "an id that is taken": (["AROANEW", *DETECTOR, "--id", "monitor"], "an entry monitor already"),
    "what is granted already": (
        ["AROAMONITOR", "--operations", "candidate", "--services", "checkout", "--stage", "prod"],
        "Entry monitor grants all of this already",
    ),
    "an operation misspelt": (["AROANEW", "--operations", "candiate", "--services", "x"], "no operation"),
    "HUMAN for nobody": (["AROANEW", *DETECTOR, "--authority", "HUMAN"], "where the person's name stands"),
    "a role as a person": (["AROANEW", *DETECTOR, "--principal-is-person"], "principalIsPerson is for users"),
    "no service": (["AROANEW", "--operations", "candidate", "--services", ","], "services"),
    "no ARN": (["checkout-monitor", *DETECTOR], "no ARN of a role or user"),
    "an ARN of something else": ([f"arn:aws:sqs:us-east-1:{ACCOUNT}:queue", *DETECTOR], "no ARN of a role or user"),
    "an ARN with a star": ([f"arn:aws:iam::{ACCOUNT}:role/*", *DETECTOR], "no ARN of a role or user"),
    "a role that is not there": ([f"arn:aws:iam::{ACCOUNT}:role/gone", *DETECTOR], "There is no role gone"),
    "a role of another path": ([f"arn:aws:iam::{ACCOUNT}:role/checkout-monitor", *DETECTOR], "Your credentials see"),
    "another account's role of that name": (
        ["arn:aws:iam::210987654321:role/teams/checkout-monitor", *DETECTOR],
        "Your credentials see",
    ),
    "a session of another account's role": (
        ["arn:aws:sts::210987654321:assumed-role/checkout-monitor/i-1", *DETECTOR],
        "Your credentials see",
    ),
}


@pytest.mark.parametrize(("arguments", "told"), NOT_WRITTEN.values(), ids=NOT_WRITTEN.keys())
def test_what_must_not_be_added_changes_nothing(file: Path, iam: Iam, arguments: list[str], told: str) -> None:
    before = file.read_bytes()
    code, records, error = opx("add", *arguments, "--file", str(file))
    assert (code, records) == (REFUSED, [])
    assert told in error["error"]
    assert error["next"]
    assert file.read_bytes() == before


def test_the_local_engines_account_is_asked_at_the_local_engine(file: Path, iam: Iam, tmp_path: Path) -> None:
    local = ["add", "arn:aws:iam::000000000000:role/checkout-monitor", *DETECTOR, "--file", str(file)]
    code, _, error = opx(*local, "--state-dir", str(tmp_path))
    assert (code, error["next"], iam.asked) == (FAILED, "opx up", [])


WIDE: dict[str, tuple[dict[str, Any], str]] = {
    "every service": ({"services": ["*"]}, "every service"),
    "every stage": ({"stages": None}, "every stage"),
    "detecting and acting": ({"operations": ["candidate", "dismiss"]}, "report trouble and act"),
    "both authorities": ({"authorityTypes": ["HUMAN", "SYSTEM"], "sessionIsPerson": True}, "HUMAN and SYSTEM"),
    "any person's name": ({"assertsForOthers": True}, "any person"),
    "a session anybody names": ({"authorityTypes": ["HUMAN"], "sessionIsPerson": True}, "sts:RoleSessionName"),
    "the stack's own operation": ({"operations": ["redrive"]}, "stack's own"),
    "a local stage": ({"stages": ["local"]}, "000000000000"),
}
NARROW = entry("narrow", "AROANARROW", services=["checkout"], stages=["prod"])


@pytest.mark.parametrize(("more", "told"), WIDE.values(), ids=WIDE.keys())
def test_a_grant_wider_than_most_need_is_written_with_a_warning(more: dict[str, Any], told: str) -> None:
    document = {name: value for name, value in (NARROW | more).items() if value is not None}
    (wide,) = read_registry(normalise({"version": 1, "entries": [document]})).entries
    assert [thought for thought in second_thoughts(wide, (), "role") if told in thought]
    assert not [thought for thought in second_thoughts(narrow(), (), "role") if told in thought]


def narrow() -> Entry:
    return read_registry(normalise({"version": 1, "entries": [NARROW]})).entries[0]


GRANTED = entry(
    "granted",
    "AROANARROW",
    kinds="HUMAN SYSTEM",
    operations=["candidate", "dismiss"],
    services=["checkout-*", "checkout"],
    stages=["prod", "dev"],
    sessionIsPerson=True,
)


@pytest.mark.parametrize(
    ("more", "granted"),
    [
        ({}, True),
        ({"authorityTypes": ["HUMAN"], "sessionIsPerson": True}, True),
        ({"services": ["checkout-eu"]}, True),
        ({"services": ["checkout-*"]}, True),
        ({"services": ["checkout-eu-*"]}, False),
        ({"services": ["checkout", "search"]}, False),
        ({"services": ["*"]}, False),
        ({"stages": ["local"]}, False),
        ({"stages": None}, False),
        ({"operations": ["add-note"]}, False),
        ({"assertsForOthers": True}, False),
        ({"principals": ["AROAOTHER"]}, False),
    ],
    ids=str,
)
def test_only_what_one_entry_grants_whole_is_granted_already(more: dict[str, Any], granted: bool) -> None:
    document = {name: value for name, value in (NARROW | more).items() if value is not None}
    known = read_registry(normalise({"version": 1, "entries": [GRANTED]}))
    (wanted,) = read_registry(normalise({"version": 1, "entries": [document]})).entries
    assert (already_granted(known, wanted) is not None) is granted


def test_single_sign_on_names_its_sessions_itself() -> None:
    person = NARROW | {"authorityTypes": ["HUMAN"], "sessionIsPerson": True}
    (one,) = read_registry(normalise({"version": 1, "entries": [person]})).entries
    assert second_thoughts(one, (), "AWSReservedSSO_OnCall_0123456789abcdef") == []
    assert second_thoughts(one, (), "on-call") != []


def test_a_principal_that_stands_in_another_entry_is_said_so() -> None:
    other = narrow().model_copy(update={"id": "other"})
    assert ["other" in thought for thought in second_thoughts(narrow(), (other,), "role")] == [True]


# --- the file -------------------------------------------------------------------------------------------------------------


SHAPES: dict[str, Callable[[Any], str]] = {
    "as the shipped one": formatted,
    "in one line": json.dumps,
    "wider apart": lambda document: json.dumps(document, indent=4) + "\n\n",
    "with the entries first": lambda document: json.dumps(dict(reversed(document.items()))),
    "with carriage returns": lambda document: formatted(document).replace("\n", "\r\n"),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("entries", [(), ENTRIES], ids=["empty", "full"])
def test_an_entry_is_added_to_a_registry_however_it_is_written(shape: Callable[[Any], str], entries: Any) -> None:
    document = normalise({"version": 1, "entries": entries})
    after = parse_document(with_entry(shape(document), narrow()))
    assert after["version"] == 1
    assert after["entries"][:-1] == document["entries"]
    assert read_registry(after).entries[-1] == narrow()


def test_an_id_that_is_taken_is_never_written() -> None:
    once = with_entry(formatted(DOCUMENT), narrow())
    with pytest.raises(Rejected, match="narrow"):
        with_entry(once, narrow())


def test_added_entries_are_written_as_the_shipped_ones_are() -> None:
    text = with_entry(SHIPPED.read_text("utf-8"), narrow())
    assert formatted(parse_document(text)) == text


def test_ones_own_registry_is_taken_and_begins_as_the_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPX_CONFIG", str(tmp_path / "mine"))
    before = SHIPPED.read_bytes()
    assert {item["id"] for item in opx("list")[1]} == {"alarms-rule", "alertmanager-queue", "redrive-role", "retention-role"}
    code, (told,), _ = opx("add", "AROANEW", *DETECTOR, "--id", "mine")
    assert code == DONE
    assert Path(told["file"]) == tmp_path / "mine" / "authority.json"
    assert {item["id"] for item in opx("list")[1]} == {
        "alarms-rule",
        "alertmanager-queue",
        "redrive-role",
        "retention-role",
        "mine",
    }
    assert SHIPPED.read_bytes() == before
    assert default_path({}) == default_path({"OPX_CONFIG": ""}) == SHIPPED


@pytest.mark.parametrize(
    ("content", "code", "told"),
    [
        (None, FAILED, "can't be read"),
        ("{", REFUSED, "not valid"),
        ('{"version": 1, "entries": [], "more": 1}', REFUSED, "more"),
        ('{"version": 1, "entries": [{"id": "x"}]}', REFUSED, "entries.0.principals"),
    ],
)
@pytest.mark.parametrize("command", [["list"], ["check", "AROAX", "candidate"], ["add", "AROAX", *DETECTOR]])
def test_a_registry_that_is_not_valid_is_neither_asked_nor_changed(
    tmp_path: Path, command: list[str], content: str | None, code: int, told: str
) -> None:
    path = tmp_path / "authority.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    exit_code, records, error = opx(*command, "--file", str(path))
    assert (exit_code, records) == (code, [])
    assert told in error["error"]
    assert path.exists() is (content is not None)

"""Each function out of the built artifact, run by AWS's runtime with the events of tests/events on the local engine.

The runtime is the Lambda Runtime Interface Emulator of the SAM CLI with awslambdaric; no Docker. The interpreter sees the
artifact and the runtime's client, nothing else of this project's environment: what is missing in the artifact fails here.
"""

import contextlib
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from infra.build import artifact
from pipeline.domain.canonical import canonical_bytes
from pipeline.domain.ids import incident_id, receipt_id
from pipeline.local import processes
from pipeline.local.engine import RunningEngine
from pipeline.local.environment import ACCESS_KEY_ID, ENGINE_MARK, SECRET_ACCESS_KEY
from pipeline.local.paths import PROJECT_ROOT, PYTHON_MINOR, SAM
from pipeline.stores.items import from_item
from tests.support.alarms import Written
from tests.support.stack import Stack, deployed, told

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(sys.platform != "linux", reason="AWS's runtime emulator runs on Linux only"),
]

EVENTS = PROJECT_ROOT / "tests" / "events"
MACHINE = "arm64" if platform.machine().lower() in ("arm64", "aarch64") else "x86_64"
EMULATOR = f"lib/python3*/site-packages/samcli/local/rapid/aws-lambda-rie-{MACHINE}"
RUNTIME_CLIENT = ("awslambdaric", "runtime_client", "simplejson", "snapshot_restore_py")
INVOKE = "2015-03-31/functions/function/invocations"
WITHIN_S = 30.0
ACCOUNT = "000000000000"
PAYMENTS = incident_id("payments", "payments-5xx", 1)
LATENCY = incident_id("payments", f"cloudwatch:{ACCOUNT}:us-east-1:payments-latency", 1)
NOT_DEPLOYED = (
    "tests",
    "infra",
    "pipeline/cli",
    "pipeline/local",
    "boto3",
    "pytest",
    "moto",
    "awslambdaric",
    "typer",
    "rich",
)
NEVER_LOADED = ("boto3", "moto", "pytest", "typer", "rich", "pipeline.cli", "pipeline.local", "tests")


@dataclass(frozen=True)
class Slot:
    """One running execution environment of one function."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def invoke(self, event: Any) -> Any:
        """Return the function's answer, which must be no error."""
        answer = self.answer(event)
        assert "errorType" not in (answer or {}), f"{answer}\n{self.log.read_text(encoding='utf-8')}"
        return answer

    def answer(self, event: Any) -> Any:
        """Invoke once and return what Lambda would see; one invocation at a time, as Lambda does."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/{INVOKE}", json.dumps(event).encode())
        with urllib.request.urlopen(request, timeout=WITHIN_S) as response:
            return json.loads(response.read() or "null")

    def interpreters(self) -> list[int]:
        return sorted(processes.descendants(self.process.pid))


@pytest.fixture(scope="module")
def stack(engine: RunningEngine) -> Stack:
    return deployed(engine)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact, built for this machine."""
    destination = tmp_path_factory.mktemp("build") / "artifact"
    environment = {**os.environ, "OPX_PYTHON": PYTHON_MINOR, "OPX_PLATFORM": "host"}
    command = [sys.executable, "-m", artifact.__name__, str(destination)]
    subprocess.run(command, env=environment, cwd=PROJECT_ROOT, check=True)
    return destination


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with AWS's runtime client and nothing else of this environment."""
    folder = tmp_path_factory.mktemp("runtime")
    for name in RUNTIME_CLIENT:
        found = find_spec(name)
        assert found is not None
        assert found.origin is not None
        place = Path(found.origin)
        place = place.parent if place.name == "__init__.py" else place
        (folder / place.name).symlink_to(place)
    return folder


def environment_of(stack: Stack, output: str, built: Path, runtime: Path) -> tuple[dict[str, str], str]:
    """Return the environment and the handler of a function as it is deployed."""
    deployed_as = stack.client("lambda").get_function_configuration(FunctionName=stack.outputs[output])
    environment = {
        **deployed_as["Environment"]["Variables"],
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{built}:{runtime}",
        "AWS_ENDPOINT_URL": stack.endpoint_url,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
        "AWS_LAMBDA_FUNCTION_NAME": stack.outputs[output],
        "AWS_LAMBDA_FUNCTION_TIMEOUT": str(deployed_as["Timeout"]),
        "LAMBDA_TASK_ROOT": str(built),
        # Should this test be killed, the engine's supervisor ends what carries its mark.
        ENGINE_MARK: str(stack.engine.state_dir),
    }
    return environment, deployed_as["Handler"]


@contextmanager
def running(stack: Stack, output: str, built: Path, runtime: Path, **changes: str) -> Iterator[Slot]:
    """Run one function's execution environment; it and all it started are gone afterwards."""
    environment, handler = environment_of(stack, output, built, runtime)
    environment |= changes
    port, api = free_ports()
    log = runtime.parent / f"{output}.log"
    (emulator,) = SAM.parents[1].glob(EMULATOR)
    command = [str(emulator), "--runtime-interface-emulator-address", f"127.0.0.1:{port}"]
    command += ["--runtime-api-address", f"127.0.0.1:{api}", "--log-level", "error"]
    # -S: no site-packages of this environment.
    command += [sys.executable, "-S", "-m", "awslambdaric", handler]
    with log.open("wb") as output_file:
        process = subprocess.Popen(
            command, cwd=built, env=environment, stdout=output_file, stderr=output_file, start_new_session=True
        )
    try:
        wait_for_port(port, process, log)
        yield Slot(port, process, log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    left = processes.end_all(lambda: processes.descendants(process.pid), 5.0)
    assert left == [], "the emulator left a process behind"


def free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1]), int(other.getsockname()[1])


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text(encoding="utf-8")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError(f"the emulator does not answer: {log.read_text(encoding='utf-8')}")


def event(name: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((EVENTS / f"{name}.json").read_text(encoding="utf-8"))
    return read


def incident(stack: Stack, identity: str) -> dict[str, Any]:
    answer = stack.client("dynamodb").get_item(
        TableName=stack.outputs["IncidentsTableName"], Key={"pk": {"S": identity}}, ConsistentRead=True
    )
    return from_item(answer.get("Item", {}))


def answer_to(stack: Stack, principal: str, kind: str, key: str) -> Any:
    """Return the answer in a receipt, None where there is none."""
    receipt = stack.client("dynamodb").get_item(
        TableName=stack.outputs["IdempotencyTableName"],
        Key={"pk": {"S": receipt_id(principal, kind, key)}},
        ConsistentRead=True,
    )
    return from_item(receipt["Item"])["result"]["answer"] if "Item" in receipt else None


SETTLED: dict[str, list[Any]] = {"batchItemFailures": []}


def test_candidates_function_makes_an_incident_and_stays_warm(stack: Stack, built: Path, runtime: Path) -> None:
    given = event("candidates")
    message_id = given["Records"][0]["messageId"]
    with running(stack, "CandidatesFunctionName", built, runtime) as slot:
        assert slot.invoke(given) == SETTLED
        made = incident(stack, PAYMENTS)
        assert (made["state"], made["severity"], made["service"]) == ("OPEN", "SEV2", "payments")
        assert answer_to(stack, ACCOUNT, "message", message_id) == "created"

        warm = slot.interpreters()
        assert slot.invoke(given) == SETTLED
        assert incident(stack, PAYMENTS) == made, "delivered again, it changes nothing"
        given["Records"][0]["messageId"] = another = str(uuid4())
        assert slot.invoke(given) == SETTLED
        assert incident(stack, PAYMENTS)["version"] == made["version"] + 1
        assert answer_to(stack, ACCOUNT, "message", another) == "joined"
        assert slot.interpreters() == warm, "one process took them all, on one loop"
        assert_logged(slot, "applied", "replayed")


def test_candidates_function_takes_alarms_from_their_queue_as_proof(stack: Stack, built: Path, runtime: Path) -> None:
    given = event("alarms")
    with running(stack, "CandidatesFunctionName", built, runtime) as slot:
        assert slot.invoke(given) == SETTLED
        assert slot.invoke(given) == SETTLED
    made = incident(stack, LATENCY)
    assert (made["state"], made["severity"], made["title"]) == ("OPEN", "SEV3", "payments-latency")
    assert answer_to(stack, "queue:alarms", "cloudwatch", json.loads(given["Records"][0]["body"])["id"]) == "created"


def test_commands_function_moves_one_and_rejects_the_other(stack: Stack, built: Path, runtime: Path) -> None:
    with running(stack, "CandidatesFunctionName", built, runtime) as slot:
        assert slot.invoke(event("candidates")) == SETTLED
    given = event("commands")
    good, unknown = (json.loads(record["body"]) for record in given["Records"])
    assert good["incidentId"] == PAYMENTS
    with running(stack, "CommandsFunctionName", built, runtime) as slot:
        assert slot.invoke(given) == SETTLED
        after = incident(stack, PAYMENTS)
        assert after["state"] == "MITIGATING"
        assert answer_to(stack, ACCOUNT, "caller", good["idempotencyKey"]) == "applied"
        assert slot.invoke(given) == SETTLED
        assert incident(stack, PAYMENTS) == after
    assert answer_to(stack, ACCOUNT, "caller", unknown["idempotencyKey"]) is None, "it may succeed later"
    body = given["Records"][1]["body"]
    found = stack.take("RejectedQueueUrl", lambda message: message["Body"] == body, 2, WITHIN_S)
    assert [told(message)["code"] for message in found] == ["incident-unknown"] * 2, "once for each delivery"


def test_api_function_declares_once_and_answers_the_same_again(stack: Stack, built: Path, runtime: Path) -> None:
    given = event("api")
    with running(stack, "ApiFunctionName", built, runtime) as slot:
        first = slot.invoke(given)
        assert (first["statusCode"], json.loads(first["body"])["answer"]) == (201, "created")
        again = slot.invoke(given)
        assert (again["statusCode"], again["body"]) == (200, first["body"])
        assert again["multiValueHeaders"]["Idempotent-Replayed"] == ["true"]
        identity = json.loads(first["body"])["incidentId"]
        assert incident(stack, identity)["state"] == "OPEN"
        read = slot.invoke(given | {"httpMethod": "GET", "resource": "/incidents/{id}", "pathParameters": {"id": identity}})
        assert json.loads(read["body"])["title"] == "Cards are declined"
        nobody = slot.invoke(given | {"requestContext": given["requestContext"] | {"identity": {}}})
        assert (nobody["statusCode"], json.loads(nobody["body"])["code"]) == (403, "principal-unknown")
        odd = {"httpMethod": "GET", "resource": "/incidents/{id}", "pathParameters": {"id": "%C2%92"}}
        assert slot.invoke(given | odd)["statusCode"] == 400, "whatever stands in the path, the door answers"
        assert_logged(slot, "applied", "replayed", "read", "refused")


def test_fanout_function_publishes_the_stored_event(stack: Stack, built: Path, runtime: Path) -> None:
    given = event("fanout")
    documents = [from_item(record["dynamodb"]["NewImage"]) for record in given["Records"]]
    expected = [resorted(canonical_bytes(document)) for document in documents]

    def ours(message: dict[str, Any]) -> bool:
        return resorted(json.dumps(json.loads(message["Body"])["detail"])) in expected

    with subscriber(stack) as queue, running(stack, "FanoutFunctionName", built, runtime) as slot:
        assert slot.invoke(given) is None
        assert slot.invoke(given) is None
        received = Stack(stack.engine, {"Subscriber": queue}).take("Subscriber", ours, 2 * len(documents), WITHIN_S)
        assert_logged(slot, "published")
    published = [json.loads(message["Body"]) for message in received]
    assert sorted(one["detail-type"] for one in published) == sorted(document["eventType"] for document in documents * 2)
    assert {one["source"] for one in published} == {"opx.incidents"}


def resorted(text: str | bytes) -> str:
    return json.dumps(json.loads(text), sort_keys=True)


@contextmanager
def subscriber(stack: Stack) -> Iterator[str]:
    """A queue of its own on a rule of its own; both are gone afterwards."""
    sqs, events = stack.client("sqs"), stack.client("events")
    name, bus = f"built-{uuid4().hex[:8]}", stack.outputs["BusName"]
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    events.put_rule(Name=name, EventBusName=bus, EventPattern=json.dumps({"source": ["opx.incidents"]}))
    events.put_targets(Rule=name, EventBusName=bus, Targets=[{"Id": "queue", "Arn": arn}])
    try:
        yield url
    finally:
        events.remove_targets(Rule=name, EventBusName=bus, Ids=["queue"])
        events.delete_rule(Name=name, EventBusName=bus)
        sqs.delete_queue(QueueUrl=url)


def assert_logged(slot: Slot, *outcomes: str) -> None:
    """Assert that the function wrote its canonical lines: JSON, one a line, with these outcomes among them."""
    lines = [line for line in slot.log.read_text(encoding="utf-8").splitlines() if line.startswith("{")]
    said = {json.loads(line).get("outcome") for line in lines}
    assert said.issuperset(outcomes), said


def test_retention_function_finds_nothing_due_and_says_so(stack: Stack, built: Path, runtime: Path) -> None:
    with running(stack, "RetentionFunctionName", built, runtime) as slot:
        assert [slot.invoke(event("retention")) for _ in range(2)] == [None, None]
        assert_logged(slot, "done")
        each_run = ("IncidentsArchived", "ArchivesRefused", "ArchivesWaiting", "Unavailable")
        assert figures(slot) == {metric: [0, 0] for metric in each_run}


def test_health_function_tells_every_figure_it_can_have(stack: Stack, built: Path, runtime: Path) -> None:
    names = {"IntakeWaiting", "DeadMessages", "RejectedWaiting", "FanoutFailuresWaiting", "FanoutStopped"}
    with running(stack, "HealthFunctionName", built, runtime) as slot:
        assert slot.invoke(event("health")) is None
        told = figures(slot)
        assert told.keys() == names
        assert told["FanoutStopped"] == [0]
    nowhere = stack.outputs["AlarmsDlqUrl"] + "-that-is-not-there"
    with running(stack, "HealthFunctionName", built, runtime, OPX_ALARMS_DLQ_URL=nowhere) as slot:
        assert slot.invoke(event("health")) is None
        assert figures(slot).keys() == (names - {"DeadMessages"}) | {"Unavailable"}
    with running(stack, "HealthFunctionName", built, runtime, OPX_FANOUT_MAPPING_ID=str(uuid4())) as slot:
        assert slot.invoke(event("health")) is None
        assert figures(slot)["FanoutStopped"] == [1]


def figures(slot: Slot) -> dict[str, list[float]]:
    """Return the values of each metric that a function has written, from its log."""
    written = Written().read(slot.log.read_text(encoding="utf-8").splitlines())
    return {metric: values for (_, metric, *_), values in written.values.items()}


def test_functions_that_reach_nothing_keep_every_message(stack: Stack, built: Path, runtime: Path) -> None:
    nowhere = f"http://127.0.0.1:{free_ports()[0]}"
    given = event("candidates")
    with running(stack, "CandidatesFunctionName", built, runtime, AWS_ENDPOINT_URL=nowhere) as slot:
        failed = [{"itemIdentifier": given["Records"][0]["messageId"]}]
        assert slot.invoke(given) == {"batchItemFailures": failed}
        assert_logged(slot, "failed")


def test_fanout_function_raises_while_the_bus_is_down(stack: Stack, built: Path, runtime: Path) -> None:
    nowhere = f"http://127.0.0.1:{free_ports()[0]}"
    with running(stack, "FanoutFunctionName", built, runtime, AWS_ENDPOINT_URL=nowhere) as slot:
        answer = slot.answer(event("fanout"))
        assert answer["errorType"] == "Unavailable", answer
        assert "PutEvents" in answer["errorMessage"]
        assert_logged(slot, "failed")


def test_artifact_holds_only_what_runs(built: Path) -> None:
    assert [name for name in NOT_DEPLOYED if (built / name).exists()] == []
    assert [path for path in built.rglob("*") if path.name in ("tests", "conftest.py")] == []
    own = {path.name for path in built.iterdir()}
    assert {"pipeline", "consumers", "aiobotocore", "pydantic"} <= own
    assert {path.name for path in (built / "botocore" / "data").iterdir() if path.is_dir()} <= artifact.SERVICE_MODELS


@pytest.mark.parametrize("name", ["api", "candidates", "commands", "fanout", "retention", "health"])
def test_importing_a_function_loads_nothing_it_does_not_need(name: str, stack: Stack, built: Path, runtime: Path) -> None:
    environment, handler = environment_of(stack, f"{name.capitalize()}FunctionName", built, runtime)
    module = handler.rpartition(".")[0]
    assert module == f"consumers.{name}"
    code = f"import importlib, json, sys; importlib.import_module({module!r}); print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=built,
        env={**environment, "PYTHONPATH": str(built)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout)
    assert module in loaded
    assert [
        one for one in loaded if one.startswith(tuple(f"{never}." for never in NEVER_LOADED)) or one in NEVER_LOADED
    ] == []

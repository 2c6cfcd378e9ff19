"""Old and new code at once on one table, as in every rolling deployment: each a process of its own, from its own tree.

While the deployment names the old schema version, both work on everything and tell the same; once it names the new one, the
old code touches nothing that is of it, refuses nothing, and what it leaves is done by the new.
"""

import asyncio
import json
import os
import random
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from pipeline.domain.envelope import SCHEMA_VERSION
from pipeline.domain.ids import incident_id
from pipeline.local.engine import RunningEngine
from pipeline.local.environment import ACCESS_KEY_ID, SECRET_ACCESS_KEY
from pipeline.stores.clients import open_clients
from tests.contract.tables import create_tables, delete_tables
from tests.support.bodies import candidate_body, command_body
from tests.support.newer_code import copied, newer

pytestmark = pytest.mark.engine

OLD, NEW = SCHEMA_VERSION, SCHEMA_VERSION + 1
SERVICES = ("carts", "payments", "search")
KEY = "5xx"
WITHIN_S = 60.0
ENVIRONMENT = {
    "PATH": os.defpath,
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID,
    "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
}
Json = dict[str, Any]


@dataclass
class Code:
    """One version of the code, running. It answers one question after the other."""

    name: str
    process: asyncio.subprocess.Process
    reads: int

    async def ask(self, question: Json) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(question).encode() + b"\n")
        return await answer_of(self.process)

    async def settle(self, door: str, messages: list[Json]) -> Json:
        answer: Json = await self.ask({"door": door, "messages": messages})
        return answer


async def answer_of(process: asyncio.subprocess.Process) -> Any:
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), WITHIN_S)
    assert line, "the code ended; what it said stands above"
    return json.loads(line)


@dataclass
class Deployment:
    """Two trees on one set of tables; `run` starts the code of one of them as a function's environment would be."""

    engine: RunningEngine
    prefix: str
    trees: dict[str, Path]

    @asynccontextmanager
    async def run(self, name: str, told: int) -> AsyncIterator[Code]:
        tree = self.trees[name]
        command = (sys.executable, "-B", "-m", "tests.support.one_version", self.engine.endpoint_url, self.prefix, str(told))
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=tree,
            env=ENVIRONMENT | {"PYTHONPATH": str(tree)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            limit=2**22,
        )
        try:
            started = await answer_of(process)
            assert started["code"].startswith(str(tree.resolve())), "the code of its own tree runs"
            yield Code(name, process, started["reads"])
        finally:
            process.kill()
            await process.wait()


@pytest_asyncio.fixture
async def deployment(engine: RunningEngine, rng: random.Random, tmp_path: Path) -> AsyncIterator[Deployment]:
    prefix = f"v{uuid.UUID(int=rng.getrandbits(128)).hex[:16]}"
    trees = {"old": copied(tmp_path / "old"), "new": newer(tmp_path / "new")}
    async with open_clients(("dynamodb",), endpoint_url=engine.endpoint_url) as clients:
        tables = await create_tables(clients.dynamodb, prefix)
        yield Deployment(engine, prefix, trees)
        await delete_tables(clients.dynamodb, tables)


def candidate(identity: str, service: str) -> Json:
    body = candidate_body(service=service, dedupKey=KEY, severity="SEV2")
    return {"id": identity, "body": body}


def command(identity: str, service: str, kind: str, **fields: Any) -> Json:
    incident = incident_id(service, KEY, 1)
    body = command_body(kind, incident, idempotencyKey=identity, authority="HUMAN", reason="because", **fields)
    return {"id": identity, "body": body, "group": incident}


def note(identity: str, service: str) -> Json:
    return command(identity, service, "add-note", note=f"note {identity}")


async def settled(code: Code, door: str, messages: list[Json]) -> Json:
    """Deliver messages to one version until none must come again, as a queue does; return what became of each."""
    told: Json = {}
    waiting = messages
    for _ in range(20):
        answer = await code.settle(door, waiting)
        assert answer["rejected"] == []
        told |= {name: became for name, became in answer["told"].items() if name not in answer["again"]}
        waiting = [one for one in waiting if one["id"] in answer["again"]]
        if not waiting:
            return told
    raise AssertionError(f"{code.name} is never done: {answer['told']}")


async def both(first: Code, second: Code, door: str, ones: list[Json], others: list[Json]) -> tuple[Json, Json]:
    done = await asyncio.gather(settled(first, door, ones), settled(second, door, others))
    return done[0], done[1]


async def test_old_and_new_code_share_one_table_before_and_after_the_new_version_is_written(
    deployment: Deployment, rng: random.Random
) -> None:
    async with deployment.run("old", OLD) as old:
        assert old.reads == OLD
        async with deployment.run("new", OLD) as new:
            assert new.reads == NEW
            await while_the_old_version_is_written(old, new, rng)
        async with deployment.run("new", NEW) as new:
            await after_the_new_version_is_written(old, new, rng)


async def while_the_old_version_is_written(old: Code, new: Code, rng: random.Random) -> None:
    """Every message goes to both at once, in orders of their own; both must tell the same, and one of them did it."""
    offered = [candidate(f"{service}-{n}", service) for service in SERVICES for n in range(3)]
    steps = [note(f"n-{service}-{n}", service) for service in SERVICES for n in range(2)]
    steps += [command(f"m-{service}", service, "change-state", newState="MITIGATING") for service in SERVICES]
    for door, messages in (("candidates", offered), ("commands", steps)):
        ones, others = rng.sample(messages, len(messages)), rng.sample(messages, len(messages))
        told, also = await both(old, new, door, ones, others)
        for name, became in told.items():
            assert became["result"] == also[name]["result"], name
            assert sorted((became["outcome"], also[name]["outcome"])) == ["Applied", "Replayed"], name
        assert {became["outcome"] for became in told.values()} | {one["outcome"] for one in also.values()} >= {"Applied"}
    for code in (old, new):
        found = await code.ask({"check": True})
        assert found["wrong"] == [], code.name
        assert {version for versions in found["versions"].values() for version in versions} == {OLD}
        assert len(found["versions"]) == len(SERVICES)


async def after_the_new_version_is_written(old: Code, new: Code, rng: random.Random) -> None:
    moved, *others = SERVICES
    done = await settled(new, "commands", [note("newer", moved)])
    assert done["newer"]["outcome"] == "Applied"
    # On what is of the new version now the old code does nothing, and loses nothing: each message comes again.
    left = {
        "candidates": [candidate("late", moved)],
        "commands": [note("late-note", moved), command("late-state", moved, "change-state", newState="RESOLVED")],
    }
    before = await new.ask({"check": True})
    for door, messages in left.items():
        answer = await old.settle(door, messages)
        assert sorted(answer["again"]) == sorted(one["id"] for one in messages)
        assert answer["rejected"] == []
        told = [became for became in answer["told"].values()]
        assert {became["error"] for became in told} == {"Unavailable"}
        assert all(f"of schema version {NEW}; this code reads up to {OLD}" in became["detail"] for became in told)
    # The same message again: its receipt is newer, too.
    assert (await old.settle("commands", [note("newer", moved)]))["again"] == ["newer"]
    assert (await new.settle("commands", [note("newer", moved)]))["told"]["newer"]["outcome"] == "Replayed"
    assert await new.ask({"check": True}) == before, "the old code wrote nothing"
    for door, messages in left.items():
        assert {one["outcome"] for one in (await settled(new, door, messages)).values()} == {"Applied"}
    # What is not of it yet both may take, at once and in any order; what the old one leaves the new one takes.
    more = [note(f"race-{service}-{n}", service) for service in others for n in range(4)]
    again = {one["id"]: one for one in more}
    while again:
        ones, rest = rng.sample(list(again.values()), len(again)), rng.sample(list(again.values()), len(again))
        answers = await asyncio.gather(old.settle("commands", ones), new.settle("commands", rest))
        assert [code for answer in answers for code in answer["rejected"]] == []
        kept = set(answers[0]["again"]) & set(answers[1]["again"])
        again = {name: one for name, one in again.items() if name in kept}
    await finally_everything_is_right(old, new)


async def finally_everything_is_right(old: Code, new: Code) -> None:
    found = await new.ask({"check": True})
    assert found["wrong"] == []
    histories = list(found["versions"].values())
    assert all(versions == sorted(versions) for versions in histories), "nothing old was written on what is newer"
    assert sum(versions.count(NEW) for versions in histories) >= 4
    seen = await old.ask({"check": True})
    assert seen["versions"] == found["versions"]
    newer_ones = [incident for incident, versions in found["versions"].items() if NEW in versions]
    assert {one.partition(":")[0] for one in seen["wrong"] if one.partition(":")[0] in newer_ones} == set(newer_ones)

"""Runs one of the functions as Lambda would, in a process of its own that may die at a chosen AWS call: for the crash sweep.

Reads one JSON line per invocation on standard input, `{"door", "event", "at", "after"}`, and forks for each: the child makes
its own loop and clients, and `os._exit`s before or after call number `at`, with nothing flushed, closed or awaited. Answers
with a JSON line: `{"died", "calls", "answer"}`. Imports are paid once, in the parent.
"""

import importlib
import json
import os
import sys
from types import SimpleNamespace
from typing import Any

# Imported here so that a fork has them; nothing of it opens a loop or a connection.
from consumers import queue_function as _warm  # noqa: F401
from pipeline.runtime import bootstrap as _wiring  # noqa: F401

DIED = 77


class Wire:
    """Counts the AWS calls of this process and ends it at the chosen one."""

    def __init__(self, at: int | None, *, after: bool) -> None:
        self.at, self.after, self.calls = at, after, 0
        self.names: list[str] = []

    def before_call(self, model: Any, context: dict[str, Any], **_: Any) -> None:
        # Lanes run side by side: a call is known again by its own context when its answer comes.
        self.calls += 1
        context["number"] = self.calls
        self.names.append(model.name)
        if self.calls == self.at and not self.after:
            os._exit(DIED)

    def after_call(self, context: dict[str, Any], **_: Any) -> None:
        if context["number"] == self.at and self.after:
            os._exit(DIED)

    def attach(self, client: Any) -> None:
        client.meta.events.register("before-call", self.before_call)
        client.meta.events.register("after-call", self.after_call)


def clients_of(module: Any) -> list[Any]:
    """Return the open clients of a door's module."""
    if hasattr(module, "function"):
        parts = module.function.parts
        return [parts.service.loop.store.client, parts.rejected.client, parts.controls.parameter.client]
    return [module.parts.service.bus.client, module.parts.service.failures.client]


def invoke(request: dict[str, Any]) -> dict[str, Any]:
    module = importlib.import_module(f"consumers.{request['door']}")
    wire = Wire(request["at"], after=request["after"])
    for client in clients_of(module):
        wire.attach(client)
    context = SimpleNamespace(aws_request_id="sweep", get_remaining_time_in_millis=lambda: 60_000)
    answer = module.handler(request["event"], context)
    return {"calls": wire.names, "answer": answer}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    # What the function logs is not the answer.
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            with os.fdopen(writing, "w") as told:
                told.write(json.dumps(invoke(request)))
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as told_by_child:
            told_text = told_by_child.read()
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        if code not in (0, DIED):
            raise SystemExit(f"the function failed by itself: exit {code}")
        answer = json.loads(told_text) if told_text else {}
        print(json.dumps({"died": code == DIED} | answer), file=answers, flush=True)


if __name__ == "__main__":
    main()

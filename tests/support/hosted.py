"""A function's real handler in a process of its own, wired as it is deployed but for what a test takes away from it.

For what can't be broken in the engine without breaking it for everybody: a table, a bus or a parameter that does not answer.
"""

import json
import os
import subprocess
import sys
from typing import Any, Final

from pipeline.local.environment import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY
from pipeline.local.paths import PROJECT_ROOT
from tests.support.stack import Stack

# Nothing listens there: whoever calls is refused at once.
NOWHERE: Final = "http://127.0.0.1:9"
WITHIN_S: Final = 60
# What Lambda does with a handler: an event in, one invocation, and what it raises is the invocation's error.
RUN: Final = """
import importlib, json, sys, traceback
from types import SimpleNamespace
module = importlib.import_module(sys.argv[1])
context = SimpleNamespace(aws_request_id="hosted", get_remaining_time_in_millis=lambda: 60_000)
try:
    module.handler(json.load(sys.stdin), context)
except Exception:
    traceback.print_exc()
"""


def written_by(stack: Stack, output: str, event: Any, **changes: str) -> list[str]:
    """Return what the function of an output writes about one event, with `changes` of its environment."""
    configuration = stack.client("lambda").get_function_configuration(FunctionName=stack.outputs[output])
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(PROJECT_ROOT),
        "AWS_ENDPOINT_URL": stack.endpoint_url,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
        **configuration["Environment"]["Variables"],
        **changes,
    }
    module = configuration["Handler"].rpartition(".")[0]
    done = subprocess.run(
        [sys.executable, "-c", RUN, module],
        input=json.dumps(event),
        env=environment,
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()

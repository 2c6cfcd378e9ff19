"""The rule that the README gives to pagers, on the deployed bus: it pages for what opens and not for what is dismissed."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.domain.ids import incident_id
from tests.e2e.test_pipeline import Outside, Subscriber

pytestmark = pytest.mark.engine
README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")


def pagers_rule() -> str:
    return next(block for block in re.findall(r"```json\n(.*?)```", README, re.DOTALL) if "detail-type" in block)


def test_the_readmes_rule_pages_for_what_opens_and_not_for_what_is_dismissed(stack: Any) -> None:
    outside = Outside(stack)
    name = f"pager-{os.getpid()}"
    pager, everything = Subscriber(outside, name, pagers_rule()), Subscriber(outside, f"{name}-all")
    base = {"type": "candidate", "service": name, "severity": "SEV2", "title": "paged?"}
    outside.send([json.dumps(base | {"dedupKey": "opens"}), json.dumps(base | {"dedupKey": "waits", "confidence": 0.1})])
    outside.drained()
    opened, waiting = (incident_id(name, key, 1) for key in ("opens", "waits"))
    dismissal = {"type": "dismiss", "incidentId": waiting, "authority": "HUMAN", "reason": "noise"}
    outside.command(dismissal, waiting)
    outside.drained()
    everything.wait_for(6)
    pager.receive()
    details = [json.loads(body)["detail"] for body in pager.details]
    assert {detail["incidentId"] for detail in details if detail["metadata"]["service"] == name} == {opened}
    for subscriber in (pager, everything):
        subscriber.unsubscribe()

"""A detector: `pip install ".[clients]"` in a clone, then `python detector.py QUEUE_URL 0.9` tells of a disk over 90 %."""

import shutil
import sys

from pipeline.clients.detector import Detector, candidate

queue_url, limit = sys.argv[1:]
usage = shutil.disk_usage("/")
if (full := usage.used / usage.total) > float(limit):
    found = candidate(service="ledger", severity="SEV3", title=f"Disk is {full:.0%} full", dedup_key="disk-full")
    Detector(queue_url).send(found)

"""Match events and fill targets' templates as EventBridge would, for what template.yaml uses.

Any other operator is an error, never passed over.
"""

import fnmatch
import json
import re
from typing import Any


def matches(pattern: Any, event: Any) -> bool:
    """Say whether an event matches."""
    if isinstance(pattern, dict):
        return all(
            any(matches(one, event) for one in inner) if key == "$or" else _key_matches(inner, key, event)
            for key, inner in pattern.items()
        )
    return any(_value_matches(one, event) for one in pattern)


def _key_matches(pattern: Any, key: str, event: Any) -> bool:
    if pattern == [{"exists": False}]:
        return key not in event
    return key in event and matches(pattern, event[key])


def _value_matches(one: Any, value: Any) -> bool:
    match one:
        case {"exists": True}:
            return True  # asked of a key that is there
        case str():
            return bool(one == value)
        case {"anything-but": {"prefix": str(prefix)}}:
            return not value.startswith(prefix)
        case {"anything-but": list(values)}:
            return value not in values
        case {"wildcard": str(wildcard)}:
            return fnmatch.fnmatchcase(value, wildcard)
        case _:
            raise ValueError(f"not read here: {one}")


def transformed(transformer: dict[str, Any], event: Any) -> str:
    """Return what a target is sent: a variable within quotes is put in as it is, one that stands alone as JSON."""
    values = {name: _at(path, event) for name, path in transformer["InputPathsMap"].items()}
    quoted = re.compile(r'"(?:[^"\\]|\\.)*"|<([A-Za-z0-9_-]+)>')

    def put(found: re.Match[str]) -> str:
        if found[1] is not None:
            return json.dumps(values[found[1]])
        return re.sub(r"<([A-Za-z0-9_-]+)>", lambda inner: str(values[inner[1]]), found[0])

    return quoted.sub(put, transformer["InputTemplate"])


def _at(path: str, event: Any) -> Any:
    for key in path.removeprefix("$.").split("."):
        event = event[key]
    return event

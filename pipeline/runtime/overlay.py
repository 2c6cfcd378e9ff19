"""The folder of one's own policies, rules, mappings and grants that a build lays over what ships. Standard library only.

Which files it may hold is said here once, for the build, the command line and the functions; what stands in them is judged
in `shipped`. A file that nothing would read is refused, not passed over: a misspelt policy is one that is not in force.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

# Names the folder, for the build and the command line; a function finds it at `IN_PACKAGE`.
VARIABLE: Final = "OPX_CONFIG"
IN_PACKAGE: Final = "config"
AUTHORITY: Final = "authority.json"
ALARM_MAPPINGS: Final = "rules/alarm-mappings.json"
ALERT_MAPPING: Final = "rules/alertmanager-mapping.json"
# Released files by folder: each is named by the id and the version that stand in it.
_IDS: Final = {"policies": "policyId", "rules": "ruleId"}
_VERSIONED: Final = re.compile(r"(policies|rules)/[^/]+\.v[0-9]+\.json")
_ALONE: Final = (AUTHORITY, ALARM_MAPPINGS, ALERT_MAPPING)
_NOTES: Final = "README.md"


class ConfigError(ValueError):
    """A file of the configuration can't be taken: one sentence that names the file, the field, and what is wrong."""


@dataclass(frozen=True, slots=True)
class File:
    """One file of the folder, by its name below it."""

    name: str
    content: bytes


def files(folder: Path, package: Path) -> tuple[File, ...]:
    """Return what `folder` holds, by name; raise `ConfigError` for what it may not hold.

    `package` is where the shipped files are: a released one is added to, never replaced. What begins with a dot, and each
    README.md, is nobody's configuration and stays out.
    """
    if not folder.is_dir():
        raise ConfigError(f"There is no folder {folder}: {VARIABLE} (or --config) names none.")
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or path.name == _NOTES or any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        _known(name)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"{name}: it can't be read ({error.strerror}).") from None
        _checked(name, content, package)
        found.append(File(name, content))
    return tuple(found)


def _known(name: str) -> None:
    if name not in _ALONE and not _VERSIONED.fullmatch(name):
        known = ", ".join(("policies/NAME.vN.json", "rules/NAME.vN.json", *_ALONE))
        raise ConfigError(f"{name}: nothing would read this file. A configuration holds {known}; rename or remove it.")


def _checked(name: str, content: bytes, package: Path) -> None:
    document = _document(name, content)
    if name in _ALONE:
        return
    id_field = _IDS[name.partition("/")[0]]
    named, version = document.get(id_field), document.get("version")
    if name.partition("/")[2] != f"{named}.v{version}.json":
        held = f"in it stand {named!r} and {version!r}"
        raise ConfigError(f"{name}: {id_field}: a file is named after its {id_field} and version, and {held}.")
    if (package / name).exists():
        raise ConfigError(f"{name}: {id_field}: this version ships with opx and is never changed; give yours the next one.")


def _document(name: str, content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except ValueError as error:
        raise ConfigError(f"{name}: it is not JSON ({error}).") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{name}: it must hold one JSON object.")
    return document

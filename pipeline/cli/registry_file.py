"""The authority registry as a file that people edit: where it lies, how an entry comes into it, what to think twice about.

What an entry means is in `domain.authority`; nothing is written that it would refuse.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path
from typing import Any, Final

from pipeline.cli.terminal import REFUSED, CommandError
from pipeline.domain.authority import (
    CANDIDATE_OPERATION,
    COMMAND_OPERATIONS,
    Entry,
    RegistryFile,
    covers_service,
    read_registry,
)
from pipeline.domain.canonical import Document, normalise, parse_document
from pipeline.domain.errors import Rejected
from pipeline.domain.transitions import AuthorityType
from pipeline.local.paths import PROJECT_ROOT
from pipeline.runtime import overlay

SHIPPED: Final = PROJECT_ROOT / "pipeline" / "policies" / "authority.json"
LINE_CHARACTERS_MAX: Final = 125
PERSONS_ROLES: Final = "AWSReservedSSO_"


@dataclass(frozen=True, slots=True)
class WrittenRegistry:
    """A registry with the text it was read from. `begins_as` is set where the file is not there yet."""

    path: Path
    text: str
    registry: RegistryFile
    begins_as: Path | None = None


def default_path(environ: Mapping[str, str]) -> Path:
    """Return the registry that the next build takes: one's own where there is a folder for it, else the shipped one."""
    folder = environ.get(overlay.VARIABLE)
    return Path(folder) / overlay.AUTHORITY if folder else SHIPPED


def load(file: Path | None) -> WrittenRegistry:
    """Read the registry, and check all of it. One's own begins as a copy of the shipped one."""
    path = file or default_path(os.environ)
    begins_as = SHIPPED if file is None and path != SHIPPED and not path.exists() else None
    try:
        text = (begins_as or path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"The registry {path} can't be read: {error}", "opx authority list --file FILE") from error
    try:
        return WrittenRegistry(path, text, read_registry(parse_document(text)), begins_as)
    except Rejected as error:
        refusal = error.refusal
        where = f"{refusal.field}: " if refusal.field else ""
        raise CommandError(f"The registry {path} is not valid. {where}{refusal.detail}", f"edit {path}", REFUSED) from error


def document_of(entry: Entry) -> Document:
    """Return an entry as it is written: what it does not say stays unsaid."""
    document: Document = normalise(entry.model_dump(exclude_defaults=True, by_alias=True))
    return document


def with_entry(text: str, entry: Entry) -> str:
    """Return the registry's text with one more entry at its end; what stands there already stays as it is written.

    Raises `Rejected` where the whole would not be a valid registry, as with an id that is taken.
    """
    document = parse_document(text)
    wanted = document | {"entries": (*document["entries"], document_of(entry))}
    read_registry(wanted)
    before, _, after = text.rpartition("]")
    if after.strip() != "}":
        # The entries do not stand last.
        return formatted(wanted)
    comma = "," if document["entries"] else ""
    return f"{before.rstrip()}{comma}\n{_entry_text(document_of(entry))}\n  ]\n}}\n"


def formatted(document: Document) -> str:
    """Return a registry as the shipped file is written."""
    entries = ",\n".join(_entry_text(entry) for entry in document["entries"])
    inner = f"[\n{entries}\n  ]" if entries else "[]"
    return f'{{\n  "version": {document["version"]},\n  "entries": {inner}\n}}\n'


def _entry_text(entry: Document) -> str:
    fields = ",\n".join(_field_text(name, value) for name, value in entry.items())
    return f"    {{\n{fields}\n    }}"


def _field_text(name: str, value: Any) -> str:
    head = f"      {_json(name)}: "
    if not isinstance(value, tuple | list) or len(head) + len(_json(value)) < LINE_CHARACTERS_MAX:
        return head + _json(value)
    lines = [""]
    for index, item in enumerate(value):
        piece = _json(item) + ("," if index < len(value) - 1 else "")
        if lines[-1] and 8 + len(lines[-1]) + 1 + len(piece) > LINE_CHARACTERS_MAX:
            lines.append("")
        lines[-1] += (" " if lines[-1] else "") + piece
    return f"{head}[\n" + "\n".join(f"        {line}" for line in lines) + "\n      ]"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def write(path: Path, text: str) -> None:
    """Put `text` in the file's place at once, so that no build ever reads half a registry."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.new")
        fresh.write_text(text, "utf-8")
        if path.exists():
            fresh.chmod(path.stat().st_mode & 0o777)
        fresh.replace(path)
    except OSError as error:
        raise CommandError(f"The registry {path} can't be written: {error}", f"ls -l {path.parent}") from error


def diff(before: str, after: str, path: Path) -> list[str]:
    """Return what changes, as lines of a unified diff."""
    return list(unified_diff(before.splitlines(), after.splitlines(), f"{path} (before)", f"{path} (after)", lineterm=""))


def already_granted(registry: RegistryFile, wanted: Entry) -> Entry | None:
    """Return an entry that grants all of `wanted`, or None."""
    return next((entry for entry in registry.entries if _includes(entry, wanted)), None)


def _includes(entry: Entry, wanted: Entry) -> bool:
    flags = ("asserts_for_others", "session_is_person", "principal_is_person")
    return (
        set(wanted.principals) <= set(entry.principals)
        and set(wanted.authority_types) <= set(entry.authority_types)
        and set(wanted.operations) <= set(entry.operations)
        and (not entry.stages or (bool(wanted.stages) and set(wanted.stages) <= set(entry.stages)))
        and all(pattern in entry.services or _is_covered(entry, pattern) for pattern in wanted.services)
        and all(getattr(entry, flag) or not getattr(wanted, flag) for flag in flags)
    )


def _is_covered(entry: Entry, pattern: str) -> bool:
    # A star in what is wanted is more than any one name that the entry's patterns take it for.
    return "*" in entry.services or ("*" not in pattern and covers_service(entry, pattern))


def second_thoughts(entry: Entry, others: Sequence[Entry], name: str) -> list[str]:
    """Return what makes a grant wider than most senders need. `name` is the role's or user's name."""
    human = AuthorityType.HUMAN in entry.authority_types
    commands = COMMAND_OPERATIONS & set(entry.operations)
    thoughts = {
        "It covers every service: --services NAME, or NAME-*, would be narrower.": "*" in entry.services,
        "It holds on every stage: --stage prod would be narrower.": not entry.stages,
        "It may both report trouble and act on it: detectors need candidate alone.": bool(commands)
        and CANDIDATE_OPERATION in entry.operations,
        "It may use HUMAN and SYSTEM: every message must then say which.": len(set(entry.authority_types)) > 1,
        "It may act under the name of any person it says, and is trusted to say the truth.": entry.asserts_for_others,
        "Whoever may assume this role chooses the session's name: pin it in the role's trust policy (sts:RoleSessionName), "
        "or use single sign-on.": human and entry.session_is_person and not name.startswith(PERSONS_ROLES),
        "redrive and audit are for the stack's own roles and for auditors.": not set(entry.operations)
        <= COMMAND_OPERATIONS | {CANDIDATE_OPERATION},
        "At the local engine every sender is the account 000000000000: there this entry names nobody.": "local"
        in entry.stages,
    }
    same = [other.id for other in others if set(other.principals) & set(entry.principals)]
    if same:
        thoughts[f"The same principal stands in {', '.join(same)}, too: what it may do is all of them together."] = True
    return [thought for thought, applies in thoughts.items() if applies]

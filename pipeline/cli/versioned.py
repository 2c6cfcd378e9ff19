"""Policy and rule files as commands take them: the ones in force, and one that a person is still writing.

What is wrong with a file is a `Flaw`, a value, so that several files can be told of at once. Rules are in the domain.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer

from pipeline.cli.session import Invocation
from pipeline.cli.terminal import REFUSED, Column, CommandError, Screen, cell
from pipeline.domain.base import Model
from pipeline.domain.canonical import Document, parse_document
from pipeline.domain.errors import Code, Rejected
from pipeline.domain.promotion import PinnedPolicy, Policies, Policy
from pipeline.domain.rules import Match, PinnedRule, Rule, Rules, Threshold
from pipeline.runtime import overlay, shipped

FILE_BYTES_MAX: Final = 1 << 20
DIGEST_CHARACTERS: Final = 12
POLICIES, RULES = "policies", "rules"

Config = Annotated[
    Path | None,
    typer.Option(
        "--config", envvar=overlay.VARIABLE, metavar="DIR", help="Your own policies, rules and grants, beside the shipped."
    ),
]

P = TypeVar("P", PinnedPolicy, PinnedRule)


@dataclass(frozen=True, slots=True)
class Flaw:
    """Why a file would be refused: the field (empty where it is the whole file), what is wrong, and what to do."""

    field: str
    detail: str
    advice: str

    def sentence(self) -> str:
        return (f"{self.field}: " if self.field else "") + self.detail


@dataclass(frozen=True, slots=True)
class InForce:
    """Every released policy and rule a command knows, and which of them ship with opx."""

    policies: Policies
    rules: Rules
    shipped_policies: Policies
    shipped_rules: Rules

    def is_own(self, pinned: PinnedPolicy | PinnedRule) -> bool:
        if isinstance(pinned, PinnedPolicy):
            return (pinned.policy.policy_id, pinned.policy.version) not in self.shipped_policies.pinned
        return (pinned.rule.rule_id, pinned.rule.version) not in self.shipped_rules.pinned


def in_force(config: Path | None) -> InForce:
    """Return what is in force with a folder of one's own. Raises `ConfigError` naming what is wrong in it."""
    return InForce(shipped.policies(config), shipped.rules(config), shipped.policies(), shipped.rules())


def read_policy(path: Path) -> PinnedPolicy | Flaw:
    """Return the policy in a file, or its first flaw."""
    return _read(path, lambda document: next(iter(Policies.load([document]).pinned.values())), (Policy,))


def read_rule(path: Path) -> PinnedRule | Flaw:
    """Return the rule in a file, or its first flaw. Whether its policy exists is not asked here."""
    return _read(path, lambda document: next(iter(Rules.load([document]).pinned.values())), (Rule, Match, Threshold))


def _read(path: Path, load: Callable[[Document], P], models: tuple[type[Model], ...]) -> P | Flaw:
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        return Flaw("", f"it can't be read: {error.strerror}.", f"ls -l {path.parent}")
    if len(content) > FILE_BYTES_MAX:
        return Flaw("", f"it is longer than {FILE_BYTES_MAX} bytes: is it a policy or rule?", "name another file")
    try:
        return load(parse_document(content))
    except Rejected as error:
        refusal = error.refusal
        meant = _meant(refusal.field, models) if refusal.code is Code.UNKNOWN_FIELD else ""
        return Flaw(refusal.field or "", refusal.detail + meant, f"edit {path}, then the same again")


def _meant(field: str | None, models: tuple[type[Model], ...]) -> str:
    known = [str(item.alias or name) for model in models for name, item in model.model_fields.items()]
    *_, last = (field or "").split(".")
    close = get_close_matches(last, known, 1)
    return f" Is {close[0]} meant?" if close else f" Known are {', '.join(sorted(set(known)))}."


def the_policy(path: Path, invocation: Invocation) -> PinnedPolicy:
    """Return the policy in a file; raise where it is none."""
    found = read_policy(path)
    if isinstance(found, Flaw):
        raise CommandError(f"{path}: {found.sentence()}", f"{invocation.opx} policy check {path}", REFUSED)
    return found


def the_rule(path: Path, invocation: Invocation) -> PinnedRule:
    """Return the rule in a file; raise where it is none."""
    found = read_rule(path)
    if isinstance(found, Flaw):
        raise CommandError(f"{path}: {found.sentence()}", found.advice, REFUSED)
    return found


def with_policy(policies: Policies, pinned: PinnedPolicy) -> Policies:
    """Return policies among which `pinned` is the newest of its id: later versions are left out, as are its namesakes."""
    name, version = pinned.policy.policy_id, pinned.policy.version
    kept = {key: known for key, known in policies.pinned.items() if key[0] != name or key[1] < version}
    return Policies(kept | {(name, version): pinned})


def files_of(paths: Iterable[Path], kind: str) -> list[Path]:
    """Return the files of one kind that paths name: files as they are, folders by what is in them or in their `kind`."""
    found: list[Path] = []
    for path in paths:
        inner = path / kind if (path / kind).is_dir() else path
        found += sorted(inner.glob("*.json")) if path.is_dir() else [path]
    return [path for path in found if path.name not in (overlay.AUTHORITY,)]


def name_remark(path: Path, name: str, version: int, kind: str) -> str | None:
    """Return what to know where the build would not take a file under the name it has."""
    wanted = f"{name}.v{version}.json"
    return None if path.name == wanted else f"The build takes it only as {kind}/{wanted}."


def newest_only(pinned: dict[tuple[str, int], Any]) -> list[Any]:
    """Return the newest version of each id, by id."""
    newest = {name: found for (name, _), found in sorted(pinned.items())}
    return [newest[name] for name in sorted(newest)]


@dataclass(frozen=True, slots=True)
class Listed:
    """One released file in a list. `names`: its id and version; `told`: what the table says of it beside its meaning."""

    names: Document
    digest: str
    is_own: bool
    in_force: bool
    meaning: str
    told: str
    content: Document


def show_listed(screen: Screen, titles: tuple[str, str], listed: Iterable[Listed]) -> None:
    """Show released files: what each is called, where it comes from, and what it says. `titles`: of the first and last."""
    kind, last = titles
    rows = []
    for one in listed:
        if screen.as_json:
            origin = "own" if one.is_own else "shipped"
            document = one.names | {"digest": one.digest, "origin": origin, "inForce": one.in_force}
            screen.record(document | {"meaning": one.meaning, kind: one.content})
        name, version = one.names.values()
        style = "" if one.in_force else "dim"
        came = cell("own", "bold") if one.is_own else cell("opx", "dim")
        digest = cell(one.digest[:DIGEST_CHARACTERS], "dim")
        rows.append((cell(f"{name} v{version}", style or "cyan"), came, digest, cell(one.told, style)))
    screen.table((Column(kind), Column("from"), Column("digest"), Column(last, wrap=True)), rows)

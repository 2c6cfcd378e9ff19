"""`opx lint`: what the door would refuse of a detector's messages, before the first of them is sent. Sends nothing.

Each message is read, held against rules, policies and the registry by the door's own code. Memory does not grow with the
file, but for the keys by which copies are known.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.text import Text

from pipeline.cli.granting import sender_of
from pipeline.cli.messages import counted, opened
from pipeline.cli.outbox import Line, Unsendable
from pipeline.cli.session import Invocation, run
from pipeline.cli.terminal import DONE, REFUSED, Column, CommandError, Screen, cell, time_of
from pipeline.cli.versioned import Config
from pipeline.domain.authority import Claim, Registry, Sender
from pipeline.domain.candidates import Received
from pipeline.domain.canonical import Document
from pipeline.domain.controls import NO_CONTROLS
from pipeline.domain.errors import Code, Refusal, Rejected
from pipeline.domain.events import REPORTS_TROUBLE
from pipeline.domain.promotion import Policies
from pipeline.domain.transitions import AuthorityType
from pipeline.runtime import shipped
from pipeline.runtime.clock import SystemClock
from pipeline.services.decision import DecisionLoop
from pipeline.services.intake import IntakeService, Part
from pipeline.stores.controls import FixedControls
from pipeline.stores.memory import MemoryStore

SHOWN_MAX: Final = 100
KEYS_MAX: Final = 200_000
UNSENDABLE: Final = "unsendable"
# Whoever sends, where nobody is named: may report anything, as a program or as a person.
_ANYBODY: Final = Sender("000000000000")
_GRANTS: Final[dict[AuthorityType, Document]] = {
    AuthorityType.SYSTEM: {"authorityTypes": ("SYSTEM",)},
    AuthorityType.HUMAN: {"authorityTypes": ("HUMAN",), "principalIsPerson": True, "assertsForOthers": True},
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that the door would refuse."""

    line: int
    code: str
    field: str
    detail: str
    advice: str

    @classmethod
    def of(cls, line: int, refusal: Refusal) -> "Problem":
        return cls(line, refusal.code.value, refusal.field or "", refusal.detail, refusal.advice)

    def to_document(self) -> Document:
        named: Document = {"kind": "problem", "line": self.line, "code": self.code, "detail": self.detail}
        return named | ({"field": self.field} if self.field else {}) | {"next": self.advice}


@dataclass(slots=True)
class Linter:
    """The door as far as it needs no table; counts what it sees. `sender` None: whether it may send is not asked."""

    services: dict[AuthorityType, IntakeService]
    sender: Sender | None
    sent_at: datetime
    messages: int = 0
    refused: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    becomes: Counter[str] = field(default_factory=Counter)
    keys: dict[bytes, bytes] = field(default_factory=dict)

    def look(self, lines: Iterable[Line | Unsendable]) -> Iterator[Problem]:
        """Yield the problems of each message, in order."""
        for line in lines:
            self.messages += 1
            found = list(self._of(line))
            self.refused += bool(found)
            self.codes.update(problem.code for problem in found)
            yield from found

    def _of(self, line: Line | Unsendable) -> Iterator[Problem]:
        if isinstance(line, Unsendable):
            yield Problem(line.number, UNSENDABLE, "", f"{line.why}.", "Escape or shorten it: no queue takes it.")
            return
        received = Received(self.sender or _ANYBODY, f"line-{line.number}", self.sent_at)
        service = self.services[AuthorityType.SYSTEM]
        try:
            work = service.read(line.body, received)
        except Rejected as error:
            yield Problem.of(line.number, error.refusal)
            return
        if self.sender is None:
            service = self.services[_claimed(work.intake.claim)]
        # Several rules may count one message: what is wrong with it for one reason is said once.
        said: set[tuple[Code, str | None, str]] = set()
        for part in service.parts(work, NO_CONTROLS):
            refusal = self._refusal(part, service.policies) if isinstance(part, Part) else part[1]
            if refusal is not None and (refusal.code, refusal.field, refusal.detail) not in said:
                said.add((refusal.code, refusal.field, refusal.detail))
                yield Problem.of(line.number, refusal)

    def _refusal(self, part: Part, policies: Policies) -> Refusal | None:
        if part.span is not None:
            rule = part.span.pinned.rule
            policy_id, becomes = rule.policy_id, f"counted by rule {rule.rule_id} v{rule.version}"
        elif part.candidate is not None:
            policy_id = part.candidate.policy_id
            trouble = part.candidate.observation.kind in REPORTS_TROUBLE
            becomes = f"judged under policy {policy_id}" if trouble else "evidence, if something is open (OK, no data)"
        else:
            return None
        policy = policies.newest(policy_id)
        if isinstance(policy, Refusal):
            return policy
        known = self._known(part)
        if known is None:
            self.becomes[becomes] += 1
        return known if isinstance(known, Refusal) else None

    def _known(self, part: Part) -> Refusal | bool | None:
        """Return whether an earlier message had its key: None for the first, True for a copy, a refusal for another."""
        key, digest = bytes.fromhex(part.request.receipt_id)[:16], bytes.fromhex(part.request.request_digest)[:16]
        first = self.keys.get(key)
        if first is None:
            if len(self.keys) < KEYS_MAX:
                self.keys[key] = digest
            return None
        if first == digest:
            self.becomes["copies of an earlier message"] += 1
            return True
        detail = "Another message of this file has the same key and says something else."
        return Refusal(Code.KEY_REUSED, detail, "idempotencyKey")


def _claimed(claim: Claim | None) -> AuthorityType:
    return (claim.authority_type if claim is not None else None) or AuthorityType.SYSTEM


def linter(config: Path | None, sender: Sender | None, stage: str, sent_at: datetime) -> Linter:
    """Return a linter for what is in force; with a sender, for what it may do on a stage."""

    def door(registry: Registry) -> IntakeService:
        return IntakeService(
            DecisionLoop(MemoryStore(), SystemClock()),
            shipped.policies(config),
            registry,
            FixedControls(),
            shipped.rules(config),
            shipped.alarm_mappings(config),
            shipped.alert_mapping(config),
        )

    if sender is not None:
        own = door(shipped.registry(stage, config=config))
        return Linter(dict.fromkeys(AuthorityType, own), sender, sent_at)
    common: Document = {
        "id": "anybody",
        "principals": (_ANYBODY.principal,),
        "operations": ("candidate",),
        "services": ("*",),
    }
    grants = {kind: Registry.load({"version": 1, "entries": (common | more,)}, "", {}) for kind, more in _GRANTS.items()}
    return Linter({kind: door(registry) for kind, registry in grants.items()}, None, sent_at)


def lint(
    context: typer.Context,
    file: Annotated[str | None, typer.Argument(help="One JSON object a line, or -.", show_default=False)] = None,
    json_body: Annotated[str | None, typer.Option("--json-body", help="One message, instead of a file.")] = None,
    sender: Annotated[
        str | None, typer.Option("--as", metavar="PRINCIPAL", help="Who would send it: is it allowed to?")
    ] = None,
    stage: Annotated[str, typer.Option(help="The stage it would be sent to; with --as.")] = "prod",
    sent_at: Annotated[
        str | None, typer.Option("--sent-at", metavar="TIME", help="When it would be sent; without it, now.")
    ] = None,
    config: Config = None,
) -> None:
    """Say what opx would refuse of your messages, before you send the first. Sends nothing. Exit code 1 if any.

    Example: opx lint messages.jsonl --as AROAEXAMPLEID --stage prod
    """

    async def work(invocation: Invocation) -> int:
        screen = invocation.screen
        when = SystemClock().now() if sent_at is None else time_of(sent_at, "--sent-at", f"{invocation.opx} lint")
        found = linter(config, sender_of(sender) if sender else None, stage, when)
        shown: list[Problem] = []
        with opened(file, json_body, f"{invocation.opx} lint") as lines, screen.progress("reading") as meter:
            for problem in found.look(counted(lines, meter)):
                if screen.as_json:
                    screen.record(problem.to_document())
                elif len(shown) < SHOWN_MAX:
                    shown.append(problem)
        if not found.messages:
            raise CommandError("There is no message in there.", f"{invocation.opx} lint --help", REFUSED)
        _tell(screen, found, shown)
        screen.next(_after(invocation, found, file))
        return REFUSED if found.refused else DONE

    run(context, work)


def _after(invocation: Invocation, found: Linter, file: str | None) -> str:
    if found.refused:
        return "correct them, then the same again"
    if found.sender is None:
        return f"{invocation.opx} lint {file or '--json-body …'} --as PRINCIPAL --stage STAGE"
    return f"{invocation.opx} send {file or '--json-body …'}"


def _tell(screen: Screen, found: Linter, shown: list[Problem]) -> None:
    if screen.as_json:
        summary: Document = {"kind": "summary", "messages": found.messages, "refused": found.refused}
        screen.record(summary | {"codes": dict(found.codes), "becomes": dict(found.becomes)})
        return
    if shown:
        columns = (Column("line", right=True), Column("refused", cap=26, floor=18), Column("why, and what to do", wrap=True))
        screen.table(columns, [_row(problem) for problem in shown])
    if (hidden := sum(found.codes.values()) - len(shown)) > 0:
        screen.notice(f"{hidden} more are not shown here (--json shows all).")
    verdict = f"{found.refused} would be refused" if found.refused else "none would be refused"
    style = "bold red" if found.refused else "bold green"
    many = "1 message" if found.messages == 1 else f"{found.messages} messages"
    screen.say(Text.assemble((f"{many}: {verdict}", style), cell("." if not found.codes else f": {_listed(found.codes)}.")))
    for text, count in found.becomes.most_common():
        screen.say(cell(f"{count:>7}  {text}", "dim" if text.startswith("copies") else ""))
    if found.sender is None:
        screen.say("Whether its sender may report this was not asked (--as PRINCIPAL).", "dim")


def _listed(codes: Counter[str]) -> str:
    return ", ".join(f"{count} × {code}" for code, count in codes.most_common())


def _row(problem: Problem) -> tuple[Text, Text, Text]:
    named = Text("\n").join([cell(problem.code, "red"), *([cell(problem.field, "cyan")] if problem.field else [])])
    return cell(problem.line), named, Text("\n").join([cell(problem.detail), cell(problem.advice, "dim")])

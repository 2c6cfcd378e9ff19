"""`opx policy …`: what policies say, whether a new one may be released, and why the gate decided as it did.

`explain` and `try` are next door; reads only, and no stack is asked here.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.text import Text

from pipeline.cli.explain import explain
from pipeline.cli.session import Invocation, run
from pipeline.cli.terminal import DONE, REFUSED, Column, CommandError, Screen, cell
from pipeline.cli.trying import try_policy
from pipeline.cli.versioned import (
    POLICIES,
    Config,
    Flaw,
    InForce,
    Listed,
    files_of,
    in_force,
    name_remark,
    newest_only,
    read_policy,
    show_listed,
)
from pipeline.domain.canonical import Document
from pipeline.domain.explanation import policy_in_short, policy_in_words, released, span_of_time
from pipeline.domain.promotion import PinnedPolicy

# Later versions of what ships are numbered from here, clear of the next releases.
OWN_FROM: Final = 1000

policy = typer.Typer(
    no_args_is_help=True, help="Promotion policies: check a file, list them, explain a decision, try one out."
)
policy.command("explain")(explain)
policy.command("try")(try_policy)


@dataclass(frozen=True, slots=True)
class Checked:
    """One file, looked at: the policy in it, or what is wrong; and what else to know."""

    path: Path
    policy: PinnedPolicy | None
    flaw: Flaw | None
    remarks: tuple[str, ...] = ()

    def to_document(self) -> Document:
        document: Document = {"file": str(self.path), "accepted": self.flaw is None}
        if self.policy is not None:
            found = self.policy.policy
            meaning = {condition.value: text for condition, text in policy_in_words(found)}
            document |= {"policyId": found.policy_id, "version": found.version, "digest": self.policy.digest}
            document |= {"meaning": meaning, "remarks": list(self.remarks)}
            document |= {"orderDependence": found.order_dependence} if found.order_dependence else {}
        if self.flaw is not None:
            document |= {"field": self.flaw.field, "reason": self.flaw.detail, "next": self.flaw.advice}
        return document


def checked(path: Path, files: InForce) -> Checked:
    """Look at one policy file, beside those that are in force."""
    known = files.policies
    found = read_policy(path)
    if isinstance(found, Flaw):
        return Checked(path, None, found)
    name, version = found.policy.policy_id, found.policy.version
    newest = max((number for known_name, number in known.pinned if known_name == name), default=0)
    changes_released = released(known, found)
    if changes_released is not None:
        ships = any(known_name == name for known_name, _ in files.shipped_policies.pinned)
        free = max(newest + 1, OWN_FROM if ships else 1)
        advice = f'put "version": {free} into it and name it {name}.v{free}.json'
        return Checked(path, found, Flaw("version", changes_released, advice))
    remark = name_remark(path, name, version, POLICIES)
    remarks = [remark] if remark else []
    if newest > version:
        remarks.append(f"{name} v{newest} is in force: v{version} decides nothing any more.")
    return Checked(path, found, None, tuple(remarks))


@policy.command()
def check(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(help="Policy files, or folders of them.")],
    config: Config = None,
) -> None:
    """Say what a policy file means, and whether it may be released. Exit code 1 if any would be refused.

    Example: opx policy check policies/flap-damped.v1.json
    """

    async def work(invocation: Invocation) -> int:
        screen, known = invocation.screen, in_force(config)
        paths = files_of(files, POLICIES)
        if not paths:
            raise CommandError("There is no policy file in there.", f"{invocation.opx} policy check FILE", REFUSED)
        found = [checked(path, known) for path in paths]
        for one in found:
            _show_checked(screen, one)
        wrong = [one for one in found if one.flaw is not None]
        if wrong:
            screen.next(*(str(one.flaw.advice) for one in wrong if one.flaw is not None))
            return REFUSED
        screen.next(f"{invocation.opx} policy try {paths[0]} --against stack")
        return DONE

    run(context, work)


def _show_checked(screen: Screen, one: Checked) -> None:
    if screen.as_json:
        screen.record(one.to_document())
        return
    if one.flaw is not None:
        screen.say(Text.assemble(("refused  ", "bold red"), cell(one.path, "bold")))
        screen.say(cell(f"  {one.flaw.sentence()}"))
        screen.say()
        return
    if one.policy is None:
        return
    found = one.policy.policy
    title = f"{found.policy_id} v{found.version}"
    screen.say(Text.assemble(("ok  ", "bold green"), cell(title, "bold cyan"), cell(f"  {one.path}", "dim")))
    if found.description:
        screen.say(cell(f"    {found.description}"))
    screen.say("An incident opens where all of this holds; the first that does not decides:", "dim")
    words = policy_in_words(found)
    screen.table([Column("condition"), Column("holds where", wrap=True)], [(cell(name), cell(text)) for name, text in words])
    kept = span_of_time(found.pending_expires_s)
    screen.say(f"A pending incident of which nothing is seen for {kept} no longer holds its key.", "dim")
    if found.order_dependence:
        screen.say(
            Text.assemble(
                ("The order of arrival can change what it opens: ", "bold yellow"),
                cell(f"{found.order_dependence}. What comes mild first can open, what comes severe first waits."),
            )
        )
    for remark in one.remarks:
        screen.say(Text.assemble(("Note: ", "yellow"), cell(remark)))
    screen.say()


@policy.command("list")
def list_policies(
    context: typer.Context,
    every: Annotated[bool, typer.Option("--all", help="Every released version, not the newest alone.")] = False,
    config: Config = None,
) -> None:
    """Show the policies in force: what each asks for, and whether it ships with opx or is your own.

    Example: opx policy list --config examples/config
    """

    async def work(invocation: Invocation) -> int:
        screen, known = invocation.screen, in_force(config)
        newest: list[PinnedPolicy] = newest_only(known.policies.pinned)
        shown = [known.policies.pinned[key] for key in sorted(known.policies.pinned)] if every else newest
        listed = [_listed(one, known, in_force=one in newest) for one in shown]
        show_listed(screen, ("policy", "opens"), listed)
        screen.next(f"{invocation.opx} policy check FILE", f"{invocation.opx} policy explain INCIDENT")
        return DONE

    run(context, work)


def _listed(one: PinnedPolicy, known: InForce, *, in_force: bool) -> Listed:
    found, short = one.policy, policy_in_short(one.policy)
    names: Document = {"policyId": found.policy_id, "version": found.version}
    told = short + (" (depends on order)" if found.order_dependence else "")
    return Listed(names, one.digest, known.is_own(one), in_force, short, told, found.to_document())

"""`opx rules …`: which correlation rules there are, and what a new one would make of messages you have.

Reads files only; no stack is asked, and nothing is sent. The trial itself is next door, in `rule_trial`.
"""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.text import Text

from pipeline.cli.messages import Mappings, counted, opened, signals
from pipeline.cli.rule_trial import RuleTrial, WindowTrial, try_rule
from pipeline.cli.session import Invocation, run
from pipeline.cli.telling import short_time
from pipeline.cli.terminal import DONE, REFUSED, Column, CommandError, Screen, cell, severity_cell, time_of
from pipeline.cli.versioned import (
    RULES,
    Config,
    InForce,
    Listed,
    in_force,
    name_remark,
    newest_only,
    show_listed,
    the_policy,
    the_rule,
    with_policy,
)
from pipeline.domain.canonical import Document
from pipeline.domain.errors import Refusal
from pipeline.domain.explanation import rule_in_short
from pipeline.domain.promotion import Policies
from pipeline.domain.rules import PinnedRule
from pipeline.runtime import shipped

SHOWN_MAX: Final = 100
UNREAD_MAX: Final = 5
GROUP_CHARACTERS_MIN: Final = 24

rules = typer.Typer(no_args_is_help=True, help="Correlation rules: list them, try one on messages you have.")


@rules.command("list")
def list_rules(
    context: typer.Context,
    every: Annotated[bool, typer.Option("--all", help="Every released version, not the newest alone.")] = False,
    config: Config = None,
) -> None:
    """Show the rules in force: what each counts, and whether it ships with opx or is your own.

    Example: opx rules list --config examples/config
    """

    async def work(invocation: Invocation) -> int:
        screen, known = invocation.screen, in_force(config)
        newest: list[PinnedRule] = newest_only(known.rules.pinned)
        shown = [known.rules.pinned[key] for key in sorted(known.rules.pinned)] if every else newest
        if not shown:
            screen.say("No rule is in force: alarms are candidates at once, and detections of your own are refused.")
            screen.next(f"{invocation.opx} rules list --config DIR", f"{invocation.opx} rules try RULE --against FILE")
            return DONE
        show_listed(screen, ("rule", "counts"), [_listed(one, known) for one in shown])
        screen.next(f"{invocation.opx} rules try RULE --against FILE")
        return DONE

    run(context, work)


def _listed(one: PinnedRule, known: InForce) -> Listed:
    found, meaning = one.rule, rule_in_short(one.rule)
    names: Document = {"ruleId": found.rule_id, "version": found.version}
    active = one in known.rules.active
    return Listed(names, one.digest, known.is_own(one), active, meaning, meaning, found.to_document())


@rules.command("try")
def try_(
    context: typer.Context,
    rule: Annotated[Path, typer.Argument(help="The rule's file; it need not be in force.")],
    against: Annotated[str, typer.Option(help="A file of messages, one JSON object a line; or -.")],
    policy: Annotated[
        Path | None, typer.Option(help="Ask the gate under this policy file, not the rule's policy in force.")
    ] = None,
    sent_at: Annotated[
        str | None, typer.Option("--sent-at", metavar="TIME", help="When all were sent; else when each was observed.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every window, also those that stay below.")] = False,
    config: Config = None,
) -> None:
    """Say what a rule would make of messages you have: which windows reach its threshold, when, and what then opens.

    Example: opx rules try flapping.v1.json --against tests/data/cloudwatch_alarms.jsonl
    """

    async def work(invocation: Invocation) -> int:
        screen, again = invocation.screen, f"{invocation.opx} rules try"
        pinned = the_rule(rule, invocation)
        policies = _policies(invocation, pinned, policy, config)
        if policy is not None:
            # Under the policy that was named, whatever the rule says.
            named = the_policy(policy, invocation).policy.policy_id
            pinned = replace(pinned, rule=pinned.rule.model_copy(update={"policy_id": named}))
        when = None if sent_at is None else time_of(sent_at, "--sent-at", again)
        mappings = Mappings(shipped.alarm_mappings(config), shipped.alert_mapping(config))
        with opened(against, None, again) as lines, screen.progress("counting") as meter:
            trial = try_rule(pinned, policies, signals(counted(lines, meter), mappings, when))
        if not trial.messages:
            raise CommandError("There is no message in there.", f"{again} --help", REFUSED)
        _show(screen, pinned, trial, policies is not None, every=every)
        remark = name_remark(rule, pinned.rule.rule_id, pinned.rule.version, RULES)
        if remark:
            screen.notice(remark)
        screen.next(f"put it into the rules folder of your configuration, then {invocation.opx} up --config DIR")
        return DONE

    run(context, work)


def _policies(invocation: Invocation, pinned: PinnedRule, file: Path | None, config: Path | None) -> Policies | None:
    known = in_force(config).policies
    if file is not None:
        return with_policy(known, the_policy(file, invocation))
    if isinstance(known.newest(pinned.rule.policy_id), Refusal):
        policy_id = pinned.rule.policy_id
        invocation.screen.notice(f"There is no policy {policy_id}: the gate is not asked, and the build would refuse this.")
        return None
    return known


def _show(screen: Screen, pinned: PinnedRule, trial: RuleTrial, judged: bool, *, every: bool) -> None:
    opens = sum(one.opened_at is not None for one in trial.windows)
    facts: Document = {
        "windows": len(trial.windows),
        "reached": len(trial.reached),
        "detections": trial.counted,
        "copies": trial.copies,
        "recoveries": trial.recoveries,
        "unmatched": trial.unmatched,
        "candidates": trial.candidates,
        "unread": len(trial.unread),
    }
    if judged:
        facts |= {"opens": opens}
    if screen.as_json:
        for one in trial.windows:
            screen.record(one.to_document())
        rule = pinned.rule
        screen.record({"kind": "summary", "ruleId": rule.rule_id, "version": rule.version, "digest": pinned.digest} | facts)
        return
    threshold = pinned.rule.threshold.detections
    screen.say(Text.assemble((f"{pinned.rule.rule_id} v{pinned.rule.version}", "bold cyan"), cell("  ")))
    screen.say(cell(rule_in_short(pinned.rule), "dim"))
    columns = [
        Column("group", wrap=True, floor=GROUP_CHARACTERS_MIN),
        Column("from"),
        Column("to"),
        Column("seen", right=True),
        Column("reached"),
        Column("sev"),
        *([Column("gate", floor=9, wrap=True)] if judged else []),
    ]
    shown = trial.windows if every else _telling(trial)[:SHOWN_MAX]
    groups = [one.span.group for one in shown]
    first = [index == 0 or group != groups[index - 1] for index, group in enumerate(groups)]
    screen.table(columns, [_row(*found, threshold, judged) for found in zip(shown, first, strict=True)])
    if (hidden := len(trial.windows) - len(shown)) > 0:
        screen.say(f"{hidden} more windows, which count less or as much, are not shown (--all).", "dim")
    _totals(screen, trial, opens if judged else None)


def _telling(trial: RuleTrial) -> list[WindowTrial]:
    """Return the windows that reached the threshold, and of a group without one the window that came nearest."""
    best: dict[str, WindowTrial] = {}
    for one in trial.windows:
        known = best.get(one.span.dedup_key)
        if known is None or one.window.detections > known.window.detections:
            best[one.span.dedup_key] = one
    fired = {one.span.dedup_key for one in trial.reached}
    nearest = {id(one) for key, one in best.items() if key not in fired}
    return [one for one in trial.windows if one.reached_at is not None or id(one) in nearest]


def _row(one: WindowTrial, first: bool, threshold: int, judged: bool) -> list[Text]:
    yes = one.reached_at is not None
    style = "bold" if yes else "dim"
    gate = {"PROMOTE": "bold red", "joins": "dim"}.get(one.gate, "yellow")
    return [
        cell(" ".join(str(value) for value in one.span.group.values()) if first else "", style),
        cell(short_time(one.span.starts_at), style),
        cell(_end(one), style),
        cell(f"{one.window.detections} of {threshold}", style),
        cell(short_time(one.reached_at), "bold green") if one.reached_at is not None else cell("no", "dim"),
        severity_cell(one.window.severity),
        *([cell("opens" if one.opened_at is not None else one.gate, gate)] if judged else []),
    ]


def _end(one: WindowTrial) -> str:
    same_day = one.span.starts_at.date() == one.span.ends_at.date()
    return one.span.ends_at.strftime("%H:%M") if same_day else short_time(one.span.ends_at)


def _totals(screen: Screen, trial: RuleTrial, opens: int | None) -> None:
    groups = Counter(one.span.dedup_key for one in trial.windows)
    fired = {one.span.dedup_key for one in trial.reached}
    many = f"{len(trial.reached)} of {len(trial.windows)} windows reach it, in {len(fired)} of {len(groups)} groups"
    screen.say(Text.assemble((many, "bold"), cell("." if opens is None else f"; the gate would open {opens} incidents.")))
    parts = [
        (trial.counted, "detections counted"),
        (trial.copies, "copies of them"),
        (trial.recoveries, "recoveries or no-data: evidence, never counted"),
        (trial.unmatched, "that this rule does not match"),
        (trial.candidates, "candidates, which no rule counts"),
        (len(trial.unread), "that opx would refuse:"),
    ]
    for number, text in parts:
        if number:
            screen.say(cell(f"{number:>7}  {text}", "red" if text.endswith(":") else ""))
    for item in trial.unread[:UNREAD_MAX]:
        screen.say(cell(f"         line {item.number}: {item.sentence()}", "red"))
    if len(trial.unread) > UNREAD_MAX:
        screen.say(f"         … and {len(trial.unread) - UNREAD_MAX} more: opx lint FILE", "red")

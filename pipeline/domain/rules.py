"""Correlation rules: which detections count together, in how wide a window, and what incident many of them ask for.

A rule is a versioned data file; a released one is never changed, the newest version of a rule is in force. Counting by
rules is in `correlation`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from string import Formatter
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, TypeAdapter, model_validator

from pipeline.domain.base import Line, Model, Sequence, Service, Share, Slug, any_covers, read
from pipeline.domain.candidates import Detection
from pipeline.domain.canonical import Document, digest
from pipeline.domain.errors import Refusal
from pipeline.domain.promotion import DEFAULT_POLICY, LaxSeverity, Policies
from pipeline.domain.transitions import Severity

MOST_SEVERE: Final = "most-severe"
_FIELDS: Final = ("service", "source", "signalType", "severity", "dedupKey", "resource")
ATTRIBUTE: Final = "attributes."
_RULE_FIELDS: Final = ("rule", "threshold", "window")


def _groupable(name: str) -> str:
    if name not in _FIELDS and not (name.startswith(ATTRIBUTE) and len(name) > len(ATTRIBUTE)):
        raise ValueError(f"{name!r} is none of {', '.join(_FIELDS)} or {ATTRIBUTE}NAME")
    return name


GroupField = Annotated[Line, AfterValidator(_groupable)]
Template = Annotated[str, Field(min_length=1, max_length=2048)]


class Match(Model):
    """Which detections a rule counts; patterns with `*`. What is left out matches everything."""

    services: tuple[Line, ...] = ("*",)
    sources: tuple[Line, ...] = ("*",)
    signal_types: tuple[Line, ...] = ("*",)
    severities: Annotated[tuple[LaxSeverity, ...], Field(min_length=1)] = tuple(Severity)


class Threshold(Model):
    """When a window becomes a candidate: so many detections, the most severe of them at least this severe."""

    detections: Sequence
    minimum_severity: LaxSeverity = Severity.SEV4


class Rule(Model):
    """One rule file. `windowS` in seconds; `cap` is how many detections a window keeps by name: it counts on above it.

    `note` is for those who read the file; `title` and `description` are the incident's. `severity` is fixed or the most
    severe counted. Templates may use the fields of `groupBy` and {rule}, {threshold} and {window}: only what is the same
    for every detection of the group, so that the words depend on no order.
    """

    rule_id: Slug
    version: Sequence
    note: str = ""
    enabled: bool = True
    match: Match = Match()
    group_by: Annotated[tuple[GroupField, ...], Field(min_length=1, max_length=8)] = ("service",)
    window_s: Annotated[int, Field(ge=60, le=7 * 24 * 3600)]
    threshold: Threshold
    service: Service | None = None
    severity: LaxSeverity | Literal["most-severe"] = MOST_SEVERE
    confidence: Share
    title: Template
    description: Template | None = None
    policy_id: Slug = DEFAULT_POLICY
    cap: Annotated[int, Field(ge=1, le=50)] = 20

    @model_validator(mode="after")
    def _consistent(self) -> "Rule":
        if self.service is None and "service" not in self.group_by:
            raise ValueError("groupBy has no service, so the rule must name the service of its incidents")
        if len(set(self.group_by)) != len(self.group_by):
            raise ValueError("groupBy names a field twice")
        known = {*self.group_by, *_RULE_FIELDS}
        for template in filter(None, (self.title, self.description)):
            for name in _names_in(template):
                if name not in known:
                    raise ValueError(f"{{{name}}} is none of {', '.join(sorted(known))}")
        return self

    def matches(self, detection: Detection) -> bool:
        return (
            any_covers(self.match.services, detection.service)
            and any_covers(self.match.sources, detection.source)
            and any_covers(self.match.signal_types, detection.signal_type)
            and detection.severity in self.match.severities
        )


def _names_in(template: str) -> list[str]:
    names = []
    for _, name, spec, conversion in Formatter().parse(template):
        if name is None:
            continue
        if spec or conversion:
            raise ValueError(f"{{{name}}} takes no format")
        names.append(name)
    return names


_RULE: Final = TypeAdapter(Rule)


@dataclass(frozen=True, slots=True)
class PinnedRule:
    """A rule with the digest of the file it was read from."""

    rule: Rule
    digest: str


@dataclass(frozen=True, slots=True)
class Rules:
    """Every released version of every rule; `active` are the newest ones that are enabled, by id."""

    pinned: dict[tuple[str, int], PinnedRule]
    active: tuple[PinnedRule, ...]

    @classmethod
    def load(cls, documents: Iterable[Document], policies: Policies | None = None) -> "Rules":
        """Read rule files. Raises `Rejected` naming the wrong field, ValueError where two have one id and version, or where
        a rule names a policy that is not among `policies`.
        """
        found = [PinnedRule(read(_RULE, document), digest(document)) for document in documents]
        pinned = {(item.rule.rule_id, item.rule.version): item for item in found}
        if len(pinned) != len(found):
            raise ValueError("two rule files have one ruleId and version; a released version is never changed")
        newest = {rule_id: pinned[rule_id, version] for rule_id, version in sorted(pinned)}
        active = tuple(item for item in newest.values() if item.rule.enabled)
        for item in active:
            if policies is not None and isinstance(policies.newest(item.rule.policy_id), Refusal):
                raise ValueError(f"rule {item.rule.rule_id!r}: there is no policy {item.rule.policy_id!r}")
        return cls(pinned, active)

    def matching(self, detection: Detection) -> tuple[PinnedRule, ...]:
        return tuple(item for item in self.active if item.rule.matches(detection))


NO_RULES: Final = Rules({}, ())

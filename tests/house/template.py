"""Read template.yaml as CloudFormation would, without CloudFormation.

`load` gives the file with its short tags as `{"Ref": …}`; `resolve` gives what one stage deploys: parameters, mappings
and conditions applied, resources and outputs that a condition leaves out gone. A reference to a resource becomes its
logical id, an attribute `Id.Attribute`. An intrinsic function that is not known here is an error, never passed through.
`Promises` collects checks together with the changes of the file that must break them.
"""

import copy
import functools
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
STAGES = ("local", "dev", "prod")
PSEUDO = {
    "AWS::AccountId": "123456789012",
    "AWS::Partition": "aws",
    "AWS::Region": "us-east-1",
    "AWS::StackName": "OpxControlPlaneStack",
    "AWS::URLSuffix": "amazonaws.com",
}
# What a stack may be told beside its stage. Every promise holds with the defaults, and with all of these.
OPTIONS = {
    "ApiGatewayAccountRole": "exists",
    "DeploymentType": "Canary10Percent5Minutes",
    "ArchiveAfterDays": "0",
    "OrganizationId": "o-0123456789",
    "WebhookUrl": "https://chat.example/hook",
    "AlarmEmail": "oncall@example.com",
    "AlarmPeriodSeconds": "300",
    "RunbookBaseUrl": "https://git.example/opx/infra/runbooks",
}
Raw = dict[str, Any]
Parts = dict[str, Any]
Check = Callable[[Parts], Iterator[str]]
Change = tuple[str, Any]
GONE = object()
# What AWS itself keeps, and this file can't look into.
MANAGED_BY_AWS = f"arn:{PSEUDO['AWS::Partition']}:iam::aws:policy/"


class _Loader(yaml.SafeLoader):
    """A safe loader that knows CloudFormation's short tags."""


def _intrinsic(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Raw:
    name = suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}"
    if isinstance(node, yaml.ScalarNode):
        return {name: loader.construct_scalar(node)}
    if isinstance(node, yaml.SequenceNode):
        return {name: loader.construct_sequence(node, deep=True)}
    raise ValueError(f"!{suffix} on a mapping is not read here")


_Loader.add_multi_constructor("!", _intrinsic)


def load(name: str = "template.yaml") -> Raw:
    """Return a template of the project parsed, a copy that a test may change."""
    return copy.deepcopy(_parsed(name))


@functools.cache
def _parsed(name: str) -> Raw:
    # The loader is a SafeLoader whose tags build plain dicts.
    template: Raw = yaml.load((ROOT / name).read_text(encoding="utf-8"), _Loader)
    return template


class _Resolver:
    def __init__(self, template: Raw, stage: str, parameters: Mapping[str, str]) -> None:
        # CloudFormation hands parameters on as text, also those of type Number.
        self.parameters = {name: str(body.get("Default", "")) for name, body in template["Parameters"].items()}
        self.parameters |= {"Stage": stage, **parameters} | PSEUDO
        self.mappings = template["Mappings"]
        self.conditions: dict[str, bool] = {}
        for name, body in template["Conditions"].items():  # one that asks for another stands below it
            self.conditions[name] = bool(self.value(body))

    def value(self, node: Any) -> Any:
        if isinstance(node, list):
            return [item for item in map(self.value, node) if item is not GONE]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            ((name, argument),) = node.items()
            if name in ("Ref", "Condition") or name.startswith("Fn::"):
                return self.call(name, argument)
        values = {key: self.value(item) for key, item in node.items()}
        return {key: item for key, item in values.items() if item is not GONE}

    def kept(self, bodies: Raw) -> Parts:
        """Return what no condition leaves out."""
        return {
            name: self.value(body)
            for name, body in bodies.items()
            if "Condition" not in body or self.conditions[body["Condition"]]
        }

    def call(self, name: str, argument: Any) -> Any:
        match name:
            case "Ref":
                return GONE if argument == "AWS::NoValue" else self.parameters.get(argument, argument)
            case "Fn::GetAtt":
                return argument
            case "Fn::Sub":
                return re.sub(r"\$\{([^}]+)\}", lambda found: self.parameters.get(found[1], found[1]), argument)
            case "Fn::FindInMap":
                table, first, second = self.value(argument)
                return self.mappings[table][first][second]
            case "Fn::If":
                condition, yes, no = argument
                return self.value(yes if self.conditions[condition] else no)
            case "Fn::Equals":
                left, right = self.value(argument)
                return left == right
            case "Fn::Not":
                return not self.value(argument)[0]
            case "Fn::And":
                return all(self.value(argument))
            case "Condition":
                return self.conditions[argument]
            case _:
                raise ValueError(f"{name} is not read here")


def resolve(template: Raw, stage: str, parameters: Mapping[str, str] | None = None) -> Parts:
    """Return the resources and outputs that `stage` deploys, the function defaults merged in.

    `LeftOut` names the resources that a condition leaves out, `Parameters` are the values of all.
    """
    resolver = _Resolver(template, stage, parameters or {})
    resources = resolver.kept(template["Resources"])
    defaults = resolver.value(template["Globals"]["Function"])
    for body in resources.values():
        if body["Type"] == "AWS::Serverless::Function":
            body["Properties"] = _merged(defaults, body["Properties"])
    return {
        "Stage": stage,
        "Globals": list(template["Globals"]),
        "Parameters": resolver.parameters,
        "Resources": resources,
        "LeftOut": template["Resources"].keys() - resources.keys(),
        "Outputs": resolver.kept(template["Outputs"]),
    }


def _merged(defaults: Any, own: Any) -> Any:
    if not (isinstance(defaults, dict) and isinstance(own, dict)):
        return own
    both = {key: _merged(defaults[key], own[key]) for key in defaults.keys() & own.keys()}
    return defaults | own | both


def of_type(parts: Parts, kind: str) -> Iterator[tuple[str, Parts]]:
    """Yield (logical id, properties) of every resource of a type."""
    for name, body in parts["Resources"].items():
        if body["Type"] == kind:
            yield name, body.get("Properties", {})


def as_list(value: Any) -> list[Any]:
    """Return a policy's one-or-many as many."""
    return value if isinstance(value, list) else [value]


def queue_statements(parts: Parts, queue: str) -> list[Parts]:
    """Return the statements of every policy attached to a queue."""
    return [
        statement
        for _, policy in of_type(parts, "AWS::SQS::QueuePolicy")
        if queue in policy["Queues"]
        for statement in policy["PolicyDocument"]["Statement"]
        if statement["Resource"] == f"{queue}.Arn"
    ]


def identity_statements(parts: Parts, holder: str) -> list[Parts]:
    """Return the statements of a role, those of its managed policies included, or of a managed policy.

    One that AWS keeps counts as one that allows all that its name says.
    """
    if holder.startswith(MANAGED_BY_AWS):
        return [{"Sid": "KeptByAws", "Effect": "Allow", "Action": "all-that-it-says", "Resource": holder}]
    resource = parts["Resources"][holder]
    if resource["Type"] == "AWS::IAM::ManagedPolicy":
        return list(resource["Properties"]["PolicyDocument"]["Statement"])
    own = [
        statement
        for policy in resource["Properties"].get("Policies", [])
        for statement in policy["PolicyDocument"]["Statement"]
    ]
    attached = resource["Properties"].get("ManagedPolicyArns", [])
    return own + [statement for policy in attached for statement in identity_statements(parts, policy)]


def grants(parts: Parts, holder: str) -> set[tuple[str, str]]:
    """Return every (action, resource) that is allowed, of an ARN only the part behind the account."""
    return {
        (action, resource.removesuffix(".Arn").rpartition(f"{PSEUDO['AWS::AccountId']}:")[2].removeprefix(MANAGED_BY_AWS))
        for statement in identity_statements(parts, holder)
        if statement["Effect"] == "Allow"
        for action in as_list(statement["Action"])
        for resource in as_list(statement["Resource"])
    }


def arn_of(parts: Parts, queue: str) -> str:
    """Return the ARN that a queue's name makes, for policies that can't refer to it without a cycle."""
    name = parts["Resources"][queue]["Properties"]["QueueName"]
    return f"arn:aws:sqs:{PSEUDO['AWS::Region']}:{PSEUDO['AWS::AccountId']}:{name}"


def sources(parts: Parts, kind: str) -> Iterator[tuple[str, Parts]]:
    """Yield (function's logical id, event source's properties) of every event source of a kind."""
    for name, function in of_type(parts, "AWS::Serverless::Function"):
        for event in function["Events"].values():
            if event["Type"] == kind:
                yield name, event["Properties"]


def assumed_by(parts: Parts, role: str) -> list[Any]:
    """Return who may assume a role."""
    trust = parts["Resources"][role]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    return [statement["Principal"] for statement in trust]


def holders(parts: Parts) -> list[str]:
    """Return the logical ids of everything that grants: roles and managed policies."""
    kinds = ("AWS::IAM::Role", "AWS::IAM::ManagedPolicy")
    return [name for kind in kinds for name, _ in of_type(parts, kind)]


def key_names(table_or_index: Parts) -> list[str]:
    """Return the names of the hash and the range key."""
    return [key["AttributeName"] for key in table_or_index["KeySchema"]]


class Promises:
    """Checks by name, and for each the changes of the file that it must notice."""

    def __init__(self) -> None:
        self.checks: dict[str, Check] = {}
        self.changes: list[tuple[str, Change]] = []

    def promise(self, *changes: Change) -> Callable[[Check], Check]:
        """Register a check with the changes (path in the file, new value) each of which must break it."""

        def register(check: Check) -> Check:
            self.checks[check.__name__] = check
            self.changes += [(check.__name__, change) for change in changes]
            return check

        return register

    def change_names(self) -> list[str]:
        """Return what a test of each change is called."""
        return [f"{name}-{n}-{path}" for n, (name, (path, _)) in enumerate(self.changes)]

    def broken(self, name: str, stage: str, change: Change | None = None) -> list[str]:
        """Return what doesn't keep a promise in a stage, with any options, after a change of the file where one is given."""
        template = load()
        if change is not None:
            _apply(template, *change)
        return [problem for options in ({}, OPTIONS) for problem in self.checks[name](resolve(template, stage, options))]


def _apply(template: Raw, path: str, value: Any) -> None:
    """Set what is at a path of keys and list positions, below Resources unless it begins elsewhere, or remove it.

    A position one behind a list's last adds to it.
    """
    *parents, last = [int(key) if key.isdecimal() else key for key in path.split("/")]
    place: Any = template if parents and parents[0] in ("Outputs", "Globals", "Conditions") else template["Resources"]
    for key in parents:
        place = place[key]
    if value is GONE:
        del place[last]
    elif last == len(place) and isinstance(place, list):
        place.append(value)
    else:
        place[last] = value

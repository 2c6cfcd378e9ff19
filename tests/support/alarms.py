"""The alarms of template.yaml, and whether they would be raised by what functions have written. CloudWatch, in small.

An alarm is evaluated by its own definition: metrics, statistic, expression, threshold, comparison and what it makes of
missing data. What was written counts as one period, and as enough of them in a row.
"""

import ast
import json
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from tests.house.template import PSEUDO, load, of_type, resolve

STATISTICS: Final[dict[str, Callable[[list[float]], float]]] = {"Sum": sum, "Maximum": max}
COMPARISONS: Final[dict[str, Callable[[float, float], bool]]] = {
    "GreaterThanThreshold": operator.gt,
    "LessThanThreshold": operator.lt,
}
_ARITHMETIC: Final[dict[type[ast.operator], Callable[[float, float], float]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
# Namespace, name, and the one dimension's name and value.
Series = tuple[str, str, str, str]


class Written:
    """Values by series, in one period."""

    def __init__(self) -> None:
        self.values: dict[Series, list[float]] = {}

    def add(self, series: Series, *values: float) -> None:
        self.values.setdefault(series, []).extend(values)

    def read(self, lines: Iterable[str]) -> "Written":
        """Take the metrics out of what a function wrote; lines that hold none are passed over."""
        for line in lines:
            document = json.loads(line) if line.startswith("{") else {}
            for directive in document.get("_aws", {}).get("CloudWatchMetrics", ()):
                for (dimension,) in directive["Dimensions"]:
                    for metric in directive["Metrics"]:
                        found = document[metric["Name"]]
                        series = (directive["Namespace"], metric["Name"], dimension, document[dimension])
                        self.add(series, *(found if isinstance(found, list) else [found]))
        return self


@dataclass(frozen=True)
class Alarm:
    """One alarm as a stage deploys it."""

    id: str
    properties: dict[str, Any]

    def watched(self) -> dict[str, tuple[Series, str]]:
        """Return the series an alarm is made of and their statistics, by the ids its expression knows them by."""
        alone = self.properties
        if "Metrics" not in alone:
            return {"watched": (_series(alone), alone["Statistic"])}
        stats = {query["Id"]: query["MetricStat"] for query in alone["Metrics"] if "MetricStat" in query}
        return {name: (_series(stat["Metric"]), stat["Stat"]) for name, stat in stats.items()}

    @property
    def expression(self) -> str:
        found = [query["Expression"] for query in self.properties.get("Metrics", ()) if "Expression" in query]
        assert len(found) <= 1, f"{self.id}: an alarm watches one number"
        return str(found[0]) if found else "watched"

    def value(self, written: Written) -> float | None:
        """Return the number that is compared, None where data is missing."""
        known = {
            name: STATISTICS[stat](written.values[series]) if series in written.values else None
            for name, (series, stat) in self.watched().items()
        }
        return _evaluated(ast.parse(self.expression, mode="eval").body, known)

    def is_raised(self, written: Written) -> bool:
        value = self.value(written)
        if value is None:
            return bool(self.properties["TreatMissingData"] == "breaching")
        return COMPARISONS[self.properties["ComparisonOperator"]](value, float(self.properties["Threshold"]))


def alarms(stage: str = "prod", **parameters: str) -> dict[str, Alarm]:
    """Return every alarm by its logical id; those on sums are not in `local`, whose engine refuses them."""
    parts = resolve(load(), stage, parameters)
    return {name: Alarm(name, properties) for name, properties in of_type(parts, "AWS::CloudWatch::Alarm")}


def runbook_of(alarm: Alarm) -> str:
    """Return the runbook's name, as the end of the alarm's description says it."""
    return str(alarm.properties["AlarmDescription"]).rpartition("/")[2].removesuffix(".md")


def dashboard() -> dict[str, Any]:
    """Return the dashboard's body as prod deploys it."""
    ((_, properties),) = of_type(resolve(load(), "prod"), "AWS::CloudWatch::Dashboard")
    body: dict[str, Any] = json.loads(properties["DashboardBody"])
    return body


def arn_of(alarm: Alarm) -> str:
    place = f"{PSEUDO['AWS::Region']}:{PSEUDO['AWS::AccountId']}"
    return f"arn:{PSEUDO['AWS::Partition']}:cloudwatch:{place}:alarm:{alarm.properties['AlarmName']}"


def _series(metric: dict[str, Any]) -> Series:
    (dimension,) = metric["Dimensions"]
    return metric["Namespace"], metric["MetricName"], dimension["Name"], dimension["Value"]


def _evaluated(node: ast.expr, known: dict[str, float | None]) -> float | None:
    match node:
        case ast.Constant(value=int() | float() as number):
            return float(number)
        case ast.Name(id=name):
            return known[name]
        case ast.BinOp(left=left, op=sign, right=right):
            one, other = _evaluated(left, known), _evaluated(right, known)
            return None if one is None or other is None else _ARITHMETIC[type(sign)](one, other)
        case ast.Call(func=ast.Name(id="FILL"), args=[series, number]):
            found = _evaluated(series, known)
            return _evaluated(number, known) if found is None else found
        case ast.Call(func=ast.Name(id="SUM"), args=[ast.List(elts=parts)]):
            found_values = [value for value in (_evaluated(part, known) for part in parts) if value is not None]
            return sum(found_values) if found_values else None
        case _:
            raise ValueError(f"this metric math is not read here: {ast.unparse(node)}")

"""What of template.yaml and of the table of metrics costs money whether anything happens or not, counted as they stand."""

from dataclasses import dataclass
from typing import Any, Final

from pipeline.runtime.metrics import MEASURES
from tests.house.template import Parts, load, of_type, resolve

# Of each method of a REST API with detailed metrics and no cache: Count, Latency, IntegrationLatency, 4XXError, 5XXError.
METRICS_A_METHOD: Final = 5
# Metrics that are theirs alone are written in every run.
SCHEDULED: Final = (("health",), ("retention",))
# Shared with others, but told by each run of retention, also as 0: its alarm asks for it.
ALWAYS_TOLD: Final = frozenset({"opx-retention/Unavailable"})
RUNS_A_DAY: Final = {"rate(1 minute)": 1440, "rate(1 hour)": 24}


@dataclass(frozen=True, slots=True)
class Stack:
    """Counts of one stage with the template's own parameters."""

    memory_gb: float
    architecture: str
    polled_standard: int
    polled_fifo: int
    looked_at_standard: int
    looked_at_fifo: int
    deciding_functions: int
    tables: int
    metrics: int
    scheduled_metrics: frozenset[str]
    metrics_a_method: int
    methods: int
    alarm_metrics: int
    dashboards: int
    health_runs_a_day: int
    retention_runs_a_day: int
    log_days: int
    archive_days: int
    access_line_bytes: int


def stack(stage: str = "prod") -> Stack:
    """Count the parts that `stage` deploys."""
    parts = resolve(load(), stage)
    functions = dict(of_type(parts, "AWS::Serverless::Function"))
    fifo = {name for name, queue in of_type(parts, "AWS::SQS::Queue") if queue.get("FifoQueue")}
    polled = [
        event["Properties"]["Queue"].partition(".")[0]
        for function in functions.values()
        for event in function.get("Events", {}).values()
        if event["Type"] == "SQS"
    ]
    variables = functions["HealthFunction"]["Environment"]["Variables"]
    looked_at = [value for name, value in variables.items() if name.endswith("_URL") and value]
    (api,) = (properties for _, properties in of_type(parts, "AWS::Serverless::Api"))
    methods = [event for event in functions["ApiFunction"]["Events"].values() if event["Type"] == "Api"]
    detailed = any(setting.get("MetricsEnabled") for setting in api["MethodSettings"])
    return Stack(
        memory_gb=functions["CandidatesFunction"]["MemorySize"] / 1024,
        architecture=parts["Parameters"]["Architecture"],
        polled_standard=sum(queue not in fifo for queue in polled),
        polled_fifo=sum(queue in fifo for queue in polled),
        looked_at_standard=sum(queue not in fifo for queue in looked_at),
        looked_at_fifo=sum(queue in fifo for queue in looked_at),
        deciding_functions=sum(
            "OPX_INCIDENTS_TABLE" in function["Environment"]["Variables"] for function in functions.values()
        ),
        tables=len(list(of_type(parts, "AWS::DynamoDB::Table"))),
        metrics=sum(len(measure.doors) for measure in MEASURES.values()),
        scheduled_metrics=frozenset(
            f"opx-{door}/{metric}"
            for metric, measure in MEASURES.items()
            for door in measure.doors
            if measure.doors in SCHEDULED
        )
        | ALWAYS_TOLD,
        metrics_a_method=METRICS_A_METHOD if detailed else 0,
        methods=len(methods),
        alarm_metrics=sum(_metrics_of(alarm) for _, alarm in of_type(parts, "AWS::CloudWatch::Alarm")),
        dashboards=len(list(of_type(parts, "AWS::CloudWatch::Dashboard"))),
        health_runs_a_day=_runs(functions["HealthFunction"]),
        retention_runs_a_day=_runs(functions["RetentionFunction"]),
        log_days=int(parts["Parameters"]["LogRetentionDays"]),
        archive_days=int(parts["Parameters"]["ArchiveRetentionDays"]),
        access_line_bytes=len(str(api["AccessLogSetting"]["Format"])),
    )


def _metrics_of(alarm: Parts) -> int:
    """Return how many metrics an alarm is charged for: each that its expression takes, or its one."""
    return sum("MetricStat" in metric for metric in alarm["Metrics"]) if "Metrics" in alarm else 1


def _runs(function: dict[str, Any]) -> int:
    schedules = [event["Properties"]["Schedule"] for event in function["Events"].values() if event["Type"] == "Schedule"]
    return sum(RUNS_A_DAY[schedule] for schedule in schedules)

"""Lambda door: the HTTP API. Wiring only: requests are answered in `api_door`, routes are the table in `pipeline.api`."""

from collections.abc import Callable
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response

from consumers.api_door import ApiDoor
from pipeline.api.routes import ROUTES, Route
from pipeline.domain.canonical import canonical_bytes
from pipeline.runtime import bootstrap
from pipeline.runtime.loop import Environment, deadline_of
from pipeline.runtime.records import http_request_of
from pipeline.runtime.settings import ApiSettings

environment = Environment()
parts = environment.open(bootstrap.api(ApiSettings.read()))
door = ApiDoor(parts.controller, parts.reading, parts.clock, parts.telemetry.answered)
app = APIGatewayRestResolver()


def answering(route: Route) -> Callable[..., Response[str]]:
    """Return what answers the requests of a route, for whoever signed them."""

    def answer(**_: str) -> Response[str]:
        request = http_request_of(app.current_event.raw_event, route)
        deadline = deadline_of(app.lambda_context, parts.clock.monotonic())
        answered = environment.run(door.answer(request, deadline))
        return Response(answered.status, answered.content_type, canonical_bytes(answered.body).decode(), answered.headers)

    return answer


for each in ROUTES:
    app.route(each.path.replace("{", "<").replace("}", ">"), each.method)(answering(each))


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer one request."""
    parts.telemetry.begin(context.aws_request_id)
    try:
        # The gateway has chosen the route: by the path itself, a parameter of odd characters would find none here.
        return app.resolve(event | {"path": event["resource"]}, context)
    finally:
        parts.telemetry.controls_unread(parts.controls.failure)
        parts.telemetry.flush()

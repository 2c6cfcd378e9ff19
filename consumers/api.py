"""Lambda door: the HTTP API. Wiring only: requests are answered in `api_door`, routes are the table in `pipeline.api`."""

from collections.abc import Callable
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response

from consumers.api_door import ApiDoor
from pipeline.api.routes import ROUTES, Route
from pipeline.domain.canonical import canonical_bytes
from pipeline.domain.commands import Declare, RequestPromotion
from pipeline.runtime import bootstrap
from pipeline.runtime.loop import Environment, deadline_of
from pipeline.runtime.records import http_request_of
from pipeline.runtime.settings import ApiSettings

environment = Environment()
parts = environment.open(bootstrap.api(ApiSettings.read()))
door = ApiDoor(parts.controller, parts.reading, parts.clock, parts.telemetry.answered)
app = APIGatewayRestResolver()
# Who reads the live controls; of the others' requests they tell nothing.
ASK_THE_GATE = (Declare, RequestPromotion)


def answering(route: Route) -> Callable[..., Response[str]]:
    """Return what answers the requests of a route, for whoever signed them."""

    def answer(**_: str) -> Response[str]:
        request = http_request_of(app.current_event.raw_event, route)
        deadline = deadline_of(app.lambda_context, parts.clock.monotonic())
        answered = environment.run(door.answer(request, deadline))
        if route.does in ASK_THE_GATE:
            parts.telemetry.controls_unread(parts.controls.failure)
        return Response(answered.status, answered.content_type, canonical_bytes(answered.body).decode(), answered.headers)

    return answer


for each in ROUTES:
    app.route(each.path.replace("{", "<").replace("}", ">"), each.method)(answering(each))


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer one request."""
    # The id that the answer tells, so that whoever reports it is found.
    parts.telemetry.begin(event["requestContext"]["requestId"])
    try:
        # The gateway has chosen the route: by the path itself, a parameter of odd characters would find none here.
        return app.resolve(event | {"path": event["resource"]}, context)
    finally:
        parts.telemetry.flush()

"""The checked-in OpenAPI document and JSON Schemas: made from the code as it is, whole, and valid themselves."""

import json
import re
from pathlib import Path
from typing import Any, Final

import jsonschema_rs
import pytest
import schemathesis

from infra.schemas.openapi import GATEWAY_CODES, document
from infra.schemas.texts import texts
from pipeline.api.requests import SAID_ELSEWHERE
from pipeline.api.routes import ROUTES, Read, Route
from pipeline.domain.errors import HTTP_MEANINGS, MEANINGS
from tests.house.template import load

FOLDER: Final = Path(__file__).parents[2] / "infra" / "schemas"
GENERATED: Final = texts()
DOCUMENT: Final[dict[str, Any]] = json.loads(GENERATED["openapi.json"])
WRITES: Final = [route for route in ROUTES if not isinstance(route.does, Read)]


def operation(route: Route) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["paths"][route.path][route.method.lower()]
    return found


def component(path: str) -> Any:
    found: Any = DOCUMENT
    for part in path.removeprefix("#/").split("/"):
        found = found[part]
    return found


def validator(schema: dict[str, Any]) -> jsonschema_rs.Draft202012Validator:
    """Return the validator of a schema that refers to the document's components."""
    return jsonschema_rs.Draft202012Validator(schema | {"components": DOCUMENT["components"]}, validate_formats=True)


@pytest.mark.parametrize("name", GENERATED)
def test_a_generated_file_is_checked_in_as_the_code_makes_it(name: str) -> None:
    stale = f"infra/schemas/{name} is not what the code makes: run `python -m infra.schemas` and look at the difference"
    assert (FOLDER / name).read_text(encoding="utf-8") == GENERATED[name], stale


def test_nothing_else_is_checked_in_as_generated() -> None:
    assert {path.name for path in FOLDER.glob("*.json")} == set(GENERATED)


def test_the_openapi_document_is_valid() -> None:
    schemathesis.openapi.from_dict(document()).validate()


@pytest.mark.parametrize("name", sorted(set(GENERATED) - {"openapi.json"}))
def test_a_json_schema_is_valid(name: str) -> None:
    jsonschema_rs.meta.validate(json.loads(GENERATED[name]))


def test_every_route_is_in_it_and_no_other() -> None:
    found = {
        (method.upper(), path, made["operationId"])
        for path, ways in DOCUMENT["paths"].items()
        for method, made in ways.items()
    }
    assert found == {(route.method, route.path, route.name) for route in ROUTES}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_a_route_has_all_its_parameters_and_no_other(route: Route) -> None:
    found = [component(one["$ref"]) if "$ref" in one else one for one in operation(route)["parameters"]]
    in_path = {part[1:-1] for part in route.path.split("/") if part.startswith("{")}
    assert {one["name"] for one in found if one["in"] == "query"} == set(route.query)
    assert {one["name"] for one in found if one["in"] == "path"} == in_path


def test_every_code_is_documented_under_its_status() -> None:
    told = component("#/components/schemas/Problem")["properties"]["code"]["description"]
    meanings = [*MEANINGS.items(), *HTTP_MEANINGS.items()]
    for code, meaning in meanings:
        content = component(f"#/components/responses/Problem{meaning.status}")["content"]["application/problem+json"]
        assert code.value in content["schema"]["allOf"][1]["properties"]["code"]["enum"]
        assert content["examples"][code.value]["value"]["next"] == meaning.advice
        assert f"`{code.value}` ({meaning.status}): {meaning.advice}" in told


def test_what_the_gateway_answers_by_itself_is_documented() -> None:
    told = load()["Resources"]["Api"]["Properties"]["GatewayResponses"].values()
    code = re.compile(r'"code": "([a-z-]+)"')
    found = {(code.findall(one["ResponseTemplates"]["application/json"])[0], one["StatusCode"]) for one in told}
    assert found == {(code, status) for code, statuses in GATEWAY_CODES.items() for status in statuses}
    for name, status in found:
        content = component(f"#/components/responses/Problem{status}")["content"]["application/problem+json"]
        assert name in content["schema"]["allOf"][1]["properties"]["code"]["enum"]


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_every_answer_names_the_request_and_every_refusal_is_a_problem(route: Route) -> None:
    for status, answer in operation(route)["responses"].items():
        whole = component(answer["$ref"]) if "$ref" in answer else answer
        assert "Opx-Request-Id" in whole["headers"], status
        assert list(whole["content"]) == ["application/problem+json" if int(status) >= 400 else "application/json"]
        assert ("Retry-After" in whole["headers"]) == (status in ("429", "503"))


@pytest.mark.parametrize("route", WRITES, ids=lambda route: route.name)
def test_a_body_has_every_field_of_its_command_and_says_what_each_is_for(route: Route) -> None:
    assert not isinstance(route.does, Read)
    media = operation(route)["requestBody"]["content"]["application/json"]
    body = component(media["schema"]["$ref"])
    fields = {field.alias or name for name, field in route.does.model_fields.items()}
    assert set(body["properties"]) == fields - set(SAID_ELSEWHERE)
    assert body["additionalProperties"] is False
    assert [name for name, field in body["properties"].items() if "description" not in field] == []


@pytest.mark.parametrize("route", WRITES, ids=lambda route: route.name)
def test_the_example_of_a_body_is_valid(route: Route) -> None:
    media = operation(route)["requestBody"]["content"]["application/json"]
    validator(media["schema"]).validate(media["example"])


def test_every_example_of_a_refusal_is_valid() -> None:
    for answer in DOCUMENT["components"]["responses"].values():
        media = answer["content"]["application/problem+json"]
        for example in media.get("examples", {}).values():
            validator(media["schema"]).validate(example["value"])


def test_every_parameters_example_is_valid() -> None:
    for parameter in DOCUMENT["components"]["parameters"].values():
        if "example" in parameter:
            validator(parameter["schema"]).validate(parameter["example"])
        assert parameter["description"]


def test_the_document_says_how_requests_are_signed() -> None:
    scheme = component("#/components/securitySchemes/sigv4")
    assert (scheme["type"], scheme["in"], scheme["name"]) == ("apiKey", "header", "Authorization")
    assert scheme["x-amazon-apigateway-authtype"] == "awsSigv4"
    assert DOCUMENT["security"] == [{"sigv4": []}]

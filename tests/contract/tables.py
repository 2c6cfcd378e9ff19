"""The three tables as template.yaml defines them, made in any engine under a prefix of their own."""

from typing import Any

from pipeline.stores.dynamodb import Tables
from tests.house.template import load, of_type, resolve

# What CreateTable takes of a table's properties; the rest (backups, protection, encryption) changes no behaviour here.
TAKEN = ("BillingMode", "AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes", "StreamSpecification")


def definitions(prefix: str) -> list[dict[str, Any]]:
    """Return a CreateTable request per table of the template."""
    template = load()
    template["Parameters"]["Prefix"]["Default"] = prefix
    requests = []
    for _, properties in of_type(resolve(template, "local"), "AWS::DynamoDB::Table"):
        request = {name: properties[name] for name in TAKEN if name in properties}
        if "StreamSpecification" in request:
            request["StreamSpecification"] = {"StreamEnabled": True} | request["StreamSpecification"]
        requests.append({"TableName": properties["TableName"]} | request)
    return requests


async def create_tables(client: Any, prefix: str) -> Tables:
    """Create the tables; return their names."""
    for request in definitions(prefix):
        await client.create_table(**request)
    return Tables.with_prefix(prefix)


async def delete_tables(client: Any, tables: Tables) -> None:
    for name in (tables.incidents, tables.events, tables.idempotency):
        await client.delete_table(TableName=name)

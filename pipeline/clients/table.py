"""A subscriber's progress in a DynamoDB table of its own: it outlives every Lambda environment, and all of them share it.

The table's key is the string `incidentId`; examples/subscriber/README.md has it as CloudFormation. The function may
`dynamodb:GetItem` and `dynamodb:UpdateItem` there, and nothing else.
"""

from typing import Any, Final

from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.session import Session

_CONFIG: Final = Config(connect_timeout=2, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 3})


class TableProgress:
    """A row for each incident, with the last `sequence` that was handled. Safe to share between threads.

    A position never goes back, however many write it at once. No row is ever deleted: a million are some 70 MB. Where
    the table doesn't answer botocore's errors are raised, and the invocation's messages come again.
    """

    def __init__(self, table: str, *, profile: str | None = None, region: str | None = None, client: Any = None) -> None:
        """Credentials are found as by every AWS tool; `client`: a botocore or boto3 DynamoDB client of your own instead."""
        self._table = table
        self._client = client or Session(profile=profile).create_client("dynamodb", region_name=region, config=_CONFIG)

    def position(self, incident_id: str) -> int:
        # What another environment has just handled must be seen: otherwise it would be handled again.
        key = {"incidentId": {"S": incident_id}}
        row = self._client.get_item(TableName=self._table, Key=key, ConsistentRead=True).get("Item")
        return int(row["sequence"]["N"]) if row else 0

    def advance(self, incident_id: str, sequence: int) -> None:
        try:
            self._client.update_item(
                TableName=self._table,
                Key={"incidentId": {"S": incident_id}},
                UpdateExpression="SET #at = :to",
                ConditionExpression="attribute_not_exists(#at) OR #at < :to",
                ExpressionAttributeNames={"#at": "sequence"},
                ExpressionAttributeValues={":to": {"N": str(sequence)}},
            )
        except ClientError as error:
            # Another environment was as far or further.
            if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
                raise

"""What can be read of a queue or of a stream's event source mapping without taking anything out. Reads only."""

from collections.abc import Mapping
from typing import Any, Final

from botocore.exceptions import ClientError

from pipeline.stores.clients import translated

COUNTS: Final = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
)
# Our word for a mapping that is not there: it reads nothing, as surely as one that is disabled.
DELETED: Final = "Deleted"


class SqsDepths:
    """Implements `Depths` on an open client; `urls` by the queues' names."""

    def __init__(self, client: Any, urls: Mapping[str, str]) -> None:
        self.client = client
        self.urls = urls

    async def depth(self, queue: str) -> int:
        with translated(f"counting the queue {queue}"):
            answer = await self.client.get_queue_attributes(QueueUrl=self.urls[queue], AttributeNames=list(COUNTS))
        return sum(int(answer["Attributes"].get(name, 0)) for name in COUNTS)


class LambdaMapping:
    """Implements `StreamMapping` on an open client."""

    def __init__(self, client: Any, mapping_id: str) -> None:
        self.client = client
        self.mapping_id = mapping_id

    async def state(self) -> str:
        with translated("reading the fan-out's event source mapping"):
            try:
                answer = await self.client.get_event_source_mapping(UUID=self.mapping_id)
            except ClientError as error:
                if error.response["Error"].get("Code") == "ResourceNotFoundException":
                    return DELETED
                raise
        return str(answer.get("State"))

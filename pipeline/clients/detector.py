"""Sends what a detector saw to the candidates queue. Nothing is lost silently: what no queue took is raised by name.

    detector = Detector(queue_url)
    detector.send(candidate(service="checkout", severity="SEV2", title="5xx above 5 %", dedup_key="checkout-5xx"))

Blocking, and safe to share between threads. It goes through botocore's own SQS client, which keeps up with the queue's
protocol and finds credentials the ordinary way.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError
from botocore.session import Session

from pipeline.clients.messages import Message, candidate, detection
from pipeline.domain.errors import OpxError

__all__ = ["Detector", "Message", "NotSent", "Unsent", "candidate", "detection"]

BATCH_ENTRIES_MAX: Final = 10
# SQS takes 1 MiB since 2025; 256 KiB, what it and others took before, hold every message that opx takes.
BATCH_BYTES_MAX: Final = 256 * 1024
ROUNDS_MAX: Final = 5
PAUSE_S: Final = 0.2
PAUSE_S_MAX: Final = 5.0
# Codes of a whole request that pass by themselves, beside every answer of 500 and above.
_PASSING: Final = frozenset({"RequestThrottled", "ThrottlingException", "Throttling", "TooManyRequestsException"})


@dataclass(frozen=True, slots=True)
class Unsent:
    """A message that no queue took, and why. `final`: the queue will not take it as it is; else sending it again may do."""

    message: Message
    why: str
    final: bool = False


class NotSent(OpxError):
    """Some messages were not taken; all others were. Give `messages` to `send` again: what did arrive counts once."""

    def __init__(self, unsent: tuple[Unsent, ...], sent: int) -> None:
        super().__init__(f"{len(unsent)} of {len(unsent) + sent} messages were not sent: {unsent[0].why}")
        self.unsent = unsent
        self.sent = sent

    @property
    def messages(self) -> tuple[Message, ...]:
        """What is worth another try, in the order it was given."""
        return tuple(one.message for one in self.unsent if not one.final)


class Detector:
    """One candidates queue (stack output `CandidatesQueueUrl`), as a detector sees it."""

    def __init__(
        self,
        queue_url: str,
        *,
        profile: str | None = None,
        region: str | None = None,
        client: Any = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Credentials are found as by every AWS tool; `client`: a botocore or boto3 SQS client of your own instead."""
        self.queue_url = queue_url
        self._own = client is None
        self._client = client or _client(queue_url, profile, region)
        self._sleep = sleep

    def send(self, *messages: Message) -> None:
        """Send messages, as many a request as SQS takes; only what it did not take is sent again, for a few rounds.

        Returns when all were taken. Raises `NotSent` with those that were not. Where a request fails as a whole, what is
        behind it waits for the next round; where that can't pass by itself (no permission, no such queue), nothing is tried
        any more, and all that is left is named.
        """
        waiting = {str(number): message for number, message in enumerate(messages)}
        unsent: dict[str, Unsent] = {}
        for number in range(ROUNDS_MAX):
            if number:
                self._sleep(random.uniform(0, min(PAUSE_S_MAX, PAUSE_S * 2**number)))
            refused = {key: one for key, one in unsent.items() if one.final}
            failed, hopeless = self._one_round(waiting)
            unsent = refused | failed
            waiting = {key: one.message for key, one in failed.items() if not one.final}
            if hopeless or not waiting:
                break
        if unsent:
            in_order = sorted(unsent.items(), key=lambda item: int(item[0]))
            raise NotSent(tuple(one for _, one in in_order), len(messages) - len(unsent))

    def close(self) -> None:
        """Close the connections, of a client that was made here."""
        if self._own:
            self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _one_round(self, waiting: dict[str, Message]) -> tuple[dict[str, Unsent], bool]:
        """Send each message once; return what was not taken, and whether another round is of no use.

        Where a whole request fails, what is behind it is not tried in this round: the next would fail the same way.
        """
        unsent: dict[str, Unsent] = {}
        batches = list(_batched(waiting))
        for number, batch in enumerate(batches):
            try:
                answer = self._client.send_message_batch(
                    QueueUrl=self.queue_url, Entries=[_entry(key, waiting[key]) for key in batch]
                )
            except (BotoCoreError, ClientError) as error:
                why = f"{type(error).__name__}: {error}"
                left = {key: Unsent(waiting[key], why) for rest in batches[number:] for key in rest}
                return unsent | left, not _passes(error)
            taken = {entry["Id"] for entry in answer.get("Successful", ())}
            unsent |= {key: Unsent(waiting[key], "The queue did not say.") for key in batch if key not in taken}
            for entry in answer.get("Failed", ()):
                why = f"{entry['Code']}: {entry.get('Message', '')}"
                unsent[entry["Id"]] = Unsent(waiting[entry["Id"]], why, bool(entry["SenderFault"]))
        return unsent, False


def _client(queue_url: str, profile: str | None, region: str | None) -> Any:
    session = Session(profile=profile)
    address = urlsplit(queue_url)
    if not address.scheme or not address.hostname:
        raise ValueError(f"not a queue's URL: {queue_url!r}")
    named = address.hostname.split(".")
    at = named[1] if len(named) > 2 and named[0] == "sqs" else None
    # The queue is where its URL says, whatever endpoint the configuration would find.
    return session.create_client(
        "sqs",
        region_name=region or at or session.get_config_variable("region") or "us-east-1",
        endpoint_url=f"{address.scheme}://{address.netloc}",
        config=Config(connect_timeout=5, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 2}),
    )


def _batched(waiting: dict[str, Message]) -> Iterator[Sequence[str]]:
    batch: list[str] = []
    size = 0
    for key, message in waiting.items():
        if batch and (len(batch) == BATCH_ENTRIES_MAX or size + message.size > BATCH_BYTES_MAX):
            yield batch
            batch, size = [], 0
        batch.append(key)
        size += message.size
    if batch:
        yield batch


def _entry(key: str, message: Message) -> dict[str, str]:
    return {"Id": key, "MessageBody": message.body, "MessageGroupId": message.group}


def _passes(error: BotoCoreError | ClientError) -> bool:
    """True where the same request may succeed later: no answer, a fault of the service, or too many requests."""
    if not isinstance(error, ClientError):
        return isinstance(error, HTTPClientError | ConnectionError)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status >= 500 or status == 429 or error.response.get("Error", {}).get("Code") in _PASSING

"""Read events out of an export one after the other, in no order: one incident's, or all of them."""

from collections.abc import Iterator

from pipeline.domain.canonical import Document
from pipeline.domain.errors import Corrupt
from pipeline.replay.exports import Export, ExportError, opened
from pipeline.replay.lines import document_of, event_key, exact_document_of


def lines_in(export: Export) -> Iterator[bytes]:
    """Yield the lines of an export. Raises `ExportError` where a file is damaged or not as long as the manifest says."""
    for file in export.files:
        number = 0
        with opened(file) as lines:
            for line in lines:
                number += 1
                yield line
        if number != file.items:
            raise ExportError(f"{file.path}: {number} items, where the manifest says {file.items}")


def events_in(export: Export) -> Iterator[Document]:
    """Yield every stored event of an export of the event table. Raises `Corrupt` where one can't be read."""
    return (document_of(line) for line in lines_in(export))


def history_in(export: Export, incident_id: str) -> list[Document]:
    """Return one incident's events, in the order of their numbers. Raises `Corrupt` where one can't be read."""
    wanted = incident_id.encode()
    found = [line for line in lines_in(export) if wanted in line and _is_of(line, wanted)]
    return [exact_document_of(line) for line in sorted(found, key=lambda line: event_key(line)[1])]


def _is_of(line: bytes, incident: bytes) -> bool:
    try:
        return event_key(line)[0] == incident
    except Corrupt:
        # Whose it is can't be told, and it may only name this one: `opx replay verify` says that it is there.
        return False

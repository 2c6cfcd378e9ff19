"""Read events out of an export one after the other, in no order: one incident's, or all of them."""

from collections.abc import Iterator

from pipeline.domain.canonical import Document
from pipeline.replay.exports import Export, ExportError, opened
from pipeline.replay.lines import document_of, event_key


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
    """Yield every stored event of an export of the event table."""
    return (document_of(line) for line in lines_in(export))


def history_in(export: Export, incident_id: str) -> list[Document]:
    """Return one incident's events, in the order of their numbers."""
    wanted = incident_id.encode()
    found = [document_of(line) for line in lines_in(export) if wanted in line and event_key(line)[0] == wanted]
    return sorted(found, key=lambda event: int(event["sequence"]))

"""The generated files of this folder, as texts: the OpenAPI document, and a JSON Schema of each message and of the event."""

import json

from infra.schemas.model_schemas import messages
from infra.schemas.openapi import document


def texts() -> dict[str, str]:
    """Return each generated file's text, by its name."""
    documents = {"openapi": document()} | messages()
    return {f"{name}.json": json.dumps(made, indent=2, ensure_ascii=False) + "\n" for name, made in documents.items()}

"""Write the OpenAPI document and the JSON Schemas beside this file: `python -m infra.schemas`. A test keeps them current."""

from pathlib import Path

from infra.schemas.texts import texts

FOLDER = Path(__file__).parent

for name, text in texts().items():
    (FOLDER / name).write_text(text, encoding="utf-8")
    print(FOLDER / name)

"""The HTTP interface is the one that docs/openapi.json describes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from pyrf.files import whole_file
from pyrf.serve.app import create_app

GOLDEN = Path(__file__).parents[2] / "docs" / "openapi.json"
RENEW = "python -m tests.serve.test_openapi"


def schema() -> str:
    """The schema of the app as it is now. It needs no pipeline, as the app is not started."""
    app = create_app(cast(Any, None), model="any")
    return json.dumps(app.openapi(), indent=2, ensure_ascii=False) + "\n"


def test_the_interface_is_the_documented_one() -> None:
    assert schema() == GOLDEN.read_text(), (
        f"requests or replies under /v1 changed. Clients rely on them: take the change back, or, if it only "
        f"adds to them, write {GOLDEN.name} anew with `{RENEW}` and commit it"
    )


if __name__ == "__main__":
    with whole_file(GOLDEN) as temporary:
        temporary.write_text(schema())

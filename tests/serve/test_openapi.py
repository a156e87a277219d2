"""The HTTP interface is the one that docs/openapi.json describes."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any, cast

from pyrf.config import MAX_SEED
from pyrf.files import whole_file
from pyrf.protocol import ERROR_CODES, MAX_SDP
from pyrf.serve.app import create_app
from pyrf.serve.settings import ServeSettings

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "docs" / "openapi.json"
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


def test_the_schema_tells_the_limits_of_the_server() -> None:
    settings = ServeSettings(max_prompt_chars=7, max_video_frames=9)
    found = create_app(cast(Any, None), model="any", settings=settings).openapi()["components"]["schemas"]
    for model in ("SessionRequest", "PromptRequest", "VideoRequest"):
        prompt = found[model]["properties"]["prompt"]
        assert (prompt["minLength"], prompt["maxLength"]) == (1, 7)
    frames = found["VideoRequest"]["properties"]["num_frames"]
    assert (frames["minimum"], frames["maximum"]) == (1, 9)
    assert found["Offer"]["properties"]["sdp"]["maxLength"] == MAX_SDP
    seed = found["SessionRequest"]["properties"]["seed"]
    assert (seed["minimum"], seed["maximum"]) == (0, float(MAX_SEED))


def test_every_refusal_is_documented() -> None:
    """Codes that the server's source names, and those of the table in docs/serving.md."""
    named = set()
    for path in (ROOT / "pyrf" / "serve").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                strings = [a.value for a in node.args if isinstance(a, ast.Constant)]
                if node.func.id == "ServeError" and len(strings) > 1:
                    named.add(strings[1])
                elif node.func.id == "ErrorDetail":
                    named |= {k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)}
    named = {code for code in named if isinstance(code, str) and " " not in code}
    assert len(named) > 15
    assert named <= ERROR_CODES
    table = (ROOT / "docs" / "serving.md").read_text().split("## Errors")[1].split("## ")[0]
    assert sorted(ERROR_CODES - {"error", "forbidden"} - set(re.findall(r"`([a-z_]+)`", table))) == []


def test_every_operation_tells_what_it_may_answer() -> None:
    for path, operations in json.loads(schema())["paths"].items():
        for method, operation in operations.items():
            replies = set(operation["responses"])
            assert replies >= {"403", "408", "431", "500", "503"}, (method, path)
            if "security" in operation:
                assert "429" in replies, (method, path)
                assert replies & {"401", "404"}, (method, path)
            if "requestBody" in operation:
                assert replies >= {"400", "413", "422"}, (method, path)


if __name__ == "__main__":
    with whole_file(GOLDEN) as temporary:
        temporary.write_text(schema())

from pathlib import Path

import pytest

from pyrf.pipeline import StreamingPipeline


@pytest.fixture(scope="module")
def pipe(random_bundle: Path) -> StreamingPipeline:
    return StreamingPipeline.from_pretrained(str(random_bundle))

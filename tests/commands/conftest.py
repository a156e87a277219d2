"""The exports that the tests of exporting share."""

from tests.export.conftest import bundle

__all__ = ["bundle"]

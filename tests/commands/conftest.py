"""The exports that the tests of exporting share."""

from tests.export.conftest import bundle, exports

__all__ = ["bundle", "exports"]

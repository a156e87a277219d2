"""Shared by all tests."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.random_bundle import save_random_bundle

# Commands that name no model, in this process and in those that tests start, run the small one.
os.environ["PYRF_MODEL"] = "tiny"

# How long an example takes depends on what else the machine does.
settings.register_profile("pyrf", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("pyrf")


@pytest.fixture(scope="session")
def random_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a small bundle with random weights; read-only by agreement."""
    return save_random_bundle(tmp_path_factory.mktemp("bundles") / "random")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first; the others keep their order, as those of a folder share fixtures."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)

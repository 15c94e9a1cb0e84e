import pytest

from harness.plugins.loading import all_ops


@pytest.fixture(scope="session")
def ops():
    return all_ops()

import pytest

from tests.kernels.emulator import has_compiler
from tests.support.emulated_native import EmulatedKernels


@pytest.fixture(scope="module")
def emulator():
    if not has_compiler():
        pytest.skip("no C++ compiler to build the emulator with")
    return EmulatedKernels()

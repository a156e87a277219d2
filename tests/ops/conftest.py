import pytest
from emulated_native import EmulatedKernels
from emulator import has_compiler


@pytest.fixture(scope="module")
def emulator():
    if not has_compiler():
        pytest.skip("no C++ compiler to build the emulator with")
    return EmulatedKernels()

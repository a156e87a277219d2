"""What TensorRT's engines hold of a GPU: counted before they are loaded, or as they say themselves.

No GPU has run them yet, so nothing of this was ever measured (docs/not-run.md).
"""

from __future__ import annotations

from dataclasses import dataclass

from pyrf.backends.tensorrt.rollout import PlanSet
from pyrf.export.manifest import DECODER, STUDENT
from pyrf.memory.bill import MemoryRow
from pyrf.memory.graphs import decoder_weights, graph_buffers, layer_keys, student_weights
from pyrf.memory.parts import BackendRows, Parts
from pyrf.memory.setup import Setup


@dataclass(frozen=True)
class EngineSizes:
    """Bytes of an export's engines.

    Attributes:
        weights: of all engines.
        scratch: that a stream's engines run in: the network's share a block, and the decoder's another.
        told: whether the engines have told it.
    """

    weights: int
    scratch: int
    told: bool

    @classmethod
    def of(cls, plans: PlanSet) -> EngineSizes:
        """As loaded engines say it."""
        weights = sum(plans.plans[name].weight_bytes for name in (*STUDENT, *DECODER))
        scratch = sum(plans.scratch_bytes(names) for names in (STUDENT, DECODER))
        return cls(weights, scratch, told=True)

    @classmethod
    def counted(cls, parts: Parts, setup: Setup) -> EngineSizes:
        """Before they are loaded: the weights that each graph uses, and what torch works with.

        A cache in e4m3 is widened, the chunk's entries are put behind it, and what is valid is picked.
        """
        weights = sum(student_weights(parts, setup).values()) + 2 * decoder_weights(parts, setup)
        widened = 0 if setup.precision is None else 4 * layer_keys(parts, setup)
        return cls(weights, parts.denoise(setup) + widened + parts.decode(setup)[1], told=False)


def engine_rows(parts: Parts, setup: Setup, engines: EngineSizes | None) -> BackendRows:
    """What the backend tensorrt holds; it works in what a stream holds."""
    engines = engines or EngineSizes.counted(parts, setup)
    how = "as the engines say" if engines.told else "counted, as no engine is loaded yet"
    return BackendRows(
        weights=[MemoryRow("engines", engines.weights, f"their weights, {how}")],
        stream=[
            MemoryRow("scratch", engines.scratch, f"of the network's and the decoder's engines, {how}"),
            *graph_buffers(parts, setup),
        ],
        work=[MemoryRow("computing", 0, "in the scratch memory")],
    )

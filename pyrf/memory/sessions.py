"""What ONNX Runtime's sessions hold: weights for each graph, and arenas that keep what a run has taken.

Attention is computed in parts there, so its scores are memory. The shares of `ARENAS` were measured
(docs/memory.md), as were the blocks that attention takes.
"""

from __future__ import annotations

from pyrf.memory.bill import MemoryRow
from pyrf.memory.graphs import decoder_weights, graph_buffers, layer_keys, student_weights
from pyrf.memory.parts import BackendRows, Parts
from pyrf.memory.setup import Setup

ARENAS = {"decoder_first": 1.75, "decoder_next": 2.45, "denoise": 1.5, "clean": 1.5}
"""What a session's arena keeps, as a multiple of what a run of its graph needs. A second run of a decoder
adds a block that is planned for all that follow; the first step runs once."""


def session_rows(parts: Parts, setup: Setup) -> BackendRows:
    """What the backend onnxruntime holds and works with.

    Raises:
        MissingExtraError: when onnxruntime is not installed.
    """
    # What a process holds of it counts as the process, so it has to be there before that is asked for.
    import pyrf.backends.onnxruntime.backend  # noqa: F401

    student, decoder = student_weights(parts, setup), decoder_weights(parts, setup)
    needs = {"denoising": _denoise(parts, setup), "decoding": parts.decode(setup)[1]}
    weights = [
        MemoryRow("network", sum(student.values()), "for a denoise call and again for the clean call"),
        MemoryRow("decoder", 2 * decoder, "for the first chunk and again for the others"),
    ]
    if setup.arenas:
        of_graph = {name: needs["decoding" if "decoder" in name else "denoising"] for name in ARENAS}
        kept = sum(int(share * of_graph[name]) for name, share in ARENAS.items())
        weights.append(MemoryRow("arenas", kept, "what runs have taken, and sessions keep"))
        work = [MemoryRow("computing", 0, "in the arenas")]
    else:
        hows = ("a network call", "a chunk of frames")
        work = [MemoryRow(part, size, how) for (part, size), how in zip(needs.items(), hows)]
    return BackendRows(weights, graph_buffers(parts, setup), work)


def _denoise(parts: Parts, setup: Setup) -> int:
    """Working memory of a network call: torch's, and attention in parts.

    The keys and values that are valid are copied, the keys once more to be turned, and all scores are held.
    A cache in e4m3 is widened first, and the chunk's entries are put behind it. The softmax's weights are
    held as they are, rounded, and with a byte each.
    """
    tokens = setup.stream.chunk_frames * parts.size(setup).tokens
    window = setup.stream.slots * tokens
    scores = parts.bundle.model_config.num_heads * tokens * window * setup.dtype.itemsize
    if setup.precision is None:
        return parts.denoise(setup) + 3 * layer_keys(parts, setup) + scores
    weights = 2 * scores + scores // setup.dtype.itemsize
    return parts.denoise(setup) + 5 * layer_keys(parts, setup) + weights

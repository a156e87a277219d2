"""What a stream of a bundle will need, before anything of it is loaded, by who computes it."""

from __future__ import annotations

from pyrf.bundle.bundle import Bundle
from pyrf.machine import rss_bytes
from pyrf.memory.bill import Bill, MemoryRow, total
from pyrf.memory.counts import slot_numbers
from pyrf.memory.engines import EngineSizes, engine_rows
from pyrf.memory.parts import BackendRows, Parts
from pyrf.memory.sessions import session_rows
from pyrf.memory.setup import Setup
from pyrf.models.wan21 import LATENTS


class Estimator:
    """Bills of one bundle for frames of one size; what is counted is kept for the next bill.

    Args:
        bundle: whose configuration is read; of its weights only names and shapes.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle, self.parts = bundle, Parts(bundle)

    def at_most(self, setup: Setup) -> int:
        """More than weights and cache will hold, by sizes of files alone: this takes no time."""
        model, stream, stride = self.bundle.model_config, setup.stream, LATENTS.spatial_stride
        tokens = stream.chunk_frames * self.bundle.height * self.bundle.width // stride**2
        cache = (stream.slots + 1) * slot_numbers(model, tokens) * setup.dtype.itemsize
        others, network = self.parts.file_bytes(others=True), self.parts.file_bytes(others=False)
        if setup.backend != "torch":  # two graphs hold the network's weights, and two the decoder's
            others, network = 3 * others, 2 * network
        # An element of a file may have a byte and become four.
        return 4 * (others + network) + cache

    def bill(self, setup: Setup, engines: EngineSizes | None = None) -> Bill:
        """What one stream needs. It takes up to a second to count.

        Args:
            engines: what those of TensorRT say of themselves; None: it is counted.

        Raises:
            ValueError: when the codec's or the text encoder's files are damaged, the size does not fit, or
                a package of the backend is missing.
        """
        parts, on_cpu = self.parts, setup.device.type == "cpu"
        codec, text = parts.codec_weights(setup), parts.text(setup)
        if setup.backend == "torch":
            own = _torch_rows(parts, setup)
        elif setup.backend == "onnxruntime":
            own = session_rows(parts, setup)
        else:
            own = engine_rows(parts, setup, engines)
        held = [*own.weights, *parts.adapters(setup), codec]
        host: list[MemoryRow] = []
        if setup.text != "freed":
            (held if on_cpu or setup.text == "device" else host).append(text)
        loading = 0
        if on_cpu:
            others = codec.bytes + text.bytes * (setup.text != "freed") + parts.file_bytes(others=True)
            loading = others if own.mapped is None else max(others, total(held) + own.mapped)
        work = list(own.work)
        if setup.text_device == setup.device:
            encoding = parts.encode(setup) + (text.bytes if setup.text == "freed" else 0)
            work.append(MemoryRow("encoding a prompt", encoding, f"{parts.text_len} tokens"))
        stream = [*parts.stream(setup), *own.stream]
        held += stream
        if on_cpu:  # the last, as counting imports parts of torch, too
            process = MemoryRow("process", rss_bytes(), "Python, torch and pyrf, as they are now")
            held.insert(0, process)
            loading += process.bytes
        return Bill(str(setup.device), held, work, host, loading, total(stream))


def _torch_rows(parts: Parts, setup: Setup) -> BackendRows:
    """What the torch backend holds and works with."""
    memory, decoding = parts.decode(setup)
    work = [
        MemoryRow("denoising", parts.denoise(setup), "a network call"),
        MemoryRow("decoding", decoding, "a chunk of frames"),
    ]
    if saved := parts.saved(setup):
        work.append(MemoryRow("rounding weights", saved, "which are loaded in the dtype, before any stream"))
    return BackendRows(
        weights=[parts.network(setup)],
        stream=[MemoryRow("decoder's memory", memory, "frames that its convolutions look back at")],
        work=work,
        mapped=parts.file_bytes(others=False),
    )

"""The text encoder's graph against torch."""

import torch

from pyrf.backends.onnxruntime.sessions import Binding, GraphSet
from pyrf.export.manifest import load_manifest
from tests.support import exports


def test_prompts_of_any_length_give_torchs_rows(bundle):
    folder = exports.exported("float32")
    binding = Binding(GraphSet(folder, load_manifest(folder), threads=1)["text"], {})
    encoder = bundle.text_encoder()
    for prompt in ("red", "a red circle", "a blue square moves left left left left left"):
        ids = torch.tensor(encoder.tokenizer.encode(prompt).ids)
        binding["ids"].zero_()[0, : len(ids)] = ids
        binding["keep"].zero_()[0, : len(ids)] = True
        binding.run()
        expected = encoder.encode([prompt])
        assert expected.shape == (1, exports.MODEL.text_len, exports.MODEL.text_dim)
        torch.testing.assert_close(binding["prompt_embeds"], expected, atol=1e-5, rtol=0)
        assert not binding["prompt_embeds"][0, len(ids) :].any()

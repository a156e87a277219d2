"""VideoAlign's loader against a straightforward forward of a tiny judge, in both published layouts."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from pyrf.evaluation.scores.protocol import ScoreError
from pyrf.evaluation.scores.video_align.files import (
    DEFAULT_TEMPLATE,
    REWARD_TOKENS,
    DataSection,
    load_template,
    newest_step,
)
from pyrf.evaluation.scores.video_align.judge import PatchMaker, VideoAlignScore, sample_frames
from tests.support.video_align import STATS, judge_network, tokenizer, write_base, write_checkpoint

PROMPTS = ["a red circle moves right", "a star"]


def clips(batch: int = 2, num_frames: int = 9, height: int = 48, width: int = 84) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (batch, num_frames, height, width, 3)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    write_base(folder)
    return folder


@pytest.fixture(scope="module")
def judges(base):
    return {output_dim: judge_network(base, output_dim)[0] for output_dim in (1, 3)}


@pytest.fixture
def whole(tmp_path, judges):
    write_checkpoint(tmp_path / "judge", judges[1], 1, "whole")
    return tmp_path / "judge"


@pytest.fixture
def adapter(tmp_path, judges):
    write_checkpoint(tmp_path / "judge", judges[1], 1, "adapter")
    return tmp_path / "judge"


def reward(checkpoint, base):
    return VideoAlignScore(checkpoint, base, dtype=torch.float32)


def straightforward_scores(network, output_dim: int, frames, prompts) -> dict[str, list[float]]:
    """One clip at a time, no padding: transformers' patches, hidden states, one row of the head.

    A pair of frames makes a patch in time, so transformers' patches of single images are interleaved.
    """
    words = tokenizer()
    words.add_special_tokens(
        {"additional_special_tokens": list(REWARD_TOKENS)}, replace_extra_special_tokens=False
    )
    processor = Qwen2VLImageProcessorPil(image_mean=[0.48, 0.46, 0.41], image_std=[0.27, 0.26, 0.28])
    scores: dict[str, list[float]] = {"VQ": [], "MQ": [], "TA": []}
    for clip, prompt in zip(frames.numpy(), prompts):
        images = [Image.fromarray(frame) for frame in clip[[0, 3, 5, 8]]]
        singles = [processor(images=[image], return_tensors="pt").pixel_values for image in images]
        pairs = []
        for first, second in zip(singles[::2], singles[1::2]):
            first, second = (p.view(-1, 3, 2, 14, 14) for p in (first, second))
            pairs.append(torch.stack([first[:, :, 0], second[:, :, 0]], dim=2).flatten(1))
        content = DEFAULT_TEMPLATE.replace("{text_prompt}", prompt)
        text = (
            f"<|im_start|>user\n<|vision_start|>{'<|video_pad|>' * (2 * 12 * 21)}<|vision_end|>{content}"
            "<|im_end|>\n<|im_start|>assistant\n"
        )
        ids = words(text, return_tensors="pt").input_ids
        with torch.no_grad():
            hidden = network.base_model.model.model(
                input_ids=ids,
                pixel_values_videos=torch.cat(pairs),
                video_grid_thw=torch.tensor([[2, 24, 42]]),
                mm_token_type_ids=2 * (ids == words.convert_tokens_to_ids("<|video_pad|>")).int(),
            ).last_hidden_state[0]
        for row, (name, token) in enumerate(zip(scores, REWARD_TOKENS)):
            place = ids[0].tolist().index(words.convert_tokens_to_ids(token))
            weight = network.base_model.model.rm_head.weight[row if output_dim == 3 else 0]
            raw = float(hidden[place] @ weight)
            scores[name].append((raw - STATS[f"{name}_mean"]) / STATS[f"{name}_std"])
    return scores


@pytest.mark.parametrize("output_dim", [1, 3])
@pytest.mark.parametrize("layout", ["whole", "adapter"])
def test_scores_are_those_of_a_straightforward_forward(tmp_path, base, judges, layout, output_dim) -> None:
    write_checkpoint(tmp_path, judges[output_dim], output_dim, layout)
    frames = clips(height=336, width=588)
    scores = reward(tmp_path, base)(frames, PROMPTS)
    expected = straightforward_scores(judges[output_dim], output_dim, frames, PROMPTS)
    assert list(scores) == ["VQ", "MQ", "TA"]
    for name, score in scores.items():
        assert score.dtype == torch.float32
        assert score.tolist() == pytest.approx(expected[name], abs=1e-4)


def test_names_of_present_transformers_load_too(tmp_path, base, judges, whole) -> None:
    write_checkpoint(tmp_path / "new", judges[1], 1, "whole", names=lambda name: name)
    new, old = (reward(folder, base)(clips(), PROMPTS) for folder in (tmp_path / "new", whole))
    assert all(new[name].equal(old[name]) for name in new)


def test_a_clip_scores_the_same_alone_and_in_any_batch(base, whole) -> None:
    judge = reward(whole, base)
    frames, prompts = clips(3), [*PROMPTS, "a much longer prompt that makes the others be padded"]
    judge.batch_size = 2
    together = judge(frames, prompts)
    alone = judge(frames[1:2], prompts[1:2])
    for name in together:
        assert together[name][1].item() == pytest.approx(alone[name].item(), abs=1e-4)


def test_the_newest_checkpoint_is_taken(tmp_path) -> None:
    for n in (9, 100, 20):
        (tmp_path / f"checkpoint-{n}").mkdir()
    (tmp_path / "checkpoint-old").mkdir()
    assert newest_step(tmp_path).name == "checkpoint-100"


def test_a_template_beside_the_checkpoint_is_read(base, whole) -> None:
    before = reward(whole, base)(clips(1), PROMPTS[:1])
    template = "{text_prompt}? " + " ".join(REWARD_TOKENS)
    (whole / "prompt_template.txt").write_text(template)
    assert load_template(whole) == template
    assert not reward(whole, base)(clips(1), PROMPTS[:1])["MQ"].equal(before["MQ"])


def test_a_nan_weight_gives_nan_scores(tmp_path, base, judges) -> None:
    step = write_checkpoint(tmp_path, judges[1], 1, "adapter")
    rest = torch.load(step / "non_lora_state_dict.pth", weights_only=True)
    rest["base_model.model.rm_head.weight"].fill_(float("nan"))
    torch.save(rest, step / "non_lora_state_dict.pth")
    scores = reward(tmp_path, base)(clips(1), PROMPTS[:1])
    assert all(score.isnan().all() for score in scores.values())


def test_patches_are_those_of_transformers(base) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (336, 588, 3), dtype=np.uint8)
    processor = Qwen2VLImageProcessorPil(image_mean=[0.48, 0.46, 0.41], image_std=[0.27, 0.26, 0.28])
    expected = processor(images=[Image.fromarray(frame)], return_tensors="pt")
    patches, grid = PatchMaker(base)(torch.from_numpy(frame)[None, None].expand(1, 2, -1, -1, -1))
    assert grid.tolist() == expected.image_grid_thw[0].tolist()
    torch.testing.assert_close(patches[0], expected.pixel_values, atol=1e-5, rtol=0)


def test_frames_are_resized_as_by_pillow(base) -> None:
    """Within two of 255: Pillow rounds between rows and columns. No value is near where it would clamp."""
    maker = PatchMaker(base)
    frames = 80 + clips(1, 2) // 3
    pictures = [Image.fromarray(frame.numpy()) for frame in frames[0]]
    resized = [np.asarray(p.resize((588, 336), Image.Resampling.BICUBIC)) for p in pictures]
    expected = maker(torch.from_numpy(np.stack(resized))[None])[0]
    torch.testing.assert_close(maker(frames)[0], expected, atol=2.01 / 255 / 0.26, rtol=0)


@pytest.mark.parametrize(
    ("num_frames", "settings", "count"),
    [(81, {}, 10), (33, {}, 4), (5, {}, 4), (81, {"fps": 4}, 20), (81, {"num_frames": 8}, 8)],
)
def test_frames_are_sampled_evenly_from_first_to_last(num_frames, settings, count) -> None:
    indices = sample_frames(num_frames, DataSection(**settings)).tolist()
    assert len(indices) == count
    assert (indices[0], indices[-1]) == (0, num_frames - 1)
    assert max(np.diff(indices)) - min(np.diff(indices)) <= 1


def rewrite(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def without(section, key):
    return lambda folder: rewrite(folder / "model_config.json", lambda c: c[section].pop(key))


FAULTS = {
    "no folder": (lambda f: shutil.rmtree(f), "model_config.json: no such file"),
    "no step": (lambda f: shutil.rmtree(f / "checkpoint-50"), "holds no checkpoint-N"),
    "no stats": (
        without("inference_config", "MQ_std"),
        "model_config.json: inference_config.MQ_std is missing",
    ),
    "no rank": (without("peft_lora_config", "lora_r"), "model_config.json: peft_lora_config.lora_r"),
    "two scores": (
        lambda f: rewrite(f / "model_config.json", lambda c: c["model_config"].update(output_dim=2)),
        "model_config.json: model_config.output_dim",
    ),
    "not json": (lambda f: (f / "model_config.json").write_text("{"), "model_config.json: "),
    "bad std": (
        lambda f: rewrite(f / "model_config.json", lambda c: c["inference_config"].update(TA_std=0)),
        "score TA: mean must be finite and std positive",
    ),
    "template lacks a token": (
        lambda f: (f / "prompt_template.txt").write_text("{text_prompt} <|VQ_reward|> <|TA_reward|>"),
        "prompt_template.txt: must hold <|MQ_reward|> once, found 0 times",
    ),
    "template out of order": (
        lambda f: (f / "prompt_template.txt").write_text("{text_prompt}" + "".join(REWARD_TOKENS[::-1])),
        "prompt_template.txt: the tokens must come in the order",
    ),
    "no weights": (
        lambda f: [path.unlink() for path in (f / "checkpoint-50").iterdir()],
        "checkpoint-50: holds neither model.pth nor adapter_model.safetensors",
    ),
    "no second file": (
        lambda f: (f / "checkpoint-50/non_lora_state_dict.pth").unlink(),
        "non_lora_state_dict.pth: no such file",
    ),
    "a damaged file": (
        lambda f: (f / "checkpoint-50/non_lora_state_dict.pth").write_bytes(b"junk"),
        "non_lora_state_dict.pth: a text that begins",
    ),
    "tokenizer lacks a token": (
        lambda f: tokenizer().save_pretrained(f / "checkpoint-50/tokenizer"),
        "tokenizer: the tokenizer has no token <|VQ_reward|>",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named_in_one_line(base, adapter, fault) -> None:
    spoil, message = FAULTS[fault]
    spoil(adapter)
    with pytest.raises(ScoreError) as error:
        reward(adapter, base)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def spoil_weights(step, change):
    tensors = torch.load(step / "model.pth", weights_only=True)
    change(tensors)
    torch.save(tensors, step / "model.pth")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("base_model.model.rm_head.weight"), "model.pth: rm_head.weight is missing"),
        (
            lambda t: t.pop("base_model.model.model.layers.1.mlp.up_proj.lora_B.default.weight"),
            "layers.1.mlp.up_proj.lora_B.default.weight is missing",
        ),
        (
            lambda t: t.update({"base_model.model.rm_head.weight": torch.zeros(1, 31)}),
            "model.pth: base_model.model.rm_head.weight: expected shape [1, 32], found [1, 31]",
        ),
        (
            lambda t: t.update({"base_model.model.visual.extra.weight": torch.zeros(1)}),
            "base_model.model.visual.extra.weight is not part of the network",
        ),
    ],
)
def test_wrong_weights_are_named(base, whole, change, message) -> None:
    spoil_weights(whole / "checkpoint-50", change)
    with pytest.raises(ScoreError, match="checkpoint-50") as error:
        reward(whole, base)
    assert message in str(error.value)


def test_reward_tokens_without_trained_embeddings_are_refused(tmp_path, judges) -> None:
    """A base whose table is too short for the reward tokens leaves theirs to chance."""
    write_base(tmp_path / "base", rows=len(tokenizer()))
    step = write_checkpoint(tmp_path / "judge", judges[1], 1, "adapter")
    rest = torch.load(step / "non_lora_state_dict.pth", weights_only=True)
    torch.save({k: v for k, v in rest.items() if "embed_tokens" not in k}, step / "non_lora_state_dict.pth")
    with pytest.raises(ScoreError, match=r"non_lora_state_dict.pth: .*embed_tokens.weight is missing"):
        reward(tmp_path / "judge", tmp_path / "base")


@pytest.mark.parametrize(
    ("file", "message"),
    [("config.json", "must be a folder of Qwen2-VL"), ("preprocessor_config.json", "missing or not JSON")],
)
def test_a_base_without_a_file_is_refused(tmp_path, base, whole, file, message) -> None:
    shutil.copytree(base, tmp_path / "base")
    (tmp_path / "base" / file).unlink()
    with pytest.raises(ScoreError, match=message):
        reward(whole, tmp_path / "base")


def test_a_prompt_that_names_a_reward_token_is_refused(base, whole) -> None:
    with pytest.raises(ScoreError, match="each reward token once"):
        reward(whole, base)(clips(1), ["give it <|MQ_reward|>"])

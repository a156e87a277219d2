"""VideoAlign: a vision-language model as the judge of visual quality, motion quality and text alignment.

Qwen2-VL reads the video and a question that ends each part with a token of its own; a linear head without
bias turns the hidden states at those tokens into three scores, normalised by the checkpoint's own mean and
std (Liu et al., arXiv 2501.13918). The motion score, MQ, is the reward of Re-DMD (Reward Forcing,
section 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyrf.evaluation.scores.normalise import Normaliser
from pyrf.evaluation.scores.protocol import ScoreError, Scores, as_scores, check_clips
from pyrf.evaluation.scores.video_align import files
from pyrf.extras import needs
from pyrf.loop.inference import inference

FPS = 16
"""Frames per second of the clips that are scored."""
HEIGHT, WIDTH = 336, 588
"""Pixels that a frame is resized to: what Qwen2-VL's rule makes of 480 x 832."""
FEWEST_SAMPLES = 4
VIDEO_TOKEN = "<|video_pad|>"


class VideoAlignScore:
    """Scores "VQ", "MQ" and "TA", each of mean 0 and std 1 over the videos of the checkpoint's makers.

    Frames are sampled evenly from first to last, as many as make `data_config.fps` (2) per second of a 16 fps
    video, rounded to the nearest even number and at least 4, or `data_config.num_frames`. They are resized
    to 336 x 588 (bicubic, values kept in 0..255), whatever their shape.

    Args:
        checkpoint: folder of VideoAlign, see `video_align_checkpoint`; its newest checkpoint-N is taken.
        base: folder of Qwen2-VL-2B-Instruct. Nothing is downloaded.
        device, dtype: of the network.
        batch_size: clips that are judged at once.

    Raises:
        MissingExtraError: when transformers or peft is not installed.
        ScoreError: when a file is missing or does not fit.
    """

    names = files.DIMENSIONS

    def __init__(
        self,
        checkpoint: str | Path,
        base: str | Path,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.bfloat16,
        batch_size: int = 4,
    ) -> None:
        checkpoint, base = Path(checkpoint), Path(base)
        with needs("videoalign", "the VideoAlign score"):
            import peft  # noqa: F401
            import transformers  # noqa: F401
        self.config = files.load_config(checkpoint)
        self.template = files.load_template(checkpoint)
        step = files.newest_step(checkpoint)
        self.tokenizer = load_tokenizer(step, base)
        self.judge = load_judge_network(self.config, step, base, len(self.tokenizer), dtype).to(device)
        self.pixels = PatchMaker(base)
        self.batch_size = batch_size
        stats = self.config.inference_config
        self.normaliser = Normaliser({d: (stats[f"{d}_mean"], stats[f"{d}_std"]) for d in self.names})

    @inference()
    def __call__(self, frames: Tensor, prompts: Sequence[str]) -> Scores:
        """See `Score`. Clips must have at least 4 frames."""
        check_clips(frames, prompts, min_frames=FEWEST_SAMPLES, min_size=1)
        scores = [
            self._score(frames[start : start + self.batch_size], prompts[start : start + self.batch_size])
            for start in range(0, len(prompts), self.batch_size)
        ]
        return self.normaliser(as_scores(dict(zip(self.names, torch.cat(scores).T))))

    def _score(self, frames: Tensor, prompts: Sequence[str]) -> Tensor:
        """Raw scores of one batch, float32 [B, 3]."""
        parameter = self.judge.rm_head.weight
        sampled = frames[:, sample_frames(frames.shape[1], self.config.data_config)]
        patches, grid = self.pixels(sampled.to(parameter.device))
        num_tokens = int(grid.prod()) // self.pixels.merge_size**2
        tokens = self.tokenizer(
            [self._question(prompt, num_tokens) for prompt in prompts],
            padding=True,
            padding_side="right",
            return_tensors="pt",
        ).to(parameter.device)
        places = reward_places(tokens.input_ids, self.tokenizer, prompts)
        return self.judge(
            tokens.input_ids,
            tokens.attention_mask,
            patches.flatten(0, 1).to(parameter.dtype),
            grid.expand(len(prompts), 3).to(parameter.device),
            places,
        ).float()

    def _question(self, prompt: str, num_tokens: int) -> str:
        text = self.template.replace(files.PROMPT_FIELD, prompt)
        content = [{"type": "video"}, {"type": "text", "text": text}]
        chat = [{"role": "user", "content": content}]
        question = str(self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))
        if question.count(VIDEO_TOKEN) != 1:
            raise ScoreError(
                f"the chat must hold {VIDEO_TOKEN} once, found {question.count(VIDEO_TOKEN)} times; "
                "the tokenizer's chat template must take videos and the prompt must not name that token"
            )
        return question.replace(VIDEO_TOKEN, VIDEO_TOKEN * num_tokens)


class JudgeNetwork(nn.Module):
    """Qwen2-VL without its language head, and the reward head."""

    def __init__(self, backbone: nn.Module, hidden_size: int, output_dim: int, video_token_id: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.rm_head = nn.Linear(hidden_size, output_dim, bias=False)
        self.video_token_id = video_token_id

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, patches: Tensor, grid: Tensor, places: Tensor
    ) -> Tensor:
        """Scores [B, 3].

        Args:
            input_ids, attention_mask: [B, L].
            patches: [B * N, C], pixels of N patches per video.
            grid: [B, 3], patches in time, rows and columns.
            places: [B, 3], where the reward tokens stand.
        """
        hidden = self.backbone(
            input_ids=input_ids,
            attention_mask=attention_mask,
            pixel_values_videos=patches,
            video_grid_thw=grid,
            mm_token_type_ids=2 * (input_ids == self.video_token_id).int(),
            use_cache=False,
        ).last_hidden_state
        at_tokens = hidden.gather(1, places[..., None].expand(-1, -1, hidden.shape[-1]))
        scores = self.rm_head(at_tokens)  # [B, 3 tokens, 1 or 3]
        return scores[..., 0] if scores.shape[-1] == 1 else scores.diagonal(dim1=1, dim2=2)


class PatchMaker:
    """Frames uint8 [B, T, H, W, 3] -> the patches that Qwen2-VL's vision tower reads, and their grid.

    Raises:
        ScoreError: when the base's preprocessor_config.json is missing or lacks a key.
    """

    def __init__(self, base: Path) -> None:
        path = base / "preprocessor_config.json"
        settings = files.read_json(path)
        try:
            self.patch_size, self.merge_size = int(settings["patch_size"]), int(settings["merge_size"])
            self.temporal_patch_size = int(settings["temporal_patch_size"])
            self.mean, self.std = (
                torch.tensor(settings[k], dtype=torch.float32, device="cpu")
                for k in ("image_mean", "image_std")
            )
        except KeyError as error:
            raise ScoreError(f"{path}: {error.args[0]} is missing") from error
        if HEIGHT % (self.patch_size * self.merge_size) or WIDTH % (self.patch_size * self.merge_size):
            raise ScoreError(
                f"{path}: {HEIGHT} x {WIDTH} is not whole in patches of {self.patch_size} pixels"
            )

    def __call__(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Patches float32 [B, N, 3 * temporal * size * size] and the grid int64 [3], the same for all."""
        batch, count = frames.shape[:2]
        pixels = frames.flatten(0, 1).permute(0, 3, 1, 2).float()
        pixels = F.interpolate(pixels, (HEIGHT, WIDTH), mode="bicubic", antialias=True).round().clamp(0, 255)
        mean, std = (t.to(pixels.device).view(3, 1, 1) for t in (self.mean, self.std))
        pixels = (pixels / 255 - mean) / std
        size, merge, time = self.patch_size, self.merge_size, self.temporal_patch_size
        grid = (count // time, HEIGHT // size, WIDTH // size)
        # patches that the tower merges into one token lie side by side
        split = (grid[1] // merge, merge, size, grid[2] // merge, merge, size)
        patches = pixels.reshape(batch, grid[0], time, 3, *split)
        patches = patches.permute(0, 1, 4, 7, 5, 8, 3, 2, 6, 9)
        return patches.reshape(batch, grid[0] * grid[1] * grid[2], -1), torch.tensor(
            grid, dtype=torch.int64, device="cpu"
        )


def sample_frames(num_frames: int, settings: files.DataSection) -> Tensor:
    """Indices of the frames that are shown to the judge; see `VideoAlignScore`."""
    wanted = settings.num_frames or num_frames / FPS * settings.fps
    count = min(max(2 * round(wanted / 2), FEWEST_SAMPLES), num_frames // 2 * 2)
    return torch.linspace(0, num_frames - 1, count, dtype=torch.float32, device="cpu").round().long()


def reward_places(input_ids: Tensor, tokenizer: Any, prompts: Sequence[str]) -> Tensor:
    """Where each row of input_ids [B, L] holds the reward tokens: [B, 3].

    Raises:
        ScoreError: when a row holds one not exactly once, as with a prompt that names it.
    """
    tokens = tokenizer.convert_tokens_to_ids(list(files.REWARD_TOKENS))
    ids = torch.tensor(tokens, dtype=torch.int64, device=input_ids.device)
    found = input_ids[:, None] == ids[:, None]  # [B, 3, L]
    for prompt, counts in zip(prompts, found.sum(-1).tolist()):
        if counts != [1, 1, 1]:
            raise ScoreError(f"the question must hold each reward token once; prompt {prompt!r} changes that")
    return found.int().argmax(-1)


def load_tokenizer(step: Path, base: Path) -> Any:
    """The checkpoint's tokenizer where it brings one, else the base's with the reward tokens added.

    Raises:
        ScoreError: when there is none, it lacks a token or has no chat template.
    """
    from transformers import AutoTokenizer

    own = step / "tokenizer"
    folder = own if own.is_dir() else base
    if not (folder / "tokenizer_config.json").is_file():
        raise ScoreError(f"{folder / 'tokenizer_config.json'}: no such file")
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if folder == base:
        tokenizer.add_special_tokens(
            {"additional_special_tokens": list(files.REWARD_TOKENS)}, replace_extra_special_tokens=False
        )
    vocabulary = tokenizer.get_vocab()
    for token in (*files.REWARD_TOKENS, VIDEO_TOKEN):
        if token not in vocabulary:
            raise ScoreError(f"{folder}: the tokenizer has no token {token}")
    if not tokenizer.chat_template:
        raise ScoreError(f"{folder}: the tokenizer has no chat template")
    return tokenizer


def load_judge_network(
    config: files.VideoAlignConfig, step: Path, base: Path, vocabulary: int, dtype: torch.dtype
) -> JudgeNetwork:
    """Base network, LoRA layers and head with the checkpoint's weights, for inference.

    Raises:
        ScoreError: when a file is missing or does not fit.
    """
    from peft import LoraConfig, inject_adapter_in_model
    from transformers import Qwen2VLForConditionalGeneration

    if not (base / "config.json").is_file():
        raise ScoreError(f"{base / 'config.json'}: no such file; base must be a folder of Qwen2-VL")
    loader: Any = Qwen2VLForConditionalGeneration  # its types know nothing of output_loading_info
    network, info = loader.from_pretrained(base, dtype=dtype, local_files_only=True, output_loading_info=True)
    if missing := sorted(info["missing_keys"]):
        raise ScoreError(f"{base}: {missing[0]} is missing from the weights ({len(missing)} are)")
    added = network.get_input_embeddings().num_embeddings < vocabulary
    network.resize_token_embeddings(vocabulary, mean_resizing=False)
    sizes = network.config
    judge = JudgeNetwork(
        network.model, sizes.text_config.hidden_size, config.network.output_dim, sizes.video_token_id
    )
    lora = config.peft_lora_config
    targets = [
        name
        for name, module in judge.named_modules()
        if isinstance(module, nn.Linear) and not any(part in name for part in lora.excluded)
    ]
    inject_adapter_in_model(
        LoraConfig(
            r=lora.lora_r,
            lora_alpha=lora.lora_alpha,
            target_modules=targets,
            use_rslora=lora.use_rslora,
        ),
        judge,
    )
    shapes = {name: tuple(parameter.shape) for name, parameter in judge.named_parameters()}
    judge.load_state_dict(files.read_weights(step, shapes, added), strict=False)
    return judge.to(dtype).eval().requires_grad_(False)

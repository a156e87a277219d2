"""A tiny random VideoAlign, written in the published layouts: base, LoRA judge, tokenizer, configuration."""

import json
import re
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2VLConfig, Qwen2VLForConditionalGeneration

from pyrf.evaluation.scores.video_align.files import REWARD_TOKENS

BASE_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"] + [
    f"<|{name}|>" for name in ("vision_start", "vision_end", "image_pad", "video_pad")
]
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for part in m.content %}"
    "{% if part.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>{% else %}{{ part.text }}"
    "{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
RANK, ALPHA = 4, 8
STATS = {"VQ_mean": 1.0, "VQ_std": 2.0, "MQ_mean": -0.5, "MQ_std": 4.0, "TA_mean": 0.25, "TA_std": 0.5}


def tokenizer() -> PreTrainedTokenizerFast:
    """Every byte is a token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    plain = Tokenizer(models.BPE(vocab={byte: i for i, byte in enumerate(alphabet)}, merges=[]))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<|endoftext|>", eos_token="<|im_end|>"
    )
    wrapped.add_special_tokens({"additional_special_tokens": BASE_TOKENS})
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def write_base(folder: Path, rows: int | None = None) -> None:
    """A tiny Qwen2-VL with config, weights, tokenizer and preprocessor settings.

    Args:
        rows: of the embedding table; by default more than the tokenizer needs, as in the published base.
    """
    words = tokenizer()
    names = ("image_pad", "video_pad", "vision_start", "vision_end")
    ids: dict[str, Any] = {name: words.convert_tokens_to_ids(f"<|{name}|>") for name in names}
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": rows or len(words) + 20,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [1, 1, 2],
                "rope_theta": 10000.0,
            },
        },
        vision_config={"depth": 1, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2},
        image_token_id=ids["image_pad"],
        video_token_id=ids["video_pad"],
        vision_start_token_id=ids["vision_start"],
        vision_end_token_id=ids["vision_end"],
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    Qwen2VLForConditionalGeneration(config).save_pretrained(folder)
    path = folder / "model.safetensors"
    tensors = {old_name(name): tensor for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})  # as the published base has them
    words.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "patch_size": 14,
                "merge_size": 2,
                "temporal_patch_size": 2,
                "image_mean": [0.48, 0.46, 0.41],
                "image_std": [0.27, 0.26, 0.28],
            }
        )
    )


def judge_network(base: Path, output_dim: int):
    """The judge as its makers build it: reward tokens added, a head on the model, peft around it all."""
    words = tokenizer()
    words.add_special_tokens(
        {"additional_special_tokens": list(REWARD_TOKENS)}, replace_extra_special_tokens=False
    )
    network = Qwen2VLForConditionalGeneration.from_pretrained(base, dtype=torch.float32)
    network.resize_token_embeddings(len(words), mean_resizing=False)
    network.rm_head = torch.nn.Linear(32, output_dim, bias=False)
    targets = [
        name
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Linear)
        and not any(part in name for part in ("lm_head", "rm_head", "visual"))
    ]
    adapted = get_peft_model(network, LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=targets))
    torch.manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name or "rm_head" in name or "embed_tokens" in name or "merger" in name:
            parameter.data.normal_(0, 0.3)
    return adapted.eval(), words


def old_name(name: str) -> str:
    """Names as transformers wrote them when the published checkpoint was made."""
    return name.replace("model.visual.", "visual.").replace("model.language_model.", "model.")


def write_checkpoint(folder: Path, network, output_dim: int, layout: str, names=old_name) -> Path:
    """model_config.json and checkpoint-50 in one of the layouts "whole" and "adapter"."""
    step = folder / "checkpoint-50"
    step.mkdir(parents=True, exist_ok=True)
    (folder / "model_config.json").write_text(
        json.dumps(
            {
                "data_config": {
                    "fps": 2.0,
                    "num_frames": None,
                    "max_frame_pixels": 200704,
                    "meta_data": "x.csv",
                },
                "model_config": {
                    "output_dim": output_dim,
                    "use_special_tokens": True,
                    "reward_token": "special",
                },
                "peft_lora_config": {
                    "lora_enable": True,
                    "lora_r": RANK,
                    "lora_alpha": ALPHA,
                    "lora_namespan_exclude": ["lm_head", "rm_head", "embed_tokens", "visual"],
                    "num_lora_modules": -1,
                    "use_rslora": False,
                },
                "inference_config": STATS,
            }
        )
    )
    tensors = {names(name): t.detach().clone() for name, t in network.state_dict().items()}
    if layout == "whole":
        torch.save(tensors, step / "model.pth")
        return step
    lora = {name: t for name, t in tensors.items() if ".lora_" in name}
    save_file(
        {re.sub(r"(lora_[AB])\.default", r"\1", name): t for name, t in lora.items()},
        step / "adapter_model.safetensors",
    )
    trained = ("rm_head", "embed_tokens", "merger")
    rest = {name: t for name, t in tensors.items() if any(part in name for part in trained)}
    torch.save(rest, step / "non_lora_state_dict.pth")
    return step

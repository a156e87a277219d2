"""Prompt files: what they hold, errors that name file and line, and an order without gaps or repeats."""

import json
import random
from collections import Counter
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import torch

from pyrf.config import StreamConfig
from pyrf.training.runner.stage import Draw
from pyrf.training.wan.data import WanData
from pyrf.training.wan.prompts import PromptError, PromptOrder, read_prompts

PROMPTS = ["a red circle", "zwölf Boxkämpfer", 'a "quoted" cat']


def test_all_formats_hold_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(PROMPTS) + "\n\n", encoding="utf-8")
    records = [json.dumps({"prompt": p, "id": i}) for i, p in enumerate(PROMPTS)]
    (tmp_path / "a.jsonl").write_text("\n".join(records), encoding="utf-8")
    pyarrow.parquet.write_table(pyarrow.table({"prompt": PROMPTS, "id": [1, 2, 3]}), tmp_path / "a.parquet")
    for suffix in ("txt", "jsonl", "parquet"):
        assert read_prompts(tmp_path / f"a.{suffix}") == PROMPTS


def test_only_line_feeds_end_a_line(tmp_path: Path) -> None:
    """JSON strings may hold Unicode's own line breaks; a byte order mark is none of the prompt."""
    prompts = ["one\u2028two", "three\x0cfour", "five\x85six"]
    records = "\r\n".join(json.dumps({"prompt": p}, ensure_ascii=False) for p in prompts)
    (tmp_path / "a.jsonl").write_text(records, encoding="utf-8-sig", newline="")
    (tmp_path / "a.txt").write_text("\n".join(prompts), encoding="utf-8-sig")
    for suffix in ("jsonl", "txt"):
        assert read_prompts(tmp_path / f"a.{suffix}") == prompts


BAD = {
    "a.csv": (b"x", r"must be a file that ends in \.txt, \.jsonl, \.parquet"),
    "empty.txt": (b"\n \n", r"empty\.txt: holds no prompts"),
    "latin.txt": ("ok\nzwölf".encode("latin-1"), r"latin\.txt: line 2: not UTF-8"),
    "a.jsonl": (b'{"prompt": "ok"}\n\n{"prompt": ', r"a\.jsonl: line 3: not JSON"),
    "b.jsonl": (b'{"prompt": "ok"}\n{"text": "x"}', r"b\.jsonl: line 2: expected an object with a 'prompt'"),
    "c.jsonl": (b'{"prompt": 3}', r"c\.jsonl: line 1: expected a prompt, found 3"),
    "a.parquet": (b"PAR1", r"a\.parquet: not a Parquet file"),
}


@pytest.mark.parametrize("name", BAD)
def test_errors_name_file_and_line(tmp_path: Path, name: str) -> None:
    content, message = BAD[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PromptError, match=message):
        read_prompts(tmp_path / name)


def test_parquet_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="no such file"):
        read_prompts(tmp_path / "none.txt")
    pyarrow.parquet.write_table(pyarrow.table({"text": ["x"]}), tmp_path / "t.parquet")
    with pytest.raises(PromptError, match="has no column 'prompt'; its columns are text"):
        read_prompts(tmp_path / "t.parquet")
    pyarrow.parquet.write_table(pyarrow.table({"prompt": ["x", None]}), tmp_path / "n.parquet")
    with pytest.raises(PromptError, match=r"n\.parquet: line 2: expected a prompt, found None"):
        read_prompts(tmp_path / "n.parquet")


def test_every_epoch_has_each_prompt_once_however_it_is_cut() -> None:
    prompts = [str(i) for i in range(10)]
    straight = PromptOrder(prompts, seed=1)(range(30))
    for epoch in range(3):
        assert Counter(straight[10 * epoch : 10 * epoch + 10]) == Counter(prompts)
    assert straight[:10] != straight[10:20]
    assert straight != PromptOrder(prompts, seed=2)(range(30))
    resumed = PromptOrder(prompts, seed=1)
    assert [resumed[n] for n in (29, 3, 17)] == [straight[n] for n in (29, 3, 17)]


def test_a_turn_leads_to_the_captions_of_the_draw() -> None:
    order = PromptOrder(list("abcdefgh"), seed=1)
    data = WanData(order, StreamConfig(), (16, 4, 6), latent_frames=3, batch=2)
    draw = Draw(0, range(2, 4), torch.Generator(), random.Random(0), random.Random(0))
    first, captions = data.turns(draw)
    assert captions == data.captions(draw) == order(range(2, 4))
    assert first == order(range(4, 6))

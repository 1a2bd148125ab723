"""What strategies keep on the disk between starts: damaged after a kill, it is noticed by its hash and made again."""

from __future__ import annotations

import os

import pytest

KEYS = [
    "--probes", "none", "--no-bf16", "--threads", "1", "--num_train_epochs", "1", "--learning_rate", "1e-3",
    "--per_device_train_batch_size", "8", "--explain", "0",
]  # fmt: skip


@pytest.fixture
def lines(faults):
    encoder = ["run", "--model", str(faults.model), "--train", "reviews.csv", *KEYS]
    decoder = ["run", "--model", str(faults.decoder), "--train", "talks.csv", "--task", "text-generation", *KEYS]
    own = ["--rehearse_text", "self", "--general_text", "general.txt", "--general_samples", "64"]
    return {
        "lpft.safetensors": [*encoder, "--strategy", "lpft"],
        "fewshot.safetensors": [*encoder, "--strategy", "fewshot"],
        "rehearsal.json": [*decoder, "--strategy", "rehearse", *own],
    }


@pytest.mark.parametrize(
    ("cache", "damage"),
    [
        ("lpft.safetensors", "flip"),
        ("fewshot.safetensors", "flip"),
        ("rehearsal.json", "flip"),
        *(
            pytest.param(cache, damage, marks=pytest.mark.slow)
            for cache in ("lpft.safetensors", "fewshot.safetensors", "rehearsal.json")
            for damage in ("cut", "empty", "seal")
        ),
    ],
)
def test_a_damaged_cache_of_a_strategy_is_made_again(faults, lines, cache, damage):
    """Killed before the first checkpoint, the next start reads the cache: a head, or texts."""
    name = f"{cache.partition('.')[0]}-{damage}"
    line = [*lines[cache], "--output_dir", name]
    assert faults.start(name, "kill", line=line, on="checkpoints/checkpoint-")["code"] == -9, faults.told(name)
    path = faults.folder / name / "train" / "cache" / cache
    if damage == "flip":
        content = bytearray(path.read_bytes())
        place = len(content) // 2
        while content[place] < ord("a"):  # in JSON a letter, so that it stays JSON
            place += 1
        content[place] ^= 1
        path.write_bytes(content)
    elif damage == "seal":
        path.with_name(f"{cache}.whole.json").unlink()
    else:
        os.truncate(path, path.stat().st_size // 2 if damage == "cut" else 0)
    faults.goes_on(name, line)
    assert "what was kept of an earlier start is" in faults.told(name)

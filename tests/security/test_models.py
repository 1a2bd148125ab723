"""Model folders made to harm or damaged: refused in words before memory is taken, never a trace, never a hang."""

from __future__ import annotations

import copy
import json
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunewell.errors import ModelError
from tunewell.models.load import load_encoder

ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.sampled_from([0, -1, 1, 3, 10**7, 10**9, 2**31, 2**63]),
    st.floats(allow_nan=True), st.text(max_size=8), st.just([]), st.just({}), st.lists(st.integers(), max_size=3),
    st.just("x" * 10_000),
)  # fmt: skip
FUZZ = settings(
    max_examples=15, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def change(folder: Path, **keys) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"hidden_size": 10_000_000}, "hidden_size: 10000000"),
        ({"vocab_size": 2**62}, "vocab_size"),
        ({"intermediate_size": 10**9}, "intermediate_size"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"num_attention_heads": 0}, "num_attention_heads: 0"),
        ({"num_hidden_layers": "many"}, "is no number"),
        ({"max_position_embeddings": 10**8}, "128 positions"),
        ({"text_config": {"hidden_size": 10**8}}, "text_config.hidden_size"),
        ({"type_vocab_size": 10**9}, "type_vocab_size"),
    ],
)
def test_impossible_sizes_are_refused_before_memory_is_taken(folder, keys, told):
    change(folder, **keys)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelError) as caught:
        load_encoder(str(folder))
    assert told in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 512 << 10


def test_headers_of_weights_that_lie(folder):
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    for header in ((2**63).to_bytes(8, "little"), (10**8).to_bytes(8, "little"), b"\0\0"):
        weights.write_bytes(header + content[8:] if len(header) == 8 else header)
        with pytest.raises(ModelError, match="its header is cut short"):
            load_encoder(str(folder))
    weights.write_bytes(content[:8] + b"[" * 50 + content[58:])
    with pytest.raises(ModelError, match="its header cannot be read"):
        load_encoder(str(folder))


def test_json_without_end(folder):
    for text, told in (
        ("[" * 100_000, "cannot be read"),
        ("[1]", "holds a list"),
        ('{"a":' + "9" * 5000 + "}", "cannot be"),
    ):
        (folder / "config.json").write_text(text)
        with pytest.raises(ModelError, match=told):
            load_encoder(str(folder))
    with (folder / "config.json").open("wb") as file:
        file.truncate(1 << 32)  # takes no room on the disk
    with pytest.raises(ModelError, match=r"config.json has 4,096 MB"):
        load_encoder(str(folder))


def places(value, path=()):
    """Paths to all values inside a JSON value; of long tables only the first entries."""
    yield path
    items: Any = ()
    if isinstance(value, dict):
        items = list(value.items())[:30]
    elif isinstance(value, list):
        items = enumerate(value[:3])
    for key, inner in items:
        yield from places(inner, (*path, key))


def fuzzed(folder: Path, name: str, data) -> None:
    """Load with one or two values of a JSON file replaced: a model, or a ModelError with its words."""
    whole = (folder / name).read_bytes()
    changed = copy.deepcopy(json.loads(whole))
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from([p for p in places(changed) if p]))
        inner = changed
        for key in path[:-1]:
            inner = inner[key]
        if data.draw(st.booleans()):
            inner[path[-1]] = data.draw(ODD)
        else:
            del inner[path[-1]]
    try:
        (folder / name).write_text(json.dumps(changed))
        load_encoder(str(folder))
    except ModelError:
        pass  # anything else fails the test
    finally:
        (folder / name).write_bytes(whole)


@FUZZ
@given(data=st.data())
def test_any_config_json_is_loaded_or_refused(folder, data):
    fuzzed(folder, "config.json", data)


@FUZZ
@given(data=st.data())
def test_any_tokenizer_json_is_loaded_or_refused(folder, data):
    fuzzed(folder, "tokenizer.json", data)


@pytest.mark.slow
@settings(FUZZ, max_examples=600)
@given(data=st.data(), name=st.sampled_from(["config.json", "tokenizer.json", "tokenizer_config.json"]))
def test_many_more_of_them(folder, data, name):
    fuzzed(folder, name, data)

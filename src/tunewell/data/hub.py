"""Data sets saved by `datasets` in a folder, and data sets of the Hugging Face hub."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewell.errors import DataError, nearest

if TYPE_CHECKING:
    from datasets import Dataset

_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.\-]*/[\w.\-]+$")
_SUFFIXED = re.compile(r"(.{2,}):([\w.\-]+(?:\[\d*:\d*\])?)")
_DATA_ENDINGS = (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".arrow")
REACH_SECONDS = 5.0


def split_suffix(path: str) -> tuple[str, str | None]:
    """`folder:test` and `owner/name:test` name a split, `owner/name:train[:5000]` the rows of one.

    >>> split_suffix("data/reviews:test"), split_suffix("data/reviews"), split_suffix("me/reviews:train[100:200]")
    (('data/reviews', 'test'), ('data/reviews', None), ('me/reviews', 'train[100:200]'))
    """
    found = _SUFFIXED.fullmatch(path)
    return (found[1], found[2]) if found else (path, None)


def slice_of(split: str | None) -> tuple[str | None, slice]:
    """The split's own name, and which of its rows: from the first row to before the last, counted from 0.

    >>> slice_of("train[100:200]"), slice_of("train"), slice_of("test[:5]")
    (('train', slice(100, 200, None)), ('train', slice(0, None, None)), ('test', slice(0, 5, None)))
    """
    if split is None or "[" not in split:
        return split, slice(0, None)
    name, _, rows = split.rstrip("]").partition("[")
    first, _, last = rows.partition(":")
    return name, slice(int(first or 0), int(last) if last else None)


def is_hub_id(path: str) -> bool:
    """Whether a path that does not exist may be a hub id: owner/name, and no such local folder."""
    base, _ = split_suffix(path)
    return bool(_HUB_ID.match(base)) and not Path(base).parent.exists()


def load_folder(folder: Path, split: str | None, source: str) -> tuple[Dataset, list[str]]:
    """A folder that `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote, and what to say about it.

    Raises:
        DataError: another kind of folder, damaged, or without that split.
    """
    from datasets import load_from_disk

    _refuse_empty(split, source)
    if not ((folder / "dataset_dict.json").is_file() or (folder / "dataset_info.json").is_file()):
        raise _not_a_data_folder(folder, source)
    try:
        loaded = load_from_disk(str(folder))
    except Exception as error:  # whatever a damaged folder provokes inside datasets and pyarrow
        raise DataError(
            f"this `datasets` folder cannot be read: {_first_line(error)}",
            where=source,
            expected="a folder written by save_to_disk",
            remedy="save it again",
        ) from None
    return _one_split(loaded, split, source)


def load_hub(name: str, split: str | None, source: str) -> tuple[Dataset, list[str]]:
    """A data set of the hub, from the local cache when the hub cannot be reached.

    Raises:
        DataError: no such data set, no access, no network within seconds, or no such split.
    """
    from datasets import load_dataset
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    _refuse_empty(split, source)
    try:
        HfApi().dataset_info(name, timeout=REACH_SECONDS)
    except GatedRepoError:
        raise DataError(
            "access to this data set must be asked for on the hub", where=source,
            remedy=f"ask at https://huggingface.co/datasets/{name}, then `hf auth login`",
        ) from None  # fmt: skip
    except RepositoryNotFoundError:
        raise DataError(
            "no such file here, and no such data set on the Hugging Face hub", where=source,
            expected="a file, a `datasets` folder, or a hub id owner/name",
            remedy="check the spelling; a private data set needs `hf auth login`",
        ) from None  # fmt: skip
    except Exception:  # offline mode, or whatever the HTTP library of this hub version raises
        return _from_cache(name, split, source)
    try:
        if slice_of(split)[1].stop is not None:
            return _streamed(name, split, source)
        return _one_split(load_dataset(name), split, source)
    except DataError:
        raise
    except Exception as error:  # datasets raises many kinds for files that it cannot read
        raise DataError(
            f"the hub data set cannot be loaded: {_first_line(error)}", where=source,
            remedy="download its files (`hf download --repo-type dataset`) and give one of them",
        ) from None  # fmt: skip


def _streamed(name: str, split: str | None, source: str) -> tuple[Dataset, list[str]]:
    """Some rows of a split, read one after the other: what stands behind them is not fetched."""
    from datasets import Dataset, get_dataset_split_names, load_dataset

    asked, rows = slice_of(split)
    names = get_dataset_split_names(name)
    if asked not in names:
        raise _no_split(asked, names, source)
    stream = load_dataset(name, split=asked, streaming=True)
    taken = list(islice(stream, rows.start, rows.stop))
    return Dataset.from_list(taken, features=stream.features), []


def _from_cache(name: str, split: str | None, source: str) -> tuple[Dataset, list[str]]:
    from datasets import load_dataset

    try:
        with offline():
            loaded = load_dataset(name)
    except Exception:  # not in the cache, in any of its many ways
        raise DataError(
            "no such file here, and the Hugging Face hub cannot be reached",
            where=source,
            expected="a file that exists, or a network connection for a hub id",
            remedy="check the path or the network; or download the data where there is one and give the file",
        ) from None
    dataset, notices = _one_split(loaded, split, source)
    return dataset, [*notices, f"{source}: the hub cannot be reached; taken from the local cache"]


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Keep `datasets` and Transformers from trying the network again, with its minute of retries."""
    import datasets
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before


def _one_split(loaded: Any, split: str | None, source: str) -> tuple[Dataset, list[str]]:
    asked, rows = slice_of(split)
    if not isinstance(loaded, dict):
        if asked is not None:
            raise DataError(f"has no splits, so no `{asked}`", where=source, remedy="leave out what follows the colon")
        return loaded, []
    names = list(loaded)
    chosen = asked or ("train" if "train" in names else names[0] if len(names) == 1 else None)
    if chosen not in names:
        raise _no_split(chosen, names, source)
    others = [n for n in names if n != chosen]
    notices = (
        [f"{source}: split `{chosen}` taken; it also holds {', '.join(others)}"] if split is None and others else []
    )
    found = loaded[chosen]
    return found if rows == slice(0, None) else found.select(range(*rows.indices(len(found)))), notices


def _no_split(chosen: str | None, names: list[str], source: str) -> DataError:
    return DataError(
        f"has no split `{chosen}`" if chosen else "holds several splits",
        where=source,
        expected="one of " + ", ".join(names),
        remedy=nearest(chosen or "", names) or f"name one, such as {split_suffix(source)[0]}:{names[0]}",
    )


def _refuse_empty(split: str | None, source: str) -> None:
    rows = slice_of(split)[1]
    if rows.stop is not None and rows.stop <= rows.start:
        raise DataError(
            f"rows {rows.start} to {rows.stop} are none",
            where=source,
            expected="a first row and a later last one, counted from 0",
            remedy=f"{split_suffix(source)[0]}:train[:5000] for the first 5,000",
        )


def _not_a_data_folder(folder: Path, source: str) -> DataError:
    files = sorted(f.name for f in folder.iterdir() if f.suffix.lower() in _DATA_ENDINGS)
    return DataError(
        "is a folder, and none that `datasets` has saved",
        where=source,
        expected="a data file, or a folder written by save_to_disk",
        remedy=f"name one file in it, such as {Path(source) / files[0]}" if files else "name a data file",
    )


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:300]}" if text else type(error).__name__

"""Data files as dicts of arrays and numbers; an error is one sentence."""

import csv
import gzip
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from thalweg._core import requirement

Data = dict[str, Any]


def read_data(path: str | Path) -> Data:
    """A dict of arrays and numbers from a `.json` (or `.json.gz`), `.npz` or `.csv` (header, one column a name) file.

    Raises:
        ValueError: in one sentence, if the file is missing, cannot be read, or holds what is not numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(requirement("data", "be a file", str(path), "check the path"))
    kinds: dict[str, Callable[[Path], Data]] = {
        ".json": _read_json,
        ".gz": _read_json,
        ".npz": _read_npz,
        ".csv": _read_csv,
    }
    if path.suffix not in kinds:
        raise ValueError(requirement("data", "be a .json, .json.gz, .npz or .csv file", str(path)))
    try:
        content = kinds[path.suffix](path)
    except Exception as error:  # what a damaged file makes its reader raise has no end
        raise ValueError(f"`data` cannot be read from {path}: {one_line(error)}") from error
    return {name: _as_numbers(name, value) for name, value in content.items()}


def _read_json(path: Path) -> Data:
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8-sig")
    if not text.strip():
        raise ValueError("it is empty")
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__}, not an object of names")
    return content


def _read_npz(path: Path) -> Data:
    if not zipfile.is_zipfile(path):
        raise ValueError("it is not an .npz archive")
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _read_csv(path: Path) -> Data:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.reader(file))
    while rows and not any(rows[-1]):
        rows.pop()
    if len(rows) < 2:
        raise ValueError("it has no rows below its header")
    wrong = next((i for i, row in enumerate(rows, 1) if len(row) != len(rows[0])), None)
    if wrong is not None:
        raise ValueError(f"line {wrong} has {len(rows[wrong - 1])} columns where the header has {len(rows[0])}")
    names = [name.strip() for name in rows[0]]
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise ValueError(f"its header has {', '.join(twice)} more than once")
    return {name.strip(): list(column) for name, *column in zip(*rows, strict=True)}


def _as_numbers(name: str, value: Any) -> Any:
    """Lists and columns as arrays; single numbers as they are."""
    if value is None or isinstance(value, bool | int | float):
        return value
    try:
        array = np.asarray(value)
        if array.dtype.kind in "US":
            array = array.astype(float)
            array = array.astype(int) if np.all(array == np.round(array)) and np.all(np.abs(array) < 2**31) else array
    except ValueError:
        array = np.empty(0, object)
    if array.dtype.kind not in "biuf":
        raise ValueError(requirement(f"data[{name!r}]", "hold numbers, in lists of equal length", _odd_one(value)))
    return array


def _odd_one(value: Any) -> str:
    """The first entry that is no number, and where; the beginning of the value where it has no such entry."""
    for i, entry in enumerate(value if isinstance(value, list) else []):
        if not isinstance(entry, list):
            try:
                float(entry)
            except (TypeError, ValueError):
                return f"{_shorten(entry) or 'an empty cell'} in row {i + 1}"
    return _shorten(value)


def _shorten(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else text[:57] + "..."


def one_line(error: BaseException) -> str:
    """An error's message, or its type's name."""
    return " ".join(str(error).split()) or type(error).__name__

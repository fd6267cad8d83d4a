"""Targets from files: a Python model file and a data file, with errors that are one sentence each."""

import csv
import gzip
import inspect
import json
import sys
import traceback
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from thalweg._core import requirement
from thalweg.targets._function import from_function, from_likelihood
from thalweg.targets._numpyro import from_numpyro
from thalweg.targets._target import Target

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
        raise ValueError(f"`data` cannot be read from {path}: {_one_line(error)}") from error
    return {name: _as_numbers(name, value) for name, value in content.items()}


def _read_json(path: Path) -> Data:
    content = path.read_bytes()
    content = json.loads((gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8-sig"))
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


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def run_model_file(path: str | Path) -> types.ModuleType:
    """The module that a model file defines.

    Raises:
        ValueError: in one sentence, if the file is missing, is not Python, or raises.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(requirement("model", "be a file", str(path), "check the path"))
    if path.suffix != ".py":
        raise ValueError(requirement("model", "be a .py file", str(path)))
    module = types.ModuleType(f"thalweg_model_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # where dataclasses look up what annotations mean
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        exec(compile(path.read_text(), str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        raise ValueError(f"`model` {path} cannot be run: {_where(error, path)}") from error
    finally:
        sys.path.remove(str(path.parent.resolve()))
    return module


def _where(error: BaseException, path: Path) -> str:
    """Type, message and the line of `path` that the error came through."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"{type(error).__name__} in line {error.lineno}: {error.msg}"
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    where = f" in line {lines[-1]}" if lines else ""
    return f"{type(error).__name__}{where}: {_one_line(error)}"


def from_file(path: str | Path, data: str | Path | Data | None = None) -> Target:
    """A target from a model file and a data file.

    The model file holds one of

    - `log_density(params)` or `log_density(params, data)`, and `supports`, as for `from_function`;
    - `log_prior(params)`, `log_likelihood(params, data)` and `supports`, as for `from_likelihood`;
    - `model`, a NumPyro model whose arguments are the data's names.

    The first two may add `deterministic(params, data)`, `predictive(key, params, data)`; the first `log_likelihood`.

    Args:
        path: the model file, `.py`.
        data: the data file (`.json`, `.npz`, `.csv`), or a dict.

    Raises:
        ValueError: in one sentence, if a file cannot be used.
    """
    path = Path(path)
    values = data if data is None or isinstance(data, dict) else read_data(data)
    module = run_model_file(path)
    found = {k: v for k, v in vars(module).items() if not k.startswith("_")}
    extras = {k: found[k] for k in ("deterministic", "predictive") if callable(found.get(k))}
    name = path.parent.name if path.stem == "model" and path.parent.name else path.stem
    if "log_density" in found or ("log_prior" in found and "log_likelihood" in found):
        if "supports" not in found:
            raise ValueError(f"`model` {path} must define supports, a dict name -> support, beside its log density")
        if "log_density" in found:
            likelihood = found.get("log_likelihood")
            return from_function(
                found["log_density"], found["supports"], values, log_likelihood=likelihood, name=name, **extras
            )
        if values is None:
            raise ValueError(f"`data` must be given: `model` {path} has a log_likelihood of data")
        return from_likelihood(
            found["log_prior"], found["log_likelihood"], found["supports"], values, name=name, **extras
        )
    if callable(found.get("model")):
        arguments = _arguments(found["model"], values or {}, path)
        target = from_numpyro(found["model"], **arguments).renamed(name)
        left_out = [n for n, p in inspect.signature(found["model"]).parameters.items() if p.default is None]
        left_out = [n for n in left_out if n not in arguments]
        if left_out and not target.observed():
            remedy = "no site is observed without it, and the posterior is the prior (give null to mean that)"
            raise ValueError(
                requirement("data", f"have {' or '.join(left_out)}", ", ".join(arguments) or "none", remedy)
            )
        return target
    must = "define log_density and supports, log_prior and log_likelihood and supports, or a NumPyro model"
    raise ValueError(f"`model` {path} must {must}, got {', '.join(sorted(found)) or 'nothing'}")


def _arguments(model: Callable[..., Any], data: Data, path: Path) -> Data:
    """The data as the model's arguments.

    Raises:
        ValueError: if a name is missing, or is not an argument (a misspelt observation would be no observation).
    """
    parameters = inspect.signature(model).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return data
    missing = [
        n for n, p in parameters.items() if p.default is p.empty and n not in data and p.kind is not p.VAR_POSITIONAL
    ]
    if missing:
        got = ", ".join(data) or "nothing"
        raise ValueError(f"`data` must have {', '.join(missing)} for the model in {path}, got {got}")
    unknown = [n for n in data if n not in parameters]
    if unknown:
        takes = ", ".join(parameters) or "nothing"
        raise ValueError(f"`data` must only have arguments of the model in {path} ({takes}), got {', '.join(unknown)}")
    return data

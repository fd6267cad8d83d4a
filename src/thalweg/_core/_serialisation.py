"""One registry and one file format for everything that is kept: posteriors, flows, checkpoints. Never pickle.

A file is safetensors: the arrays by path, and in its header the structure as JSON, the kind, the format's version and
a SHA-256 digest of all of it. Only registered classes and functions are ever rebuilt from a file.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from thalweg._core._checks import requirement
from thalweg._core._files import write_atomically
from thalweg._core._precision import precision

FORMAT = 1
"""The version of the file format; a file of a newer one is refused with a sentence."""

_BY_NAME: dict[str, Any] = {}
_NAMES: dict[Any, str] = {}
T = TypeVar("T")


class FileError(ValueError):
    """A file that cannot be read as what it should be: cut short, changed, of a newer version, or something else."""


def register(thing: T, name: str | None = None) -> T:
    """Let a class (an `eqx.Module` or a dataclass) or a function be saved and loaded, by name.

    Usable as a decorator. This package's own classes go by their bare name; yours by `module.name` unless you say.

    Args:
        thing: the class or function.
        name: the name that files carry; keep it when you move the code.

    Returns:
        `thing`, unchanged.

    Raises:
        ValueError: if another thing has that name already.
    """
    module, own_name = getattr(thing, "__module__", ""), getattr(thing, "__qualname__", repr(thing))
    name = name or str(own_name if module.startswith("thalweg.") else f"{module}.{own_name}")
    other = _BY_NAME.get(name, thing)
    if other is not thing and getattr(other, "__module__", None) != module:
        raise ValueError(requirement("name", "be one that no other class or function has", repr(name)))
    _BY_NAME[name] = thing
    _NAMES[thing] = name
    return thing


for _name in ("silu", "relu", "tanh", "gelu", "elu", "leaky_relu", "sigmoid", "softplus", "identity"):
    register(getattr(jax.nn, _name), _name)


def _encode_scalar(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    return value


def encode(value: Any, arrays: dict[str, np.ndarray], path: str = "") -> Any:
    """`value` as JSON, its arrays put into `arrays` by path.

    Raises:
        ValueError: for a class or function that is not registered.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return _encode_scalar(value)
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        arrays[path] = np.array(jax.random.key_data(value))
        return {"key": path, "implementation": str(jax.random.key_impl(value))}
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        arrays[path] = np.array(value, order="C")
        return {"array": path, "numpy": not isinstance(value, jax.Array)}
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [encode(v, arrays, f"{path}/{i}") for i, v in enumerate(value)]}
    if isinstance(value, dict) and all(isinstance(k, str) for k in value):
        return {"dict": {k: encode(v, arrays, f"{path}/{k}") for k, v in value.items()}}
    name = _NAMES.get(type(value))
    if name is not None and dataclasses.is_dataclass(value):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return {"class": name, "fields": {k: encode(v, arrays, f"{path}/{k}") for k, v in fields.items()}}
    with contextlib.suppress(TypeError):
        if value in _NAMES:
            return {"function": _NAMES[value]}
    what = getattr(value, "__qualname__", type(value).__qualname__)
    raise ValueError(
        requirement(
            "value",
            "be made of registered classes and functions to be saved",
            what,
            "call thalweg.register on it first",
        )
    )


def _restore_class(name: str, fields: dict[str, Any]) -> Any:
    cls = _BY_NAME.get(name)
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        raise FileError(
            f"it holds a {name!r}, which is not registered; import the code that defines it and call thalweg.register"
        )
    if set(fields) != {f.name for f in dataclasses.fields(cls)}:
        raise FileError(f"its {name!r} has other fields than this version of thalweg's")
    new = object.__new__(cls)
    for key, value in fields.items():
        object.__setattr__(new, key, value)
    return new


def _as_written(array: np.ndarray) -> jax.Array:
    # in double precision JAX keeps every type as it is; otherwise it would cut a float64 to float32
    with precision("float64"):
        return jax.device_put(array)


def decode(spec: Any, arrays: dict[str, np.ndarray]) -> Any:
    """The inverse of `encode`.

    Raises:
        FileError: where the structure names what is not registered or not there.
    """
    if not isinstance(spec, dict):
        return spec
    match spec:
        case {"float": text}:
            return float(text)
        case {"array": path, "numpy": is_numpy}:
            return arrays[path] if is_numpy else _as_written(arrays[path])
        case {"key": path, "implementation": implementation}:
            return jax.random.wrap_key_data(_as_written(arrays[path]), impl=implementation)
        case {"list": items}:
            return [decode(v, arrays) for v in items]
        case {"tuple": items}:
            return tuple(decode(v, arrays) for v in items)
        case {"dict": items}:
            return {k: decode(v, arrays) for k, v in items.items()}
        case {"class": name, "fields": fields}:
            return _restore_class(name, {k: decode(v, arrays) for k, v in fields.items()})
        case {"function": name} if callable(_BY_NAME.get(name)):
            return _BY_NAME[name]
    raise FileError(
        f"it holds {json.dumps(spec)[:80]}, which this version does not know; import and register the code that made it"
    )


def _digest(header: str, arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(header.encode())
    for name in sorted(arrays):
        a = arrays[name]
        digest.update(f"{name} {a.dtype.str} {a.shape}".encode())
        digest.update(a.tobytes())
    return digest.hexdigest()


def write_file(path: str | Path, kind: str, value: Any) -> Path:
    """Save `value` at `path`, atomically.

    Args:
        path: the file.
        kind: what the file is ("posterior", "checkpoint", ...); `read_file` asks for the same.
        value: registered classes, containers, numbers, strings, arrays and keys.

    Raises:
        ValueError: for a class or function that is not registered.
        OSError: if the file cannot be written.
    """
    arrays: dict[str, np.ndarray] = {}
    structure = encode(value, arrays)
    header = json.dumps({"format": FORMAT, "kind": kind, "structure": structure})
    metadata = {"thalweg": header, "sha256": _digest(header, arrays)}
    content = save(arrays, metadata)
    return write_atomically(path, lambda temporary: temporary.write_bytes(content))


def _check_readable(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if not os.access(path, os.R_OK):
        raise FileError(f"{path} cannot be read: its permissions do not let you")


def read_file(path: str | Path, kind: str) -> Any:
    """What `write_file` saved at `path`.

    Raises:
        FileNotFoundError: if there is no such file.
        FileError: if it is cut short, changed, of a newer format, of another kind, or not ours at all.
    """
    path = Path(path)
    _check_readable(path)
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise FileError(f"{path} is not a thalweg file, or was cut short or changed: {error}") from error
    if "thalweg" not in metadata:
        raise FileError(f"{path} is a safetensors file, but not one that thalweg wrote")
    header = metadata["thalweg"]
    try:
        content = json.loads(header)
        version, found, structure = content["format"], content["kind"], content["structure"]
    except (json.JSONDecodeError, KeyError, TypeError, RecursionError) as error:
        raise FileError(f"{path} was changed since it was written: its header cannot be read") from error
    if type(version) is not int or version < 1:
        raise FileError(f"{path} was changed since it was written: it has format {version!r}")
    if version > FORMAT:
        raise FileError(f"{path} has format {version}, this thalweg reads up to {FORMAT}; install a newer thalweg")
    if metadata.get("sha256") != _digest(header, arrays):
        raise FileError(f"{path} was changed since it was written: its digest does not match; take another copy")
    if found != kind:
        raise FileError(f"{path} holds a {found}, not a {kind}")
    try:
        return decode(structure, arrays)
    except FileError as error:
        raise FileError(f"{path} cannot be read: {error}") from error
    except Exception as error:  # a structure that was forged makes constructors raise whatever they like
        raise FileError(f"{path} cannot be read: {type(error).__name__} {error}") from error

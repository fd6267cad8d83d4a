"""Files: every bit comes back; whatever is wrong with a file is said in a sentence."""

import json
import math
import pickle
import struct
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from thalweg._core import FileError, precision, read_file, register, write_atomically, write_file


@register
class Kept(eqx.Module):
    array: jax.Array
    function: object = eqx.field(static=True)
    sizes: tuple = eqx.field(static=True, default=(1, 2))


class Unknown(eqx.Module):
    array: jax.Array


def value():
    return {
        "module": Kept(jnp.asarray([1.0, math.pi, -0.0, math.nan, math.inf]), jax.nn.silu),
        "list": [1, 2.5, "text", None, True, math.inf, -math.inf, 1e-300],
        "tuple": (jnp.asarray([1, 2], jnp.int32), np.arange(6.0, dtype=np.float32).reshape(2, 3).T),
        "scalars": (jnp.float32(0.1), np.float32(0.1), jnp.array(True)),
        "key": jax.random.key(7),
        "keys": jax.random.split(jax.random.key(7), 3),
        "empty": ({}, [], (), jnp.zeros((0, 3))),
        "bfloat": jnp.ones(3, jnp.bfloat16),
    }


def bits(leaf):
    """What is compared of a leaf: of an array its kind, type, shape and bytes."""
    if not hasattr(leaf, "dtype"):
        return leaf
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return str(leaf.dtype), leaf.shape, np.asarray(jax.random.key_data(leaf)).tobytes()
    return isinstance(leaf, jax.Array), leaf.dtype, leaf.shape, np.asarray(leaf).tobytes()


@pytest.fixture
def path(tmp_path):
    return write_file(tmp_path / "value.thalweg", "test", value())


def test_every_bit_comes_back(path):
    again = read_file(path, "test")
    assert jax.tree.structure(again) == jax.tree.structure(value())
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(value()), strict=True):
        assert bits(a) == bits(b)


def test_double_precision_comes_back_whatever_the_process_uses(path):
    with precision("float32"):
        again = read_file(path, "test")
    assert again["module"].array.dtype == jnp.float64
    np.testing.assert_array_equal(again["module"].array, value()["module"].array)


def test_the_functions_name_is_kept_not_its_code(path):
    assert read_file(path, "test")["module"].function is jax.nn.silu
    assert b"pickle" not in path.read_bytes()


def header_and_rest(path):
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def write_raw(path, header, rest):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + rest)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_truncated(path, share):
    raw = path.read_bytes()
    path.write_bytes(raw[: int(share * len(raw))])
    with pytest.raises(FileError, match="is not a thalweg file, or was cut short or changed"):
        read_file(path, "test")


def test_a_changed_number(path):
    raw = bytearray(path.read_bytes())
    raw[-3] ^= 1
    path.write_bytes(raw)
    with pytest.raises(FileError, match="was changed since it was written: its digest does not match"):
        read_file(path, "test")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m | {"thalweg": m["thalweg"].replace("2.5", "2.6")}, "its digest does not match"),
        (lambda m: m | {"thalweg": m["thalweg"][:-5]}, "its header cannot be read"),
        (lambda m: m | {"thalweg": "[]"}, "its header cannot be read"),
        (lambda m: m | {"sha256": "0" * 64}, "its digest does not match"),
        (lambda m: {"thalweg": m["thalweg"]}, "its digest does not match"),
        (lambda m: m | {"thalweg": m["thalweg"].replace('"format": 1', '"format": 2')}, "has format 2.*newer thalweg"),
        (lambda m: m | {"thalweg": m["thalweg"].replace('"format": 1', '"format": "x"')}, "has format 'x'"),
        (lambda m: m | {"thalweg": m["thalweg"].replace('"format": 1', '"format": true')}, "has format True"),
        (lambda m: m | {"thalweg": "[" * 100_000 + "]" * 100_000}, "its header cannot be read"),
        (lambda m: {"other": "file"}, "is a safetensors file, but not one that thalweg wrote"),
    ],
)
def test_a_changed_header(path, change, message):
    header, rest = header_and_rest(path)
    header["__metadata__"] = change(header["__metadata__"])
    write_raw(path, header, rest)
    with pytest.raises(FileError, match=message):
        read_file(path, "test")


def test_a_renamed_tensor(path):
    header, rest = header_and_rest(path)
    name = next(n for n in header if n != "__metadata__")
    header["renamed"] = header.pop(name)
    write_raw(path, header, rest)
    with pytest.raises(FileError, match="digest does not match"):
        read_file(path, "test")


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("a pickle was loaded",)


def test_a_pickle_is_never_loaded(tmp_path):
    path = tmp_path / "posterior.thalweg"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(FileError, match="is not a thalweg file"):
        read_file(path, "test")


def test_other_files(tmp_path, path):
    save_file({"a": np.ones(3)}, tmp_path / "other.safetensors")
    with pytest.raises(FileError, match="is a safetensors file, but not one that thalweg wrote"):
        read_file(tmp_path / "other.safetensors", "test")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_file(tmp_path / "none.thalweg", "test")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_file(tmp_path, "test")
    with pytest.raises(FileError, match="holds a test, not a posterior"):
        read_file(path, "posterior")


class Pair(NamedTuple):
    a: int
    b: int


@pytest.mark.parametrize(
    "bad", [Unknown(jnp.ones(2)), lambda x: x, np.tanh, {1: 2}, Pair(1, 2), object(), {"set": {1, 2}}, 1j]
)
def test_what_is_not_registered_is_not_written(tmp_path, bad):
    with pytest.raises(ValueError, match=r"`value` must be made of registered .*; call thalweg.register on it first"):
        write_file(tmp_path / "bad.thalweg", "test", {"inside": [bad]})
    assert list(tmp_path.iterdir()) == []


def forged(tmp_path, monkeypatch, structure):
    """A file with a sound digest whose structure is `structure`."""
    monkeypatch.setattr("thalweg._core._serialisation.encode", lambda value, arrays: structure)
    return write_file(tmp_path / "forged.thalweg", "test", None)


@pytest.mark.parametrize(
    ("structure", "message"),
    [
        ({"class": "NoSuchClass", "fields": {}}, "holds a 'NoSuchClass', which is not registered"),
        ({"class": "silu", "fields": {}}, "holds a 'silu', which is not registered"),
        ({"class": "Skeleton", "fields": {"size": 3}}, "'Skeleton' has other fields than this version"),
        ({"function": "os.system"}, "which this version does not know"),
        ({"array": "nowhere", "numpy": True}, "cannot be read: KeyError"),
        ({"what": 1}, "which this version does not know"),
    ],
)
def test_structures_that_name_what_is_not_there(tmp_path, monkeypatch, structure, message):
    with pytest.raises(FileError, match=message):
        read_file(forged(tmp_path, monkeypatch, structure), "test")


def test_names_are_taken_once():
    assert register(Kept) is Kept
    with pytest.raises(ValueError, match="`name` must be one that no other class or function has, got 'Skeleton'"):
        register(Unknown, "Skeleton")


def test_a_failed_write_leaves_the_old_file(tmp_path, path):
    before = path.read_bytes()

    def fail(temporary):
        temporary.write_bytes(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    with pytest.raises(ValueError, match="registered"):
        write_file(path, "test", object())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_where_nothing_can_be_written_the_message_names_the_file_that_was_asked_for():
    asked = Path("/proc/draws.npz")
    with pytest.raises(OSError, match=r"^/proc/draws\.npz cannot be written \(.*\)$"):
        write_atomically(asked, lambda temporary: None)


def test_an_interrupted_write_leaves_the_old_file(tmp_path, path):
    before = path.read_bytes()

    def interrupt(temporary):
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, interrupt)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_written_file_is_readable_by_others(path):
    assert path.stat().st_mode & 0o400
    assert not path.stat().st_mode & 0o111


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_file(tmp_path / "none" / "x.thalweg", "test", 1)

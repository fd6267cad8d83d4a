"""Seeds: an int or a JAX key, everywhere; parameters are drawn with NumPy, so that building compiles nothing."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thalweg._core._checks import requirement
from thalweg._core._types import Array, Key, Seed


def _is_key(seed: Any) -> bool:
    return isinstance(seed, jax.Array) and (
        jnp.issubdtype(seed.dtype, jax.dtypes.prng_key) or (seed.dtype == jnp.uint32 and seed.shape == (2,))
    )


def as_key(seed: Seed) -> Key[Array, "..."]:
    """A typed JAX key from an int, a typed key or an old-style (uint32) key; an array of typed keys as it is.

    Raises:
        ValueError: if `seed` is neither.
    """
    if isinstance(seed, int | np.integer) and not isinstance(seed, bool):
        high, low = divmod(int(seed) % 2**63, 2**32)
        # what jax.random.key gives in double precision, without a program to compile
        return _key_of_words(np.array([high, low], np.uint32))
    if _is_key(seed):
        key = jnp.asarray(seed)
        return key if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(key)
    raise ValueError(requirement("seed", "be an int or a JAX key", repr(seed)))


def _key_of_words(words: np.ndarray) -> Key[Array, "..."]:
    return jax.random.wrap_key_data(jax.device_put(words), impl="threefry2x32")


def key_words(key: Key[Array, ""]) -> np.ndarray:
    """The numbers that a key is made of, for NumPy's generators."""
    return np.asarray(jax.random.key_data(key))


def split_on_host(key: Key[Array, ""], n: int) -> list[Key[Array, ""]]:
    """N independent keys from one, by NumPy; compiles nothing."""
    words = np.random.SeedSequence(key_words(key).tolist()).generate_state(2 * n).reshape(n, 2)
    return [_key_of_words(pair) for pair in words.astype(np.uint32)]


def named_on_host(key: Key[Array, ""], name: str) -> Key[Array, ""]:
    """The key of this name, whatever other names there are; by NumPy, compiles nothing."""
    words = np.random.SeedSequence([*key_words(key).tolist(), *name.encode()]).generate_state(2)
    return _key_of_words(words.astype(np.uint32))


def from_numpy(numbers: Any) -> Array:
    """A JAX array, its floats in the precision that now holds; compiles nothing.

    `jnp.asarray` of a NumPy array runs a program, which is compiled anew for every shape.
    """
    return jax.device_put(in_precision(np.asarray(numbers)))


def in_precision(array: np.ndarray) -> np.ndarray:
    """The array, its floats in the precision that now holds."""
    dtype = jnp.result_type(float) if np.issubdtype(array.dtype, np.floating) else array.dtype
    with np.errstate(over="ignore"):  # what is too large for single precision is inf
        return array.astype(dtype, copy=False)


def numpy_rng(seed: Seed) -> np.random.Generator:
    """A NumPy generator from an int, a JAX key or a generator (returned as it is)."""
    if isinstance(seed, np.random.Generator):
        return seed
    if isinstance(seed, int | np.integer) and not isinstance(seed, bool):
        return np.random.default_rng(int(seed) % 2**63)
    return np.random.default_rng(key_words(as_key(seed)))

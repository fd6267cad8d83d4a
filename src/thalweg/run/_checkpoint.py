"""A checkpoint: every stage's state, written whole or not at all, so that a stopped run resumes to the same bits."""

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from thalweg._core import FileError, read_file, requirement, write_file

_LONGEST = 40
"""Characters of a setting that are shown: a fingerprint says nothing."""


class Checkpoint:
    """The stages of one job, kept in one file.

    Args:
        path: the file; it need not exist.
        settings: what decides the job's result (flow, seed, steps, ...); a file with others is refused.
        resume: read the file if it is there; else start afresh and overwrite it.
        every: seconds between two writings of a running stage.

    Raises:
        ValueError: if the file's settings differ from `settings`.
        FileError: if the file cannot be read.
    """

    def __init__(
        self, path: str | Path, settings: dict[str, Any], *, resume: bool = False, every: float = 30.0
    ) -> None:
        self.path, self.settings, self.every = Path(path), settings, every
        self.stages: dict[str, Any] = {}
        if resume and self.path.exists():
            content = read_file(self.path, "checkpoint")
            for name, value in settings.items():
                if content["settings"].get(name) != value:
                    here, there = repr(value), repr(content["settings"].get(name))
                    got = "another" if max(len(here), len(there)) > _LONGEST else f"{here}, not {there}"
                    got = f"{got} (checkpoint {self.path})"
                    raise ValueError(requirement(name, "be as in the run that is resumed", got, "or start afresh"))
            self.stages = content["stages"]

    def put(self, stage: str, state: Any, history: dict[str, np.ndarray], *, finished: str | None) -> None:
        """Write the stage's state; `finished` is the name of its status, None while it runs."""
        leaves = [np.asarray(_plain(x)) for x in jax.tree.leaves(eqx.filter(state, _is_array))]
        self.stages[stage] = {"leaves": leaves, "history": history, "finished": finished}
        write_file(self.path, "checkpoint", {"settings": self.settings, "stages": self.stages})

    def get(self, stage: str, like: Any) -> tuple[Any, dict[str, np.ndarray], str | None] | None:
        """(state in the structure of `like`, history, status name or None) of a stage, or None if it has not begun.

        Raises:
            FileError: if the saved arrays do not fit the state.
        """
        if stage not in self.stages:
            return None
        saved = self.stages[stage]
        arrays, rest = eqx.partition(like, _is_array)
        leaves, structure = jax.tree.flatten(arrays)
        if [np.shape(_plain(x)) for x in leaves] != [np.shape(x) for x in saved["leaves"]]:
            raise FileError(f"{self.path} does not fit this job: the state of {stage!r} has other shapes")
        new = [_like(s, x) for s, x in zip(saved["leaves"], leaves, strict=True)]
        return eqx.combine(jax.tree.unflatten(structure, new), rest), saved["history"], saved["finished"]


def _is_array(x: Any) -> bool:
    return isinstance(x, jax.Array | np.ndarray)


def _is_key(x: Any) -> bool:
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _plain(x: Any) -> Any:
    return jax.random.key_data(x) if _is_key(x) else x


def _like(saved: np.ndarray, template: Any) -> Any:
    if isinstance(template, np.ndarray):
        return saved
    array = jax.device_put(saved)
    return jax.random.wrap_key_data(array) if _is_key(template) else array

"""Parameters from a model's prior, and data from its likelihood at them."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from thalweg._core import Array, PRNGKeyArray, requirement, split_on_host
from thalweg.targets._check import raised
from thalweg.targets._target import Target

_REMEDY = "observe a data array as it is (in PyMC a pm.Data), or give simulate(key, data) -> (parameters, data)"


@dataclasses.dataclass(frozen=True)
class Simulator:
    """Draws of (parameters, data) from a model: `Simulator.of` makes one.

    Attributes:
        target: the model, with data of the form that is drawn.
        function: the user's (key, data) -> (params, data), or None for the model's own prior and predictive draws.
        replaced: which of the data's leaves each observed name is.
    """

    target: Target
    function: Callable[..., Any] | None
    replaced: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, target: Target, function: Callable[..., Any] | None = None) -> "Simulator":
        """The target's simulator, or one by a function.

        Raises:
            ValueError: if there is none: the target cannot draw from its prior, an observed array is not one of its
                data, or the observed data are used for something else too.
        """
        function = function or target.simulate
        if function is not None:
            return cls(target, function, ())
        if target.draw_prior is None or target.predictive is None:
            what = "prior" if target.draw_prior is None else "likelihood"
            must = f"be given for a target that cannot draw from its {what}, as NumPyro and PyMC models can"
            remedy = "give simulate(key, data) -> (parameters, data); a model with factors or scales needs it too"
            raise ValueError(requirement("simulate", must, "None", remedy))
        simulator = cls(target, None, tuple(_where(target).items()))
        simulator._check()
        return simulator

    def __call__(self, key: PRNGKeyArray) -> tuple[dict[str, np.ndarray], Target]:
        """(constrained parameters, the target with data drawn at them).

        Raises:
            ValueError: if the user's function raises, or what it returns does not fit the target.
        """
        if self.function is None:
            params, data = _simulate(self.target, self.replaced, key)
        else:
            params, data = self._own(key)
        return {n: np.asarray(params[n]) for n in self.target.names}, self.target.replace_data(data)

    def _own(self, key: PRNGKeyArray) -> tuple[Mapping[str, Any], Any]:
        try:
            found = self.function(key, self.target.data)  # pyright: ignore[reportOptionalCall]
        except Exception as error:
            raise ValueError(raised("simulate", error)) from error
        if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], Mapping)):
            must = "return (parameters by name, data)"
            raise ValueError(requirement("simulate", must, f"a {type(found).__name__}"))
        params, data = found
        shapes = {n: np.shape(params[n]) for n in params}
        if shapes != self.target.space.shapes:
            raise ValueError(requirement("simulate", f"return the parameters {self.target.space.shapes}", shapes))
        return {n: jnp.asarray(x) for n, x in params.items()}, jax.tree.map(jnp.asarray, data)

    def _check(self) -> None:
        """Raise where what is observed is more than observed: an autoregression's own past, or a prior's scale."""
        first, second = split_on_host(jax.random.key(0), 2)
        _, data = _simulate(self.target, self.replaced, first)
        other = self.target.replace_data(data)
        ours, theirs = (_simulate(t, self.replaced, second) for t in (self.target, other))
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            if not np.array_equal(np.asarray(a), np.asarray(b)):
                got = "one whose observed data are used for something else too, as an autoregression uses its past"
                raise ValueError(requirement("target", "be a model that its simulated data fit into", got, _REMEDY))


def _where(target: Target) -> dict[str, int]:
    """Which of the data's leaves each observed array is.

    Raises:
        ValueError: if one is none of them, or more than one.
    """
    leaves, found = [np.asarray(x) for x in jax.tree.leaves(target.data)], {}
    for name, value in target.observed().items():
        same = [i for i, x in enumerate(leaves) if x.shape == value.shape and np.array_equal(x, np.asarray(value))]
        if len(same) != 1:
            got = "several that are equal to it" if same else "none that is equal to it"
            must = f"have what is observed as {name!r} among its data arrays, as it is"
            raise ValueError(requirement("target", must, got, _REMEDY))
        found[name] = same[0]
    return found


@eqx.filter_jit
def _simulate(target: Target, replaced: tuple[tuple[str, int], ...], key: PRNGKeyArray) -> tuple[dict[str, Array], Any]:
    prior_key, data_key = jax.random.split(key)
    params = target.draw_prior(prior_key, target.data)  # pyright: ignore[reportOptionalCall]
    drawn = target.predictive(data_key, params, target.data)  # pyright: ignore[reportOptionalCall]
    leaves, structure = jax.tree.flatten(target.data)
    for name, i in replaced:
        leaves[i] = jnp.asarray(drawn[name]).astype(leaves[i].dtype)
    return params, jax.tree.unflatten(structure, leaves)

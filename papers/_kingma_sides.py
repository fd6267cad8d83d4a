"""Draws and densities of one flow, by four libraries: the sides that `benchmarks._workers` asks in turn.

As many layers, of networks of the same sizes and activation, with a normal base; what a library cannot do is not here.
Weights are each library's own at the start, but for a little noise on ours, which would begin at the identity: time
does not depend on them.
"""

import importlib.util
from collections.abc import Callable
from typing import Any

from benchmarks._products import products_alone
from benchmarks._workers import FLOOR, Side, count, count_torch

POINTS, LAYERS, LEAST_WIDTH = 1000, 4, 64


def width_of(d: int) -> int:
    """Of both hidden layers: a masked network needs a unit for each of its inputs."""
    return max(d, LEAST_WIDTH)


def _jax_side(flow: Any, draw: Callable[..., Any], score: Callable[..., Any], setting: dict[str, Any]) -> Side:
    """One call is one repetition, its numbers drawn anew."""
    import equinox as eqx
    import jax
    import jax.random as jr

    draw, score = eqx.filter_jit(draw), eqx.filter_jit(score)
    x = jr.normal(jr.key(1), (setting["points"], setting["d"]))

    def run(n: int) -> None:
        for i in range(n):
            jax.block_until_ready(draw(flow, jr.key(i)) if setting["what"] == "draws" else score(flow, x))

    return Side(run, {"parameters": count(flow)})


def _ours(kind: str) -> Callable[[dict[str, Any]], Side]:
    def make(setting: dict[str, Any]) -> Side:
        import jax
        import jax.numpy as jnp
        import numpy as np

        from thalweg.bijections import AffineTransformer, Autoregressive, Chain, Coupling, Invert, Permutation, Scan
        from thalweg.distributions import StandardNormal, Transformed

        d, rng = setting["d"], np.random.default_rng(0)
        network, affine = {"width": width_of(d), "depth": 2, "seed": rng}, AffineTransformer()

        def layer() -> Any:
            if kind == "coupling":
                return Coupling(d, affine, **network)
            one = Autoregressive(d, affine, **network)
            return Invert(one) if kind == "maf" else one

        turn = Permutation(np.arange(d)[::-1])
        flow = Transformed(StandardNormal((d,)), Scan([Chain([turn, layer()]) for _ in range(LAYERS)]))
        flow = jax.tree.map(
            lambda a: (
                a + jnp.asarray(0.3 * rng.standard_normal(a.shape) / np.sqrt(a.shape[-1]), a.dtype)
                if hasattr(a, "dtype") and jnp.issubdtype(a.dtype, jnp.floating)
                else a
            ),
            flow,
        )
        points = setting["points"]
        return _jax_side(flow, lambda f, key: f.sample(key, points), lambda f, x: f.log_prob(x), setting)

    return make


def _flowjax(kind: str) -> Callable[[dict[str, Any]], Side]:
    def make(setting: dict[str, Any]) -> Side:
        import jax
        import jax.random as jr
        from flowjax.distributions import StandardNormal
        from flowjax.flows import coupling_flow, masked_autoregressive_flow

        shared = {
            "base_dist": StandardNormal((setting["d"],)),
            "flow_layers": LAYERS,
            "nn_width": width_of(setting["d"]),
            "nn_depth": 2,
            "nn_activation": jax.nn.silu,
            "invert": kind == "maf",
        }
        flow = (coupling_flow if kind == "coupling" else masked_autoregressive_flow)(jr.key(0), **shared)
        points = (setting["points"],)
        return _jax_side(flow, lambda f, key: f.sample(key, points), lambda f, x: f.log_prob(x), setting)

    return make


def _numpyro_iaf(setting: dict[str, Any]) -> Side:
    import jax
    import jax.numpy as jnp
    import jax.random as jr
    from jax.example_libraries import stax
    from numpyro import distributions as dist
    from numpyro.distributions.flows import InverseAutoregressiveTransform
    from numpyro.distributions.transforms import PermuteTransform
    from numpyro.nn import AutoregressiveNN

    d = setting["d"]
    # its own network has the nonlinearity that the others' have
    silu = stax.elementwise(jax.nn.silu)
    build, apply = AutoregressiveNN(d, [width_of(d)] * 2, nonlinearity=silu)
    params = [build(key, (d,))[1] for key in jr.split(jr.key(0), LAYERS)]

    def made(params: Any) -> Any:
        turn, transforms = PermuteTransform(jnp.arange(d)[::-1]), []
        for own in params:
            transforms += [turn, InverseAutoregressiveTransform(lambda x, own=own, **_: apply(own, x))]
        return dist.TransformedDistribution(dist.Normal(jnp.zeros(d), 1.0).to_event(1), transforms)

    points = (setting["points"],)
    return _jax_side(params, lambda p, key: made(p).sample(key, points), lambda p, x: made(p).log_prob(x), setting)


def _zuko(kind: str) -> Callable[[dict[str, Any]], Side]:
    def make(setting: dict[str, Any]) -> Side:
        import os

        import torch
        from zuko.flows import MAF, GeneralCouplingTransform
        from zuko.lazy import Flow

        torch.set_num_threads(os.cpu_count() or 1)
        torch.manual_seed(0)
        d, network = setting["d"], {"hidden_features": [width_of(setting["d"])] * 2, "activation": torch.nn.SiLU}
        flow = MAF(d, transforms=LAYERS, **network)
        if kind == "coupling":
            first = torch.arange(d) < d // 2
            flow = Flow(
                [GeneralCouplingTransform(d, mask=first ^ bool(i % 2), **network) for i in range(LAYERS)], flow.base
            )
        if kind != "maf":
            flow = Flow(flow.transform.inv, flow.base)
        x = torch.randn(setting["points"], d)

        def run(n: int) -> None:
            with torch.no_grad():
                for _ in range(n):
                    flow().sample((setting["points"],)) if setting["what"] == "draws" else flow().log_prob(x)

        return Side(run, {"parameters": count_torch(flow)})

    return make


def _floor(setting: dict[str, Any]) -> Side:
    """The products of one evaluation of every network of an autoregressive flow."""
    d = setting["d"]
    return products_alone([d, width_of(d), width_of(d), 2 * d], setting["points"], LAYERS, backward=False)


KINDS = ("iaf", "maf", "coupling")
SIDES = {
    **{f"thalweg {kind}": _ours(kind) for kind in KINDS},
    **{f"flowjax {kind}": _flowjax(kind) for kind in KINDS},
    **{f"zuko {kind}": _zuko(kind) for kind in KINDS},
    "numpyro iaf": _numpyro_iaf,
    FLOOR: _floor,
}
DEAR = {"draws": "maf", "densities": "iaf"}
"""The direction that inverts a masked network."""


def present(name: str) -> bool:
    """Whether the library of that side is installed."""
    library = name.split()[0]
    return name == FLOOR or importlib.util.find_spec(library) is not None

"""A reverse-KL step of an affine coupling flow: d = 10, 8 layers, networks of 64 x 64, 256 draws; ours against flowjax.

Both sides run the same Adam with the same clipping on the same log density, by the path gradient (flowjax's
`stick_the_landing`) and by the plain one. Two figures a peer: its own loop of jitted steps as its users run it
(`fit_to_key_based_loss`, minus one warm fit that compiles), and its loss in *our* scanned loop, which leaves only the
step itself to differ. Rounds alternate; the medians of the rounds' ratios are quoted.
"""

import time

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

from benchmarks._record import spread, write

D, LAYERS, WIDTH, DRAWS, STEPS, ROUNDS = 10, 8, 64, 256, 300, 7


def log_density(x):
    """A correlated normal with a bend: cheap, smooth, not Gaussian."""
    return -0.5 * jnp.sum((x[1:] - 0.3 * x[:-1] ** 2) ** 2) - 0.5 * x[0] ** 2


def scanned(loss_and_params):
    """A jitted loop of Adam steps around a loss of (parameters, key)."""
    loss, params = loss_and_params
    optimiser = optax.chain(optax.clip_by_global_norm(100.0), optax.adam(1e-3))

    @eqx.filter_jit
    def loop(params, state, key):
        def step(carry, i):
            params, state = carry
            value, grad = jax.value_and_grad(loss)(params, jr.fold_in(key, i))
            updates, state = optimiser.update(grad, state, params)
            return (optax.apply_updates(params, updates), state), value

        return jax.lax.scan(step, (params, state), jnp.arange(STEPS))

    state = optimiser.init(params)
    return lambda: jax.block_until_ready(loop(params, state, jr.key(0)))


def ours(path):
    """Our own driver, as `infer` runs it."""
    import thalweg as tw
    from thalweg.fit import Fit
    from thalweg.objectives import ReverseKL
    from thalweg.run import run

    target = tw.from_function(lambda p: log_density(p["x"]), {"x": tw.real(D)})
    flow = tw.make_flow("realnvp", D, layers=LAYERS, width=WIDTH)
    fit = Fit(ReverseKL(target, DRAWS, path=path), learning_rate=1e-3, window=None, chunk=100)
    return lambda: run(fit, fit.init(flow), jr.key(0), steps=STEPS)


def flowjax_pieces(path):
    """(distribution, loss) with 8 affine couplings, random permutations between, networks of 64 x 64."""
    from flowjax.distributions import StandardNormal
    from flowjax.flows import coupling_flow
    from flowjax.train.losses import ElboLoss

    flow = coupling_flow(
        jr.key(0),
        base_dist=StandardNormal((D,)),
        flow_layers=LAYERS,
        nn_width=WIDTH,
        nn_depth=2,
        nn_activation=jax.nn.silu,  # as ours; its own default is relu
        invert=False,
    )
    return flow, ElboLoss(log_density, num_samples=DRAWS, stick_the_landing=path)


def flowjax_loop(path):
    """Flowjax as its users run it."""
    from flowjax.train import fit_to_key_based_loss

    flow, loss = flowjax_pieces(path)
    return lambda: fit_to_key_based_loss(
        jr.key(0), flow, loss_fn=loss, learning_rate=1e-3, steps=STEPS, show_progress=False
    )


def flowjax_scanned(path):
    """Flowjax's loss in a scanned loop."""
    import paramax

    flow, loss = flowjax_pieces(path)
    params, static = eqx.partition(
        flow, eqx.is_inexact_array, is_leaf=lambda leaf: isinstance(leaf, paramax.NonTrainable)
    )
    return scanned((lambda p, key: loss(p, static, key), params))


def seconds(function):
    """Wall seconds of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main():
    """Measure and write."""
    result = {
        "setting": {"d": D, "layers": LAYERS, "network": [WIDTH, WIDTH], "draws": DRAWS, "steps": STEPS},
        "unit": "ms a step",
    }
    for path in (True, False):
        makers = {"thalweg": ours, "flowjax loop": flowjax_loop, "flowjax scanned": flowjax_scanned}
        sides = {name: make(path) for name, make in makers.items()}
        for side in sides.values():
            side()
        rounds = [{name: seconds(side) / STEPS * 1e3 for name, side in sides.items()} for _ in range(ROUNDS)]
        label = "path gradient" if path else "plain gradient"
        result[label] = {
            "ms": {name: spread([r[name] for r in rounds]) for name in sides},
            "ratio to thalweg": {n: spread([r[n] / r["thalweg"] for r in rounds]) for n in sides if n != "thalweg"},
        }
    result["seed"] = 0
    write("step", ["thalweg", "flowjax", "jax", "jaxlib", "equinox", "optax", "numpy"], result)


if __name__ == "__main__":
    np.seterr(all="raise")
    main()

"""10,000 draws from a 64-d masked autoregressive flow (MAF), 10,000 densities of an inverse one (IAF).

8 affine layers, networks of 128 x 128. Both directions are the dear ones: zuko and flowjax run the whole network d
times, ours evaluates every hidden unit once, in order. Weights are drawn so that no layer is near the identity (how far
is in `about`: the spread of log-scales and shifts), mildly and strongly: time does not depend on it, errors do. Ours is
held against inversion one coordinate after another, in float32 and, for the same weights, in float64.
"""

import os

from benchmarks._products import products_alone
from benchmarks._record import write
from benchmarks._workers import FLOOR, QUICK, Plan, Side, count, count_torch, measure, table

D, LAYERS, WIDTH, POINTS = 64, 8, 128, 2_000 if QUICK else 10_000
CHECKED = 500
NOISE = {"mild": 0.5, "strong": 2.5}
"""Standard deviation of a last layer's weights, times the root of its inputs' number."""


def _layers(strength):
    """Our layers with noised weights: from the base's points to the MAF's when inverted."""
    import equinox as eqx
    import jax.numpy as jnp
    import numpy as np

    from thalweg.bijections import AffineTransformer, Autoregressive

    def last_layer(layer):
        return layer.conditioner.weights[-1], layer.conditioner.biases[-1]

    rng = np.random.default_rng(0)
    layers = []
    for i in range(LAYERS):
        layer = Autoregressive(D, AffineTransformer(), width=WIDTH, seed=i)
        last = rng.standard_normal(layer.conditioner.weights[-1].shape) * strength / np.sqrt(WIDTH)
        bias = 0.3 * rng.standard_normal(layer.conditioner.biases[-1].shape)
        layers.append(eqx.tree_at(last_layer, layer, (jnp.asarray(last, "float32"), jnp.asarray(bias, "float32"))))
    return layers


def _in_turn(layers, y, dtype):
    """The layers inverted one coordinate after another, as a loop over coordinates: the plain truth."""
    import jax
    import jax.numpy as jnp

    def invert(layer, y):
        def put(i, x):
            return x.at[i].set(layer.transformer.inverse_and_log_slope(y, layer.conditioner(x, None))[0][i])

        return jax.lax.fori_loop(0, D, put, jnp.zeros_like(y))

    x = jnp.asarray(y, dtype)
    for layer in layers:
        layer = jax.tree.map(lambda a: jnp.asarray(a, dtype), layer)
        x = jax.jit(jax.vmap(lambda p, m=layer: invert(m, p)))(x[:, ::-1])
    return x


def _spreads(layers, y):
    """The spread of log-scales and of shifts, the largest of all layers."""
    import jax
    import jax.numpy as jnp

    scales, shifts = [], []
    for layer in layers:
        y = y[:, ::-1]
        x, params = jax.jit(jax.vmap(lambda y, m=layer: (x := m.inverse(y), m.conditioner(x, None))))(y)
        log_slope = jax.vmap(layer.transformer.inverse_and_log_slope)(y, params)[1]
        scales.append(float(log_slope.std()))
        shifts.append(float((y - x * jnp.exp(-log_slope)).std()))
        y = x
    return {"spread of log-scales": max(scales), "spread of shifts": max(shifts)}


def ours(setting):
    """Drawing from the MAF and scoring by the IAF are the same inversions, the latter in the layers' other order."""
    import jax
    import jax.numpy as jnp
    import jax.random as jr
    import numpy as np

    from thalweg.bijections import Chain, Invert, Permutation, Scan
    from thalweg.distributions import StandardNormal, Transformed

    layers = _layers(NOISE[setting["noise"]])
    turn = Permutation(np.arange(D)[::-1])
    maf = Transformed(StandardNormal((D,)), Scan([Chain([turn, Invert(a)]) for a in layers]))
    iaf = Transformed(StandardNormal((D,)), Invert(maf.bijection))
    draw = jax.jit(lambda key: maf.sample(key, POINTS))
    score = jax.jit(lambda x: iaf.log_prob(x))
    x = jr.normal(jr.key(1), (POINTS, D))

    def run(n):
        for i in range(n):
            jax.block_until_ready(draw(jr.key(i)) if setting["what"] == "draws" else score(x))

    # what is drawn is what inverting in turn gives for the same base draws
    base = np.asarray(x[:CHECKED])
    inverted = jax.jit(jax.vmap(maf.bijection.forward))(base)
    about = {"parameters": count(maf), **_spreads(layers, jnp.asarray(base))}
    with jax.enable_x64(True):
        exact = {k: np.asarray(_in_turn(layers, base, k)) for k in ("float32", "float64")}
    for name, x32 in (("thalweg", inverted), ("float32 in turn", exact["float32"])):
        about[f"largest error of {name}, against float64 in turn"] = float(np.abs(x32 - exact["float64"]).max())
    about["largest difference of thalweg and in turn, float32"] = float(np.abs(inverted - exact["float32"]).max())
    about["largest draw"] = float(np.abs(exact["float64"]).max())
    return Side(run, about)


def flowjax(setting):
    """Its flow inverts by a scan over coordinates."""
    import equinox as eqx
    import jax
    import jax.random as jr
    from flowjax.distributions import StandardNormal
    from flowjax.flows import masked_autoregressive_flow

    flow = masked_autoregressive_flow(
        jr.key(0),
        base_dist=StandardNormal((D,)),
        flow_layers=LAYERS,
        nn_width=WIDTH,
        nn_depth=2,
        nn_activation=jax.nn.silu,
        invert=setting["what"] == "draws",  # True is a MAF, False an IAF
    )
    draw = eqx.filter_jit(lambda flow, key: flow.sample(key, (POINTS,)))
    score = eqx.filter_jit(lambda flow, x: flow.log_prob(x))
    x = jr.normal(jr.key(1), (POINTS, D))

    def run(n):
        for i in range(n):
            jax.block_until_ready(draw(flow, jr.key(i)) if setting["what"] == "draws" else score(flow, x))

    return Side(run, {"parameters": count(flow.bijection)})


def zuko(setting):
    """Its flow inverts by d passes."""
    import torch
    from zuko.flows import MAF
    from zuko.lazy import Flow

    torch.set_num_threads(os.cpu_count())
    torch.manual_seed(0)
    flow = MAF(D, transforms=LAYERS, hidden_features=(WIDTH, WIDTH), activation=torch.nn.SiLU)
    inverse = Flow(flow.transform.inv, flow.base)
    x = torch.randn(POINTS, D)

    def run(n):
        with torch.no_grad():
            for _ in range(n):
                flow().sample((POINTS,)) if setting["what"] == "draws" else inverse().log_prob(x)

    return Side(run, {"parameters": count_torch(flow)})


def floor(setting):
    """Products of one evaluation of every network: what no way can do without."""
    return products_alone([D, WIDTH, WIDTH, 2 * D], POINTS, LAYERS, backward=False)


SIDES = {"thalweg": ours, "flowjax": flowjax, "zuko": zuko, FLOOR: floor}


def main():
    """Measure and write."""
    plan = Plan(rounds=2 if QUICK else 5, warm=1)
    result = {
        "setting": {"d": D, "layers": LAYERS, "network": [WIDTH, WIDTH], "points": POINTS},
        "unit": "seconds for all points",
        "rounds": plan.rounds,
    }
    for what, noise, sides in (
        ("draws", "mild", list(SIDES)),
        ("draws", "strong", ["thalweg", FLOOR]),
        ("densities", "mild", list(SIDES)),
    ):
        measured = measure("benchmarks.sampling", sides, {"what": what, "noise": noise}, plan)
        label = "draws of a MAF" if what == "draws" else "densities of an IAF"
        result[f"{label}, {noise}"] = table(measured, unit=1, key="seconds")
    result["seed"] = 0
    packages = ["thalweg", "flowjax", "zuko", "torch", "jax", "jaxlib", "equinox", "numpy"]
    write("sampling", packages, result, quick=QUICK)


if __name__ == "__main__":
    main()

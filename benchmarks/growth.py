"""How our step and its compiling grow with dimension, layers and draws: reverse KL by the path gradient, couplings.

One thing at a time is moved away from d = 10, 8 layers, 256 draws, networks of 64 x 64. Compiling is tracing, lowering
and XLA's own work for one loop of Adam steps; nothing is found compiled. Every setting is a process of its own, next to
one with its conditioners' products alone.
"""

import time

from benchmarks._products import products_alone
from benchmarks._record import spread, write
from benchmarks._workers import FLOOR, QUICK, Plan, Side, measure

WIDTH, BINS = 64, 8
START = {"d": 10, "layers": 8, "draws": 256}
MOVES = {"d": (2, 40, 160), "layers": (2, 32), "draws": (1024, 4096)}
if QUICK:
    MOVES = {"d": (40,), "layers": (32,), "draws": (1024,)}


def log_density(params):
    """A bent normal, of any dimension."""
    x = params["x"]
    return -0.5 * ((x[1:] - 0.3 * x[:-1] ** 2) ** 2).sum() - 0.5 * x[0] ** 2


def ours(setting):
    """The fit's own step in a jitted loop."""
    import equinox as eqx
    import jax
    import jax.random as jr

    import thalweg as tw
    from thalweg.fit import Fit
    from thalweg.objectives import ReverseKL

    d = setting["d"]
    target = tw.from_function(log_density, {"x": tw.real(d)})
    flow = tw.make_flow(
        {"affine": "realnvp", "spline": "spline"}[setting["kind"]], d, layers=setting["layers"], width=WIDTH
    )
    fit = Fit(ReverseKL(target, setting["draws"]), learning_rate=1e-3)
    arrays, static = eqx.partition(fit.init(flow), eqx.is_array)

    def loop(n, arrays):
        def step(i, arrays):
            state, _ = fit.step(eqx.combine(arrays, static), jr.fold_in(jr.key(0), i), i)
            return eqx.filter(state, eqx.is_array)

        return jax.lax.fori_loop(0, n, step, arrays)

    # what every first program costs is not this one's
    jax.block_until_ready(jax.jit(lambda n: jax.lax.fori_loop(0, n, lambda i, k: jr.fold_in(k, i), jr.key(0)))(3))
    start = time.perf_counter()
    lowered = jax.jit(loop).lower(1, arrays)
    traced = time.perf_counter()
    compiled = lowered.compile()
    about = {"trace seconds": traced - start, "XLA seconds": time.perf_counter() - traced}

    def run(n):
        jax.block_until_ready(compiled(n, arrays))

    return Side(run, about)


def floor(setting):
    """Of the same conditioners."""
    d = setting["d"]
    kept = d // 2
    outputs = (d - kept) * (3 * BINS - 1 if setting["kind"] == "spline" else 2)
    return products_alone([kept, WIDTH, WIDTH, outputs], setting["draws"], setting["layers"], pulls=1)


SIDES = {"thalweg": ours, FLOOR: floor}


def main():
    """Measure and write."""
    plan = Plan(rounds=2 if QUICK else 5, seconds=0.3 if QUICK else 0.5, warm=3)
    settings = [START] + [START | {name: value} for name, values in MOVES.items() for value in values]
    rows = []
    for kind in ("affine", "spline"):
        for setting in settings:
            measured = measure("benchmarks.growth", list(SIDES), {"kind": kind, **setting}, plan)
            ours, alone = measured["thalweg"], measured[FLOOR]
            shares = [a / b for a, b in zip(alone["seconds"], ours["seconds"], strict=True)]
            row = {"kind": kind, **setting, "ms a step": spread([1e3 * s for s in ours["seconds"]])}
            rows.append(row | ours["about"] | {f"{FLOOR}, share": spread(shares), "peak MB": ours["peak MB"]})
    result = {"network": [WIDTH, WIDTH], "bins": BINS, "rounds": plan.rounds, "rows": rows, "seed": 0}
    write("growth", ["thalweg", "jax", "jaxlib", "equinox", "optax", "numpy"], result, quick=QUICK)


if __name__ == "__main__":
    main()

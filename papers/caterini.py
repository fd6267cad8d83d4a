"""Caterini et al. 2021, Variational inference with continuously-indexed flows: section 4.1; the topology claim."""

import functools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from scipy.special import logsumexp

import thalweg as tw
from papers._harness import Arrays, Cell, Drawing, Numbers, Paper, spread, table
from papers._measure import forward, histogram, log_prob_of_rows, reverse
from papers._plots import curves, densities, new_figure
from thalweg.bijections import Autoregressive, Chain, Permutation, SplineTransformer, TriangularAffine
from thalweg.distributions import AbstractSampler, ContinuouslyIndexed, Normal, Transformed
from thalweg.fit import Fit
from thalweg.objectives import ReverseKL
from thalweg.problems import lattice
from thalweg.run import run
from thalweg.targets import log_density_of_rows

LATTICES, ARMS, SCALES = (9, 16), ("nsf", "nsf-affine", "cif-nsf"), ("0.1", "1", "10", "learned")
LAYERS, WIDTH, INDEX_WIDTH = 5, 32, 10
STEPS, DRAWS = {"smoke": 20, "laptop": 20_000, "paper": 20_000}, {"smoke": 32, "laptop": 256, "paper": 1000}
SEEDS = {"smoke": (0,), "laptop": (0, 1, 2), "paper": (0, 1, 2)}
SHAPES, DENSITY_FLOWS = ("rings", "checkerboard"), ("realnvp", "cif-realnvp")
BUDGETS = {"smoke": (100,), "laptop": (500, 2000, 8000), "paper": (500, 2000, 8000, 32_000)}
ROWS = {"smoke": 500, "laptop": 20_000, "paper": 100_000}
WEIGHED, ESTIMATED = 100_000, {"smoke": 20, "laptop": 500, "paper": 2000}
OF_EACH = {"smoke": (1, 4), "laptop": (1, 10, 100, 1000), "paper": (1, 10, 100, 1000)}
"""Draws of a bound, and of an importance estimate; indices for each of the latter."""
DEVIATIONS = {
    scale: (
        f"{STEPS[scale]:,} updates of {DRAWS[scale]:,} draws (the paper's code: 20,000 of 1,000)",
        "path gradients, and a learning rate of 0.001 that falls to 0 along a cosine over the second half, in place of "
        "the plain gradient and a constant rate",
        "the splines' networks of the arms without indices are widened until their parameters match",
        "sd 0.25 and normalised lattices, as in the paper's code; its values are in the titles of figures and were not "
        "to be read, so no published number stands beside ours",
    )
    for scale in STEPS
}


def _layers(width: int, rng: np.random.Generator) -> list[Any]:
    """The paper's NSF: autoregressive splines of 8 bins on [-3, 3], an order reversed between."""
    spline = SplineTransformer(bins=8, bound=3.0)
    order = np.array([1, 0])
    return [
        Chain([Permutation(order), Autoregressive(2, spline, width=width, depth=2, seed=rng)]) for _ in range(LAYERS)
    ]


def _size(flow: Any) -> int:
    return sum(x.size for x in jax.tree.leaves(eqx.filter(flow, eqx.is_inexact_array)))


def _build(arm: str, scale: str, seed: int) -> AbstractSampler:
    learned, sd = scale == "learned", np.full(2, 1.0 if scale == "learned" else float(scale))
    base = Normal(np.zeros(2), sd, trainable=learned)

    def indexed() -> ContinuouslyIndexed:
        layers = _layers(WIDTH, np.random.default_rng(seed))
        return ContinuouslyIndexed(base, layers, index_size=1, width=INDEX_WIDTH, depth=2, seed=seed)

    if arm == "cif-nsf":
        return indexed()

    def plain(width: int) -> Transformed:
        stack = tw.bijections.Scan(_layers(width, np.random.default_rng(seed)))
        last = [TriangularAffine(np.zeros(2), np.eye(2))] if arm == "nsf-affine" else []
        return Transformed(base, Chain([stack, *last]))

    wanted = _size(indexed())
    return next(flow for width in range(WIDTH, 10 * WIDTH) if _size(flow := plain(width)) >= wanted)


def _mixture(modes: int, scale: str, arm: str, seed: int, size: str) -> tuple[Numbers, Arrays]:
    problem = lattice(modes)
    process = Fit(ReverseKL(problem.target, n_draws=DRAWS[size]), learning_rate=1e-3, window=None, chunk=500)
    start = process.init(_build(arm, scale, seed))
    fitted = run(process, start, jax.random.key(seed), steps=STEPS[size]).state.model
    numbers: Numbers = {"parameters": _size(fitted), **reverse(fitted, problem, WEIGHED)}
    draws = np.asarray(eqx.filter_jit(lambda q: q.sample(1, WEIGHED))(fitted))
    exact = problem.draw(np.random.default_rng(1), 2000 if size == "smoke" else 20_000)
    if arm == "cif-nsf":
        log_q = _bounds(fitted, exact, OF_EACH[size][1])
        numbers["importance estimates"] = _estimates(fitted, problem, size)
    else:
        log_q = log_prob_of_rows(fitted, exact)
    reach = 3.0 if modes == 9 else 4.0
    numbers |= {**forward(log_q, problem, exact), "coverage": problem.coverage(draws[:20_000])}
    return numbers, {"density": histogram(draws, reach)} if seed == 0 else {}


def _bounds(flow: Any, x: np.ndarray, n: int, piece: int = 1000) -> np.ndarray:
    """Bounds of log q from below at rows."""
    score = eqx.filter_jit(lambda q, x: q.log_prob_bounds(0, x, n).lower)
    padded = np.concatenate([x, np.repeat(x[-1:], -len(x) % piece, axis=0)])
    parts = [np.asarray(score(flow, jnp.asarray(p, jnp.result_type(float)))) for p in padded.reshape(-1, piece, 2)]
    return np.concatenate(parts)[: len(x)].astype(float)


def _estimates(flow: ContinuouslyIndexed, problem: Any, scale: str) -> Numbers:
    """By m: E[log p - log q(z)] with log q by importance sampling of m indices, and with the bound from above.

    The first is too high on average, the second, one of whose indices is the draw's own, too low: their distance bounds
    the bias of either.
    """
    n, most = ESTIMATED[scale], OF_EACH[scale][-1]

    def one(key: Any) -> tuple[Any, Any, Any]:
        own, others = jax.random.split(key)
        z, _, log_joint, log_reverse = flow._walk(own, None)
        keys = jax.random.split(others, most)
        return z, log_joint - log_reverse, jax.vmap(lambda k: flow._sample_log_ratio(k, z, None))(keys)

    parts = jax.jit(lambda keys: jax.lax.map(one, keys, batch_size=10))(jax.random.split(jax.random.key(2), n))
    z, own, others = (np.asarray(part, float) for part in parts)
    log_p = log_density_of_rows(problem.target, z) - problem.log_evidence
    found: Numbers = {}
    for m in OF_EACH[scale]:
        # as many sets of m as there are
        sets = others[:, : most // m * m].reshape(n, -1, m)
        high = log_p - (logsumexp(sets, axis=2) - math.log(m)).mean(axis=1)
        with_own = np.concatenate([np.broadcast_to(own[:, None, None], (*sets.shape[:2], 1)), sets[..., 1:]], axis=2)
        low = log_p - (logsumexp(with_own, axis=2) - math.log(m)).mean(axis=1)
        error = float(low.std() / np.sqrt(n))
        found[str(m)] = {"high": float(high.mean()), "low": float(low.mean()), "standard error": error}
    return found


def _shape(name: str, rng: np.random.Generator, n: int) -> np.ndarray:
    """Uniform on two rings (radii 1 to 1.4 and 2.6 to 3), or on the black squares of a board of 4 by 4."""
    if name == "rings":
        inner, outer = np.array([1.0, 2.6]), np.array([1.4, 3.0])
        area = outer**2 - inner**2
        which = (rng.random(n) < area[1] / area.sum()).astype(int)
        radius, angle = np.sqrt(inner[which] ** 2 + area[which] * rng.random(n)), 2 * np.pi * rng.random(n)
        return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    row, column = rng.integers(4, size=n), rng.integers(2, size=n)
    corner = np.stack([2 * column + row % 2, row], axis=1) - 2.0
    return corner + rng.random((n, 2))


def _best(name: str) -> float:
    """The mean log density of the truth itself."""
    return -math.log(math.pi * (1.4**2 - 1 + 3**2 - 2.6**2) if name == "rings" else 8.0)


def _topology(name: str, flow: str, steps: int, seed: int, scale: str) -> tuple[Numbers, Arrays]:
    rng = np.random.default_rng(seed)
    x, test = _shape(name, rng, ROWS[scale]), _shape(name, np.random.default_rng(100), ROWS[scale] // 4)
    fitted = tw.fit_density(x, flow, seed=seed, progress=False, steps=steps)
    log_q = _bounds(fitted, test, 100) if flow.startswith("cif") else log_prob_of_rows(fitted, test)
    numbers = {
        "log density": float(log_q.mean()),
        "log density error": float(log_q.std() / np.sqrt(len(log_q))),
        "best possible": _best(name),
        "parameters": _size(fitted),
        "stretch": float(np.max(_stretches(fitted, test[:1000]))),
    }
    draws = np.asarray(eqx.filter_jit(lambda q: q.sample(1, WEIGHED))(fitted))
    return numbers, {
        "density": histogram(draws, 3.5),
        "truth": histogram(_shape(name, rng, WEIGHED), 3.5),
    } if seed == 0 else {}


def _stretches(flow: Any, x: np.ndarray) -> np.ndarray:
    """The largest singular value of the way back to the base at points; of an indexed flow at drawn indices."""
    if isinstance(flow, ContinuouslyIndexed):

        def back(x: Any, key: Any) -> Any:
            u = flow._sample_reverse(key, x, None)
            return jnp.linalg.norm(jax.jacfwd(lambda x: flow._walk_back(x, u, None, draw=False)[0])(x), 2)

        keys = jax.random.split(jax.random.key(3), len(x))
        return np.asarray(jax.jit(jax.vmap(back))(jnp.asarray(x, jnp.result_type(float)), keys))
    one = jax.jit(jax.vmap(lambda x: jnp.linalg.norm(jax.jacfwd(flow.bijection.inverse)(x), 2)))
    return np.asarray(one(jnp.asarray(x, jnp.result_type(float))))


def _cells(scale: str) -> dict[str, Cell]:
    cells: dict[str, Cell] = {}
    smoke = scale == "smoke"
    for seed in SEEDS[scale]:
        for modes in LATTICES[: 1 if smoke else None]:
            for sd in ("1",) if smoke else SCALES:
                for arm in ARMS:
                    name = f"lattice-{modes}-{sd}-{arm}-{seed}"
                    cells[name] = functools.partial(_mixture, modes, sd, arm, seed, scale)
        for shape in SHAPES[: 1 if smoke else None]:
            for flow in DENSITY_FLOWS:
                for steps in BUDGETS[scale]:
                    name = f"{shape}-{flow}-{steps}-{seed}"
                    cells[name] = functools.partial(_topology, shape, flow, steps, seed, scale)
    return cells


def _of(cells: Numbers, *words: Any) -> list[Numbers]:
    start = "-".join(map(str, words)) + "-"
    return [c for n, c in cells.items() if n.startswith(start) and n.removeprefix(start).isdigit()]


def _figures(record: Numbers) -> list[Drawing]:
    cells, budgets, found = record["cells"], BUDGETS[record["scale"]], []

    def pictures(name: str, table: list[list[tuple[str, str]]], across: Any, down: Any, under: Any = None) -> None:
        """Of (a cell, which of its arrays)."""
        used = tuple(n for row in table for n, _ in row)
        if used and all(n in cells for n in used):
            found.append(
                Drawing(
                    f"caterini-{name}",
                    used,
                    lambda read: densities([[read(n)[key] for n, key in row] for row in table], across, down, under),
                )
            )

    for modes in LATTICES:
        sds = [sd for sd in SCALES if all(f"lattice-{modes}-{sd}-{arm}-0" in cells for arm in ARMS)]
        table = [[(f"lattice-{modes}-{sd}-{arm}-0", "density") for arm in ARMS] for sd in sds]
        under = [[f"bound {-cells[n]['KL']:+.3f}" for n, _ in row] for row in table]
        pictures(f"lattice-{modes}", table, ARMS, [f"sd {sd}" for sd in sds], under)
    shapes = [s for s in SHAPES if f"{s}-{DENSITY_FLOWS[-1]}-{budgets[-1]}-0" in cells]
    last = [[f"{s}-{flow}-{budgets[-1]}-0" for flow in DENSITY_FLOWS] for s in shapes]
    table = [[(row[0], "truth"), *((n, "density") for n in row)] for row in last]
    pictures("topology", table, ["draws of the truth", *DENSITY_FLOWS], shapes)
    if shapes:
        found.append(Drawing("caterini-stretch", (), lambda _: _stretch_curves(cells, shapes, budgets)))
    return found


def _stretch_curves(cells: Numbers, shapes: list[str], budgets: tuple[int, ...]) -> Figure:
    figure = new_figure(3.2 * len(shapes), 2.5)
    for ax, s in zip(np.ravel(figure.subplots(1, len(shapes))), shapes, strict=True):
        series = {
            flow: (budgets, [float(np.median([c["stretch"] for c in _of(cells, s, flow, n)])) for n in budgets])
            for flow in DENSITY_FLOWS
        }
        curves(ax, series, x="steps", y="largest stretch")
        ax.set_title(s, fontsize=8)
    return figure


def _section(record: Numbers) -> str:
    cells, most = record["cells"], OF_EACH[record["scale"]][-1]
    rows, against = [], []
    for modes in LATTICES:
        for sd in SCALES:
            by_arm = {arm: _of(cells, "lattice", modes, sd, arm) for arm in ARMS}
            for arm, found in by_arm.items():
                if found:
                    known = [c["importance estimates"] for c in found if "importance estimates" in c]
                    high = [e[str(most)]["high"] for e in known]
                    rows.append(
                        [
                            str(modes),
                            sd,
                            arm,
                            str(found[0]["parameters"]),
                            spread(-c["KL"] for c in found),
                            spread(high) if high else "exact",
                            spread(c["forward KL"] for c in found),
                            spread(c["coverage"] for c in found),
                            f"{np.median([c['seconds'] for c in found]):.0f}",
                        ]
                    )
            if all(by_arm.values()):
                gains = {
                    arm: np.array([a["KL"] - b["KL"] for a, b in zip(by_arm[arm], by_arm["cif-nsf"], strict=True)])
                    for arm in ARMS[:2]
                }
                shown = [
                    f"{g.mean():+.3f} ± {g.std(ddof=1) / np.sqrt(len(g)) if len(g) > 1 else math.nan:.3f}"
                    for g in gains.values()
                ]
                against.append([str(modes), sd, *shown])
    bias = [
        [
            n.removeprefix("lattice-"),
            *(f"{e[str(m)]['low']:+.3f} to {e[str(m)]['high']:+.3f}" for m in OF_EACH[record["scale"]]),
        ]
        for n, c in cells.items()
        if (e := c.get("importance estimates")) and n.endswith("-0")
    ]
    density = [
        [
            s,
            flow,
            str(steps),
            str(found[0]["parameters"]),
            spread(c["log density"] for c in found),
            f"{found[0]['best possible']:.3f}",
            spread((c["stretch"] for c in found), 1),
        ]
        for s in SHAPES
        for flow in DENSITY_FLOWS
        for steps in BUDGETS[record["scale"]]
        if (found := _of(cells, s, flow, steps))
    ]
    return "\n".join(
        [
            "**Lattices of 9 and 16 normals** (log Z = 0). The bound is the auxiliary ELBO, of an exact flow the ELBO, "
            "from 100,000 draws; the importance estimate of an indexed flow's ELBO takes 1,000 indices a draw. Medians "
            "over seeds (range). Covering m of K modes caps the ELBO at -log(K / m).",
            "",
            table(
                ["modes", "σ₀", "flow", "parameters", "bound", "importance", "forward KL", "coverage", "seconds"], rows
            ),
            "",
            "**The gain of indices**: the bound of cif-nsf less the other's, mean over seeds and its standard error.",
            "",
            table(["modes", "σ₀", *(f"over {a}" for a in ARMS[:2])], against),
            "",
            "**How far an importance estimate may be off**, by the indices a draw: too low to too high on average.",
            "",
            table(["lattice", *(f"m = {m}" for m in OF_EACH[record["scale"]])], bias),
            "",
            "**Densities with holes.** `fit_density`; the mean log density of new draws (of an indexed flow its bound, "
            "100 indices a draw), the truth's own, and the largest singular value of the way back to the base.",
            "",
            table(["density", "flow", "steps", "parameters", "log density", "truth", "stretch"], density),
        ]
    )


PAPER = Paper(
    name="caterini",
    title="Caterini, Cornish, Sejdinovic and Doucet 2021: Variational inference with continuously-indexed flows",
    deviations=DEVIATIONS,
    cells=_cells,
    figures=_figures,
    section=_section,
)

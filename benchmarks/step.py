"""A reverse-KL step of coupling flows: d = 10, 8 layers, networks of 64 x 64, 256 draws; ours against three peers.

Affine and rational-quadratic (8 bins on [-5, 5]) couplings, by the plain gradient and, where a library has it, by the
path gradient (flowjax's `stick_the_landing`, normflows' `score_fn=False`). All take the same log density, the same
activation, Adam at 1e-3 and as many parameters as the library lets them; what differs is in `about`. Ours is the driver
that `infer` runs, on the peers' flow and on its own, which has a Student-t base and an affine map more. flowjax has two
figures: its own loop of jitted steps, and its loss in a scanned loop of ours, which leaves only the step itself to
differ. zuko and normflows run eagerly on as many threads as there are cores, with torch's fused Adam, as their examples
do. Each is a process of its own, whose largest memory is written down.

The affine flows' figures are at the top, the splines' under "spline".
"""

import math
import os

from benchmarks._products import products_alone
from benchmarks._record import write
from benchmarks._workers import FLOOR, QUICK, Plan, Side, count, count_torch, measure, table

D, LAYERS, WIDTH, DRAWS, BINS, BOUND, RATE = 10, 8, 64, 256, 8, 5.0, 1e-3


def log_density(x):
    """A correlated normal with a bend: cheap, smooth, not Gaussian."""
    import jax.numpy as jnp

    return -0.5 * jnp.sum((x[1:] - 0.3 * x[:-1] ** 2) ** 2) - 0.5 * x[0] ** 2


def log_density_torch(x):
    """The same for a batch of rows."""
    return -0.5 * ((x[:, 1:] - 0.3 * x[:, :-1] ** 2) ** 2).sum(-1) - 0.5 * x[:, 0] ** 2


def fit_steps(flow, setting, differs):
    """Our own driver, as `infer` runs it; `draws` of a step may be set."""
    import jax.random as jr

    import thalweg as tw
    from thalweg.fit import Fit
    from thalweg.objectives import ReverseKL
    from thalweg.run import run

    target = tw.from_function(lambda p: log_density(p["x"]), {"x": tw.real(D)})
    objective = ReverseKL(target, setting.get("draws", DRAWS), path=setting["path"])
    fit = Fit(objective, learning_rate=RATE, window=None, chunk=100)

    def steps(n):
        history = run(fit, fit.init(flow), jr.key(0), steps=n).history
        return {"loss at the end": -float(history["elbo"][-5:].mean())}

    return Side(steps, {"parameters": fit.init(flow).skeleton.size, "differs": differs})


def _recipe(setting):
    import thalweg as tw

    return tw.make_flow({"affine": "realnvp", "spline": "spline"}[setting["kind"]], D, layers=LAYERS, width=WIDTH)


def ours(setting):
    """What the peers' flows are made of: a normal base, couplings with permutations between, no more."""
    from thalweg.distributions import StandardNormal, Transformed

    couplings = _recipe(setting).bijection.bijections[0]
    return fit_steps(Transformed(StandardNormal((D,)), couplings), setting, "gradients clipped; bad steps skipped")


def ours_by_name(setting):
    """The flow that `infer` would take by that name."""
    differs = "base Student-t; a triangular affine map at the end; gradients clipped; bad steps skipped"
    return fit_steps(_recipe(setting), setting, differs)


def _flowjax(setting):
    """(distribution, loss): couplings with random permutations between."""
    import jax
    import jax.random as jr
    from flowjax.bijections import RationalQuadraticSpline
    from flowjax.distributions import StandardNormal
    from flowjax.flows import coupling_flow
    from flowjax.train.losses import ElboLoss

    # its `knots` are the inner ones
    spline = RationalQuadraticSpline(knots=BINS - 1, interval=BOUND) if setting["kind"] == "spline" else None
    flow = coupling_flow(
        jr.key(0),
        base_dist=StandardNormal((D,)),
        transformer=spline,
        flow_layers=LAYERS,
        nn_width=WIDTH,
        nn_depth=2,
        nn_activation=jax.nn.silu,
        invert=False,
    )
    differs = "slopes at the box's ends are trained too" if spline else "scale by softplus"
    about = {"parameters": count(flow.bijection), "differs": differs}
    return flow, ElboLoss(log_density, num_samples=DRAWS, stick_the_landing=setting["path"]), about


def flowjax_loop(setting):
    """Flowjax as its users run it."""
    import jax.random as jr
    import optax
    from flowjax.train import fit_to_key_based_loss

    flow, loss, about = _flowjax(setting)
    optimiser = optax.adam(RATE)  # made once: with a new one each call its step would compile anew

    def steps(n):
        _, losses = fit_to_key_based_loss(
            jr.key(0), flow, loss_fn=loss, optimizer=optimiser, steps=n, show_progress=False
        )
        return {"loss at the end": sum(losses[-5:]) / 5}

    return Side(steps, about)


def flowjax_scanned(setting):
    """Flowjax's loss in a jitted loop of Adam steps."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import jax.random as jr
    import optax
    import paramax

    flow, loss, about = _flowjax(setting)
    params, static = eqx.partition(
        flow, eqx.is_inexact_array, is_leaf=lambda leaf: isinstance(leaf, paramax.NonTrainable)
    )
    optimiser = optax.chain(optax.clip_by_global_norm(100.0), optax.adam(RATE))

    @jax.jit
    def loop(params, state, key, n):
        def step(i, carry):
            params, state, _ = carry
            value, grad = jax.value_and_grad(loss)(params, static, jr.fold_in(key, i))
            updates, state = optimiser.update(grad, state, params)
            return optax.apply_updates(params, updates), state, value

        return jax.lax.fori_loop(0, n, step, (params, state, jnp.zeros(())))

    state = optimiser.init(params)
    return Side(lambda n: {"loss at the end": float(loop(params, state, jr.key(0), n)[2])}, about)


def torch_steps(parameters, loss, about):
    """A side of plain torch: eager steps of fused Adam, two threads."""
    import torch

    optimiser = torch.optim.Adam(parameters, lr=RATE, fused=True)

    def steps(n):
        last = math.nan
        for _ in range(n):
            optimiser.zero_grad()
            value = loss()
            value.backward()
            optimiser.step()
            last = value
        return {"loss at the end": float(last)}

    return Side(steps, about)


def zuko(setting):
    """Couplings of halves, swapped in between; the inverse is what draws, as in its tutorial on energies."""
    import torch
    from zuko.distributions import DiagNormal
    from zuko.flows import GeneralCouplingTransform
    from zuko.lazy import Flow, UnconditionalDistribution
    from zuko.transforms import MonotonicRQSTransform

    torch.set_num_threads(os.cpu_count())
    torch.manual_seed(0)
    network = {"hidden_features": (WIDTH, WIDTH), "activation": torch.nn.SiLU}
    if setting["kind"] == "spline":
        network |= {"univariate": MonotonicRQSTransform, "shapes": [(BINS,), (BINS,), (BINS - 1,)]}
    masks = [(torch.arange(D) < D // 2) ^ bool(i % 2) for i in range(LAYERS)]
    layers = [GeneralCouplingTransform(D, mask=m, **network) for m in masks]
    base = UnconditionalDistribution(DiagNormal, torch.zeros(D), torch.ones(D), buffer=True)
    flow = Flow(layers, base)
    flow = Flow(flow.transform.inv, flow.base)

    def loss():
        x, log_q = flow().rsample_and_log_prob((DRAWS,))
        return (log_q - log_density_torch(x)).mean()

    differs = "no permutations: halves are swapped; has no path gradient"
    return torch_steps(flow.parameters(), loss, {"parameters": count_torch(flow), "differs": differs})


def normflows(setting):
    """Couplings of halves, swapped in between."""
    import normflows as nf
    import torch
    from normflows.flows.neural_spline.coupling import PiecewiseRationalQuadraticCoupling

    torch.set_num_threads(os.cpu_count())
    torch.manual_seed(0)

    class Network(torch.nn.Sequential):
        """As its own, it is called with a context; its last layer starts at zero, as `init_zeros` has it."""

        def __init__(self, size, out):
            silu, linear = torch.nn.SiLU, torch.nn.Linear
            super().__init__(linear(size, WIDTH), silu(), linear(WIDTH, WIDTH), silu(), linear(WIDTH, out))
            torch.nn.init.zeros_(self[-1].weight)
            torch.nn.init.zeros_(self[-1].bias)

        def forward(self, x, context=None):
            return super().forward(x)

    class Target(nf.distributions.Target):
        def log_prob(self, z):
            return log_density_torch(z)

    flows = []
    for _ in range(LAYERS):
        if setting["kind"] == "spline":
            mask = (torch.arange(D) >= D // 2).int()
            flows.append(PiecewiseRationalQuadraticCoupling(mask, Network, BINS, "linear", BOUND))
        else:
            flows.append(nf.flows.AffineCouplingBlock(Network(D // 2, D)))
        flows.append(nf.flows.Permute(D, mode="swap"))
    model = nf.NormalizingFlow(nf.distributions.DiagGaussian(D, trainable=False), flows, Target())
    differs = "no permutations: halves are swapped" + (
        "; built of its coupling with a plain network: `CoupledRationalQuadraticSpline` has a residual one"
        if setting["kind"] == "spline"
        else "; scale by exp, not clamped"
    )
    return torch_steps(
        model.parameters(),
        lambda: model.reverse_kld(DRAWS, score_fn=not setting["path"]),
        {"parameters": count_torch(model), "differs": differs},
    )


def floor(setting):
    """Products of the conditioners, forward and backward; a path gradient pulls through them once more."""
    outputs = D // 2 * (3 * BINS - 1 if setting["kind"] == "spline" else 2)
    return products_alone([D // 2, WIDTH, WIDTH, outputs], DRAWS, LAYERS, pulls=int(setting["path"]))


SIDES = {
    "thalweg": ours,
    "thalweg by name": ours_by_name,
    "flowjax loop": flowjax_loop,
    "flowjax scanned": flowjax_scanned,
    "zuko": zuko,
    "normflows": normflows,
    FLOOR: floor,
}


def main():
    """Measure and write."""
    plan = Plan() if QUICK else Plan(seconds=2.0)
    result = {
        "setting": {"d": D, "layers": LAYERS, "network": [WIDTH, WIDTH], "draws": DRAWS, "bins": BINS},
        "unit": "ms a step",
        "rounds": plan.rounds,
    }
    for kind in ("affine", "spline"):
        place = result if kind == "affine" else result.setdefault("spline", {})
        for path in (True, False):
            sides = [n for n in SIDES if not (path and n == "zuko")]
            measured = measure("benchmarks.step", sides, {"kind": kind, "path": path}, plan)
            place["path gradient" if path else "plain gradient"] = table(measured, unit=1e3, key="ms")
    result["seed"] = 0
    packages = ["thalweg", "flowjax", "zuko", "normflows", "torch", "jax", "jaxlib", "equinox", "optax", "numpy"]
    write("step", packages, result, quick=QUICK)


if __name__ == "__main__":
    main()

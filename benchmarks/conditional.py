"""An epoch of maximum likelihood of a conditional autoregressive spline flow; ours against flowjax, sbi and zuko.

theta has 5 numbers, the context 10; 5 layers, networks of 50 x 50, 8 bins, Adam at 5e-4, 10,000 pairs of which 1,000
are kept for validation: 45 steps of 200 an epoch, and the validation loss after it, for every side.

Ours is a plain jitted scan of Adam on -log_prob. flowjax has its own loop, and its log_prob in the same scan. sbi is
run by its own `train`, and its estimator (`maf_rqs`) by a bare torch loop over whole tensors, as zuko's `NSF` is. The
torch sides train on from round to round where the others begin anew, so their losses say only that they learn.
"""

import atexit
import math
import os
import shutil
import tempfile

from benchmarks._products import products_alone
from benchmarks._record import write
from benchmarks._workers import FLOOR, QUICK, Plan, Side, count, count_torch, measure, table

SIZE, CONTEXT, LAYERS, WIDTH, BINS, BOUND, RATE = 5, 10, 5, 50, 8, 5.0, 5e-4
PAIRS, KEPT, BATCH = 10_000, 1_000, 200


def pairs():
    """(theta, x): a bent linear map with noise, standardised, float32."""
    import numpy as np

    rng = np.random.default_rng(0)
    theta = rng.standard_normal((PAIRS, SIZE))
    x = np.concatenate([theta, theta**2], 1) @ rng.standard_normal((2 * SIZE, CONTEXT))
    x = x + 0.5 * rng.standard_normal(x.shape)
    return theta.astype(np.float32), ((x - x.mean(0)) / x.std(0)).astype(np.float32)


def _scanned(model, loss, about):
    """Epochs of Adam, each one jitted call: permute, scan over batches, validate."""
    import jax
    import jax.numpy as jnp
    import jax.random as jr
    import optax

    theta, x = map(jnp.asarray, pairs())
    optimiser = optax.adam(RATE)

    @jax.jit
    def epoch(model, state, key):
        order = jr.permutation(key, PAIRS - KEPT).reshape(-1, BATCH)

        def step(carry, rows):
            model, state = carry
            value, grad = jax.value_and_grad(loss)(model, theta[rows], x[rows])
            updates, state = optimiser.update(grad, state, model)
            return (optax.apply_updates(model, updates), state), value

        (model, state), _ = jax.lax.scan(step, (model, state), order)
        return model, state, loss(model, theta[-KEPT:], x[-KEPT:])

    def epochs(n):
        now, state, value = model, optimiser.init(model), math.nan
        for i in range(n):
            now, state, value = epoch(now, state, jr.key(i))
            value = float(value)  # as a loop that may stop early has to
        return {"validation loss": value}

    return Side(epochs, about)


def ours(setting):
    """Autoregressive splines, inverted, so that log_prob is one network evaluation a layer."""
    import equinox as eqx
    import numpy as np

    from thalweg.bijections import Autoregressive, Chain, Invert, Permutation, Scan, SplineTransformer
    from thalweg.distributions import StandardNormal, Transformed

    def layer(i):
        spline = Autoregressive(SIZE, SplineTransformer(BINS, BOUND), context_size=CONTEXT, width=WIDTH, seed=i)
        return Chain([Permutation(np.arange(SIZE)[::-1]), Invert(spline)])

    flow = Transformed(StandardNormal((SIZE,)), Scan([layer(i) for i in range(LAYERS)]))
    params, static = eqx.partition(flow, eqx.is_inexact_array)

    def loss(params, theta, x):
        return -eqx.combine(params, static).log_prob(theta, x).mean()

    return _scanned(params, loss, {"parameters": count(flow)})


def _flowjax():
    import jax
    import jax.random as jr
    from flowjax.bijections import RationalQuadraticSpline
    from flowjax.distributions import StandardNormal
    from flowjax.flows import masked_autoregressive_flow

    flow = masked_autoregressive_flow(
        jr.key(0),
        base_dist=StandardNormal((SIZE,)),
        transformer=RationalQuadraticSpline(knots=BINS - 1, interval=BOUND),  # its `knots` are the inner ones
        cond_dim=CONTEXT,
        flow_layers=LAYERS,
        nn_width=WIDTH,
        nn_depth=2,
        nn_activation=jax.nn.silu,
    )
    return flow, {"parameters": count(flow.bijection), "differs": "slopes at the box's ends are trained too"}


def flowjax_loop(setting):
    """Flowjax as its users run it."""
    import jax.random as jr
    import optax
    from flowjax.train import fit_to_data
    from flowjax.train.losses import MaximumLikelihoodLoss

    # one loss for all calls: by default each makes its own, and compiles its steps anew
    (flow, about), data, optimiser, loss = _flowjax(), pairs(), optax.adam(RATE), MaximumLikelihoodLoss()

    def epochs(n):
        _, losses = fit_to_data(
            jr.key(0),
            flow,
            data,
            loss_fn=loss,
            optimizer=optimiser,
            max_epochs=n,
            max_patience=n,
            batch_size=BATCH,
            val_prop=KEPT / PAIRS,
            show_progress=False,
        )
        return {"validation loss": losses["val"][-1]}

    return Side(epochs, about)


def flowjax_scanned(setting):
    """Flowjax's log_prob in the same scan as ours."""
    import equinox as eqx
    import paramax

    flow, about = _flowjax()
    params, static = eqx.partition(
        flow, eqx.is_inexact_array, is_leaf=lambda leaf: isinstance(leaf, paramax.NonTrainable)
    )

    def loss(params, theta, x):
        return -paramax.unwrap(eqx.combine(params, static)).log_prob(theta, x).mean()

    return _scanned(params, loss, about)


def _torch_epochs(module, loss, about):
    """A bare loop: eager steps of fused Adam, whole tensors indexed by a permutation."""
    import torch

    theta, x = map(torch.from_numpy, pairs())
    optimiser = torch.optim.Adam(module.parameters(), lr=RATE, fused=True)

    def epochs(n):
        value = math.nan
        for _ in range(n):
            for rows in torch.randperm(PAIRS - KEPT).split(BATCH):
                optimiser.zero_grad()
                loss(theta[rows], x[rows]).backward()
                optimiser.step()
            with torch.no_grad():
                value = float(loss(theta[-KEPT:], x[-KEPT:]))
        return {"validation loss": value}

    return Side(epochs, about)


def _sbi_builder():
    import torch
    from sbi.neural_nets import posterior_nn

    torch.set_num_threads(os.cpu_count())
    torch.manual_seed(0)
    return posterior_nn(
        "maf_rqs", hidden_features=WIDTH, num_transforms=LAYERS, num_bins=BINS, num_blocks=2, tail_bound=BOUND
    )


_SBI = "nflows' network of one layer and two plain blocks, tanh; random permutations; inputs standardised again"


def sbi_train(setting):
    """Sbi as its users run it."""
    import torch
    from sbi.inference import NPE
    from torch.utils.tensorboard import SummaryWriter

    theta, x = map(torch.from_numpy, pairs())
    folder = tempfile.mkdtemp()  # its own choice is the working folder
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    trainer = NPE(density_estimator=_sbi_builder(), show_progress_bars=False, summary_writer=SummaryWriter(folder))
    trainer.append_simulations(theta, x)

    def train(last, resume):
        return trainer.train(
            training_batch_size=BATCH,
            learning_rate=RATE,
            validation_fraction=KEPT / PAIRS,
            stop_after_epochs=10**9,
            max_num_epochs=last,
            resume_training=resume,
        )

    train(1, resume=False)
    done = [2]  # it counts from 0 and stops after the epoch of the number given, which must be positive

    def epochs(n):
        done[0] += n
        net = train(done[0] - 1, resume=True)
        loss = trainer.summary["validation_loss"][-1]
        return {"validation loss": loss, "parameters": count_torch(net)}

    return Side(epochs, {"differs": _SBI + "; clips gradients; data by a DataLoader"})


def sbi_bare(setting):
    """Sbi's estimator in the bare loop."""
    import torch

    theta, x = map(torch.from_numpy, pairs())
    estimator = _sbi_builder()(theta, x)

    def loss(theta, x):
        return estimator.loss(theta, condition=x).mean()

    return _torch_epochs(estimator, loss, {"parameters": count_torch(estimator), "differs": _SBI})


def zuko(setting):
    """Its NSF in the bare loop."""
    import torch
    from zuko.flows import NSF

    torch.set_num_threads(os.cpu_count())
    torch.manual_seed(0)
    flow = NSF(
        SIZE,
        CONTEXT,
        bins=BINS,
        transforms=LAYERS,
        hidden_features=(WIDTH, WIDTH),
        activation=torch.nn.SiLU,
    )
    return _torch_epochs(flow, lambda theta, x: -flow(x).log_prob(theta).mean(), {"parameters": count_torch(flow)})


def floor(setting):
    """Products of an epoch's steps; those of validation, 2 in 100, are left out."""
    sizes = [SIZE + CONTEXT, WIDTH, WIDTH, SIZE * (3 * BINS - 1)]
    return products_alone(sizes, BATCH, LAYERS * (PAIRS - KEPT) // BATCH)


SIDES = {
    "thalweg": ours,
    "flowjax loop": flowjax_loop,
    "flowjax scanned": flowjax_scanned,
    "sbi train": sbi_train,
    "sbi bare loop": sbi_bare,
    "zuko bare loop": zuko,
    FLOOR: floor,
}


def main():
    """Measure and write."""
    plan = Plan(warm=1)
    result = {
        "setting": {"theta": SIZE, "context": CONTEXT, "layers": LAYERS, "network": [WIDTH, WIDTH], "bins": BINS}
        | {"pairs": PAIRS, "validation": KEPT, "batch": BATCH},
        "unit": "seconds an epoch",
        "rounds": plan.rounds,
        **table(measure("benchmarks.conditional", list(SIDES), {}, plan), unit=1, key="seconds"),
        "seed": 0,
    }
    packages = ["thalweg", "flowjax", "sbi", "nflows", "zuko", "torch", "jax", "jaxlib", "equinox", "optax", "numpy"]
    write("conditional", packages, result, quick=QUICK)


if __name__ == "__main__":
    main()

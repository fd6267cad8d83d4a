"""One device and eight make the same draws, so the same fit."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

PROGRAM = """
import json, jax, numpy as np, jax.numpy as jnp, thalweg as tw
from jax.scipy.stats import norm
from jax.sharding import Mesh
density = lambda p: norm.logpdf(p["x"]).sum() + norm.logpdf(p["y"], p["x"][0] ** 2, 0.5)
target = tw.from_function(density, {"x": tw.real(2), "y": tw.real()})
out = {}
for n in (1, 8):
    mesh = Mesh(np.array(jax.devices()[:n]), ("draws",))
    fit = dict(steps=60, n_draws=64, progress=False, dtype="float64")
    out[n] = tw.infer(target, "realnvp", mesh=mesh, **fit).trace["elbo"].tolist()
out["plain"] = tw.infer(target, "realnvp", **fit).trace["elbo"].tolist()
print(json.dumps(out))
"""


@pytest.mark.slow
def test_one_device_and_eight_agree():
    env = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    traces = json.loads(done.stdout.splitlines()[-1])
    assert len(traces["1"]) == 60
    # sums over devices are in another order
    np.testing.assert_allclose(traces["8"], traces["1"], rtol=1e-9)
    np.testing.assert_allclose(traces["plain"], traces["1"], rtol=1e-9)

"""Eight schools by NumPyro's NUTS, 4 chains of 1000 + 1000, as a process of its own; prints the posterior means.

The same model and data as examples/eight_schools. The argument is NumPyro's chain method.
"""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist


def model(y, sigma):
    """Non-centred."""
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    z = numpyro.sample("z", dist.Normal(0, 1).expand([8]).to_event(1))
    numpyro.sample("y", dist.Normal(mu + tau * z, sigma), obs=y)


if __name__ == "__main__":
    method = sys.argv[1]
    if method == "parallel":
        numpyro.set_host_device_count(4)
    content = json.loads((Path(__file__).parents[1] / "examples" / "eight_schools" / "data.json").read_text())
    data = {k: jnp.asarray(v, float) for k, v in content.items()}
    kernel = numpyro.infer.NUTS(model)
    mcmc = numpyro.infer.MCMC(
        kernel, num_warmup=1000, num_samples=1000, num_chains=4, chain_method=method, progress_bar=False
    )
    mcmc.run(jax.random.key(0), **data)
    draws = mcmc.get_samples()
    print(json.dumps({k: float(jnp.mean(draws[k])) for k in ("mu", "tau")}))

"""Radon in the houses of 85 counties of Minnesota, as a NumPyro model: an intercept a county, partially pooled.

    log_radon ~ N(alpha[county] + beta[1] log_uppm + beta[2] floor_measure, sigma_y)
    alpha[j] ~ N(mu_alpha, sigma_alpha)

Model and data: radon_mn, radon_hierarchical_intercept_centered of posteriordb (github.com/stan-dev/posteriordb,
BSD-3-Clause). This needs the extra `numpyro`.
"""

import numpyro
import numpyro.distributions as dist


def model(J, county_idx, log_uppm, floor_measure, log_radon=None):
    """`county_idx` counts from 1."""
    mu_alpha = numpyro.sample("mu_alpha", dist.Normal(0, 10))
    sigma_alpha = numpyro.sample("sigma_alpha", dist.HalfNormal(1))
    sigma_y = numpyro.sample("sigma_y", dist.HalfNormal(1))
    beta = numpyro.sample("beta", dist.Normal(0, 10).expand([2]).to_event(1))
    with numpyro.plate("county", J):
        alpha = numpyro.sample("alpha", dist.Normal(mu_alpha, sigma_alpha))
    mean = alpha[county_idx - 1] + beta[0] * log_uppm + beta[1] * floor_measure
    with numpyro.plate("house", county_idx.shape[0]):
        numpyro.sample("log_radon", dist.Normal(mean, sigma_y), obs=log_radon)

"""Eight schools (Rubin 1981) as a PyMC model: the posterior of model.py beside it. This needs the extra `pymc`."""

import pymc as pm


def model(y, sigma):
    """The schools' names are coords, and come along."""
    with pm.Model(coords={"school": list("ABCDEFGH")}) as schools:
        mu = pm.Normal("mu", 0, 5)
        tau = pm.HalfCauchy("tau", 5)
        z = pm.Normal("z", dims="school")
        theta = pm.Deterministic("theta", mu + tau * z, dims="school")
        pm.Normal("y", theta, sigma, observed=y, dims="school")
    return schools

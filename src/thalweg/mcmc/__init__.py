"""Markov chains that a flow helps along: their draws are the target's own in the long run, whatever the flow."""

from thalweg.mcmc._chains import Bounds, Chains, LatentDensity, independence_chains, latent_chains

__all__ = ["Bounds", "Chains", "LatentDensity", "independence_chains", "latent_chains"]

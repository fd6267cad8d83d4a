"""Weights of a mixture whose components were fitted one by one."""

import numpy as np

from thalweg._core import Array, PRNGKeyArray, in_pieces, rows_jit, split_on_host
from thalweg.diagnostics import psis
from thalweg.distributions import Mixture
from thalweg.posterior import draw_and_score
from thalweg.targets import Target, log_density_of_rows

_ROUNDS, _DRAWS, _LEAST = 5, 4000, 1e-3
_PIECE = 1000


@rows_jit
def _responsibilities_piece(mixture: Mixture, u: Array) -> Array:
    return mixture.responsibilities(u)


def _responsibilities(mixture: Mixture, u: np.ndarray) -> np.ndarray:
    return np.asarray(in_pieces(_responsibilities_piece(mixture), u, _PIECE), float)


def weigh_components(mixture: Mixture, target: Target, key: PRNGKeyArray) -> Mixture:
    r"""The mixture with weights that follow the target's masses: $w_k \leftarrow \sum_i \omega_i\, r_k(x_i)$.

    The x are its own draws, omega their normalised importance weights, r the chance that component k made them: a few
    rounds of expectation maximisation towards the smallest KL(p, q). Source: Cappe et al. 2008 (M-PMC).
    """
    for round_key in split_on_host(key, _ROUNDS):
        u, log_q = draw_and_score(mixture, round_key, _DRAWS)
        log_w = np.asarray(log_density_of_rows(target, u), float) - log_q
        if np.isnan(log_w).any() or not np.isfinite(log_w.max()):
            return mixture
        shares = np.exp(psis(log_w).log_weights) @ _responsibilities(mixture, u)
        # one that had no draws this time may have some the next
        mixture = mixture.reweighted(np.maximum(shares / shares.sum(), _LEAST / mixture.n_components))
    return mixture

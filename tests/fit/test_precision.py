"""Sparse factors, against NumPy's of the dense matrix."""

import numpy as np
import pytest
from scipy import sparse

from thalweg.fit._precision import Factor, scale_tril_of


def _chain(d):
    """Each meets the next, and two of them all."""
    matrix = np.diag(np.full(d, 3.0)) - np.eye(d, k=1) - np.eye(d, k=-1)
    matrix[:, :2] = matrix[:2] = 0.05
    matrix[[0, 1], [0, 1]] = d
    return matrix


def _any(d):
    """Each meets a few, anywhere."""
    some = sparse.random_array((d, d), density=3 / d, rng=np.random.default_rng(0)).toarray()
    return some + some.T + 6 * np.eye(d)


@pytest.mark.parametrize("matrix", [_chain(60), _any(60), np.eye(3)], ids=["chain", "any", "identity"])
def test_a_sparse_factor_is_that_of_the_dense_matrix(matrix):
    d, rng = len(matrix), np.random.default_rng(1)
    factor = Factor.of(sparse.csc_array(matrix))
    np.testing.assert_allclose(factor.log_det, np.linalg.slogdet(matrix)[1] / 2, rtol=1e-12)
    covariance = np.linalg.inv(matrix)
    spread = factor.spread(np.eye(d))
    np.testing.assert_allclose(spread.T @ spread, covariance, atol=1e-12)
    score = rng.standard_normal(d)
    np.testing.assert_allclose(factor.spread(factor.whiten(score)[None])[0], covariance @ score, atol=1e-12)
    np.testing.assert_allclose(scale_tril_of(matrix), np.linalg.cholesky(covariance), atol=1e-12)


def test_a_chain_stays_sparse():
    factor = Factor.of(sparse.csc_array(_chain(200)))
    assert factor.lower.nnz < 6 * 200


@pytest.mark.parametrize("shift", [-2.0, -1e3])
def test_what_is_not_positive_has_none(shift):
    assert Factor.of(sparse.csc_array(_chain(40) + shift * np.eye(40))) is None
    assert Factor.of(sparse.csc_array(np.ones((4, 4)))) is None

"""One row for every export of `thalweg.bijections`: what the contract tests run over."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from thalweg.bijections import (
    LU,
    MLP,
    AbstractBijection,
    AbstractTransformer,
    ActNorm,
    AdditiveTransformer,
    Affine,
    AffineTransformer,
    Autoregressive,
    BlockAutoregressive,
    Chain,
    CholeskyCorrelation,
    Circular,
    Coupling,
    Covariance,
    Elementwise,
    FixedAffine,
    GatedTransformer,
    GreaterThan,
    Householder,
    Hyper,
    Identity,
    Interval,
    Invert,
    LessThan,
    LocationScale,
    MaskedMLP,
    Ordered,
    Orthogonal,
    Permutation,
    Planar,
    PositiveOrdered,
    Radial,
    Reshape,
    Scan,
    SigmoidalTransformer,
    SinhArcsinhTransformer,
    SplineTransformer,
    Squeeze,
    StickBreaking,
    Sylvester,
    TriangularAffine,
    Turned,
    UnitVector,
    Vmap,
    ZeroSum,
    random_orthogonal,
    random_permutation,
    reverse,
)

SMALL: dict[str, Any] = {"width": 8, "depth": 2}


@dataclass(frozen=True)
class Row:
    """One bijection under the contract.

    Attributes:
        export: the export it is the row of.
        build: makes it, in the precision that holds at the call.
        note: tells rows of one export apart.
        identity: it is the identity as built.
        reference: y -> the coordinates that the log-determinant is with respect to; None for all of y. Where those
            are more than x has, the measure is that of the surface.
        constrained: not every y of out_shape is a value, so points y are made from points x.
        edge: the inverse is finite at points that rounding has brought to the edge of the set.
    """

    export: str
    build: Callable[[], AbstractBijection]
    note: str = ""
    identity: bool = False
    reference: Callable[[Any], Any] | None = None
    constrained: bool = False
    edge: bool = True

    def __str__(self) -> str:
        return f"{self.export}-{self.note}" if self.note else self.export


def support(export: str, build: Callable[[], AbstractBijection], reference: Any = None, note: str = "") -> Row:
    """The row of a map onto a constrained set."""
    return Row(export, build, note, reference=reference, constrained=True)


def _layer(seed: int) -> AbstractBijection:
    affine = AffineTransformer()
    return Chain(
        [
            Coupling(4, affine, seed=seed, **SMALL),
            Coupling(4, affine, swap=True, seed=seed + 1, **SMALL),
            random_permutation(4, seed),
        ]
    )


def _below_diagonal(y: Any) -> Any:
    return y[np.tril_indices(y.shape[0], -1)]


def _lower_triangle(y: Any) -> Any:
    return y[np.tril_indices(y.shape[0])]


SPLINE = SplineTransformer(bins=3, bound=3.0)

ROWS = [
    Row("Affine", lambda: Affine(np.array([[1.0, -2.0]]), np.array([[0.5, 3.0]]))),
    Row("TriangularAffine", lambda: TriangularAffine(np.arange(4.0), np.tril(0.3 + np.eye(4)))),
    Row("FixedAffine", lambda: FixedAffine(np.arange(4.0), np.eye(4)[::-1] + 0.3 * np.tri(4))),
    Row("LocationScale", lambda: LocationScale(np.arange(4.0), 0.5, 4)),
    Row("LocationScale", lambda: LocationScale(1.0, np.tril(0.3 + np.eye(4)), 4), "matrix"),
    Row("LocationScale", lambda: LocationScale(np.arange(4.0), np.arange(1.0, 5.0), 4, walk=True), "walk"),
    Row("LU", lambda: LU(4), identity=True),
    Row("Permutation", lambda: Permutation([2, 0, 3, 1])),
    Row("random_permutation", lambda: random_permutation(4, seed=3)),
    Row("reverse", lambda: reverse(4)),
    Row("Identity", lambda: Identity((2, 2)), identity=True),
    Row("Identity", lambda: Identity((4,), (3,)), "context", identity=True),
    Row("Reshape", lambda: Reshape((2, 6), (3, 4))),
    Row("Squeeze", lambda: Squeeze((4, 2, 3))),
    Row("Vmap", lambda: Vmap(Radial(4), 2), identity=True),
    Row("Vmap", lambda: Vmap(Coupling(2, AffineTransformer(), context_size=3, **SMALL), 2), "context", identity=True),
    Row("Invert", lambda: Invert(Planar(4)), "root", identity=True),
    Row("Invert", lambda: Invert(Autoregressive(4, AffineTransformer(), **SMALL)), "sequential", identity=True),
    Row("Chain", lambda: Chain([Reshape((2, 2), (4,)), Planar(4), LU(4), Radial(4)])),
    Row("Chain", lambda: Chain([LU(4), Coupling(4, AffineTransformer(), context_size=3, **SMALL)]), "context", True),
    Row("Scan", lambda: Scan([_layer(s) for s in range(3)])),
    Row("Scan", lambda: Scan([Planar(4, seed=s) for s in range(3)]), "root", identity=True),
    Row("Coupling", lambda: Coupling(4, AffineTransformer(), **SMALL), "affine", identity=True),
    Row("Coupling", lambda: Coupling(5, AdditiveTransformer(), swap=True, **SMALL), "additive-odd-swap", identity=True),
    Row("Coupling", lambda: Coupling(4, SPLINE, context_size=3, **SMALL), "spline-context", identity=True),
    Row("Coupling", lambda: Coupling(5, AffineTransformer(), first=1, **SMALL), "first", identity=True),
    Row("Coupling", lambda: Coupling(1, AffineTransformer(), **SMALL), "one-coordinate", identity=True),
    Row("Autoregressive", lambda: Autoregressive(4, AffineTransformer(), **SMALL), "affine", identity=True),
    Row("Autoregressive", lambda: Autoregressive(4, SPLINE, context_size=3, **SMALL), "spline-context", identity=True),
    Row("Autoregressive", lambda: Autoregressive(1, AffineTransformer(), **SMALL), "one-coordinate", identity=True),
    Row("Autoregressive", lambda: Autoregressive(4, GatedTransformer(), **SMALL), "gated", identity=True),
    Row("Autoregressive", lambda: Autoregressive(3, SigmoidalTransformer(3), **SMALL), "sigmoidal", identity=True),
    Row("BlockAutoregressive", lambda: BlockAutoregressive(4, width=3)),
    Row("BlockAutoregressive", lambda: BlockAutoregressive(1, width=3, depth=1), "one-coordinate"),
    Row("Elementwise", lambda: Elementwise(4, SPLINE), identity=True),
    Row("Elementwise", lambda: Elementwise(4, SinhArcsinhTransformer(), first=2), "first", identity=True),
    Row("ActNorm", lambda: ActNorm((2, 2, 3)), identity=True),
    Row("Householder", lambda: Householder(4), identity=True),
    Row("Orthogonal", lambda: Orthogonal(np.array([[0.6, -0.8], [0.8, 0.6]]))),
    Row("random_orthogonal", lambda: random_orthogonal(4, seed=1)),
    Row("Sylvester", lambda: Sylvester(4, "orthogonal", columns=2), "orthogonal", identity=True),
    Row("Sylvester", lambda: Sylvester(4, "householder"), "householder", identity=True),
    Row("Sylvester", lambda: Sylvester(4, "triangular"), "triangular", identity=True),
    Row("Sylvester", lambda: Sylvester(1), "one-coordinate", identity=True),
    Row("Hyper", lambda: Hyper(Scan([Planar(4, seed=s) for s in range(2)]), 3, **SMALL), identity=True),
    Row("Planar", lambda: Planar(4), identity=True),
    Row("Planar", lambda: Planar(1), "one-coordinate", identity=True),
    Row("Radial", lambda: Radial(4), identity=True),
    Row("Radial", lambda: Radial(1), "one-coordinate", identity=True),
    support("GreaterThan", lambda: GreaterThan(2.0, (3,))),
    support("LessThan", lambda: LessThan(np.array([-1.0, 0.0, 1.0]), (3,))),
    support("Interval", lambda: Interval(-1.0, np.array([2.0, 3.0]), (2,))),
    support("Interval", lambda: Interval(0.0, 1.0), note="scalar"),
    support("Ordered", lambda: Ordered(4)),
    support("PositiveOrdered", lambda: PositiveOrdered(4)),
    support("StickBreaking", lambda: StickBreaking(4), lambda y: y[:-1]),
    support("ZeroSum", lambda: ZeroSum(4)),
    support("UnitVector", lambda: UnitVector(4)),
    support("UnitVector", lambda: UnitVector(2), note="circle"),
    support("Circular", lambda: Circular((3,))),
    support("Turned", lambda: Turned(Circular((2,)), [3.0, -1.0]), note="angles"),
    support(
        "Turned", lambda: Turned(UnitVector(3), [[0.6, 0.0, -0.8], [0.0, -1.0, 0.0], [0.8, 0.0, 0.6]]), note="sphere"
    ),
    support("CholeskyCorrelation", lambda: CholeskyCorrelation(3), _below_diagonal),
    # a matrix that is singular in single precision has no Cholesky factor
    Row("Covariance", lambda: Covariance(3), reference=_lower_triangle, constrained=True, edge=False),
]

TRANSFORMERS: dict[str, Callable[[], AbstractTransformer]] = {
    "AffineTransformer": AffineTransformer,
    "AdditiveTransformer": AdditiveTransformer,
    "GatedTransformer": GatedTransformer,
    "SigmoidalTransformer": lambda: SigmoidalTransformer(5),
    "SinhArcsinhTransformer": SinhArcsinhTransformer,
    "SplineTransformer": SplineTransformer,
}

NETWORKS: dict[str, Callable[[], Any]] = {
    "MLP": lambda: MLP(4, 6, **SMALL),
    "MaskedMLP": lambda: MaskedMLP(4, 2, **SMALL),
}

# two sums and a concatenation that distributions share; tested by what they are parts of
PARTS = {"join_context", "sum_slopes"}
EXPORTS = {row.export for row in ROWS} | set(TRANSFORMERS) | set(NETWORKS) | PARTS


def point(shape: tuple[int, ...], seed: int) -> Any:
    """A point x in the precision that holds at the call."""
    return jnp.asarray(1.2 * np.random.default_rng(seed).standard_normal(shape), jnp.result_type(float))


def context_of(bijection: AbstractBijection, seed: int) -> Any:
    """A context for `bijection`, or None."""
    return None if bijection.context_shape is None else point(bijection.context_shape, seed + 1000)

"""Invertible maps of one point to one point, each with both directions and log-determinants."""

from thalweg.bijections._autoregressive import Autoregressive
from thalweg.bijections._bijection import AbstractBijection, Invert
from thalweg.bijections._block_autoregressive import BlockAutoregressive
from thalweg.bijections._compose import Chain, Identity, Reshape, Scan, Squeeze, Vmap
from thalweg.bijections._coupling import Coupling
from thalweg.bijections._curved_supports import CholeskyCorrelation, Circular, Covariance, Turned, UnitVector
from thalweg.bijections._elementwise import ActNorm, Elementwise
from thalweg.bijections._hyper import Hyper
from thalweg.bijections._linear import (
    LU,
    Affine,
    FixedAffine,
    Permutation,
    TriangularAffine,
    random_permutation,
    reverse,
)
from thalweg.bijections._networks import MLP, MaskedMLP, join_context
from thalweg.bijections._orthogonal import Householder, Orthogonal, random_orthogonal
from thalweg.bijections._planar_radial import Planar, Radial
from thalweg.bijections._sigmoidal import SigmoidalTransformer
from thalweg.bijections._supports import (
    GreaterThan,
    Interval,
    LessThan,
    LocationScale,
    Ordered,
    PositiveOrdered,
    StickBreaking,
    ZeroSum,
)
from thalweg.bijections._sylvester import Sylvester
from thalweg.bijections._transformers import (
    AbstractTransformer,
    AdditiveTransformer,
    AffineTransformer,
    GatedTransformer,
    SinhArcsinhTransformer,
    SplineTransformer,
    sum_slopes,
)

__all__ = [
    "LU",
    "MLP",
    "AbstractBijection",
    "AbstractTransformer",
    "ActNorm",
    "AdditiveTransformer",
    "Affine",
    "AffineTransformer",
    "Autoregressive",
    "BlockAutoregressive",
    "Chain",
    "CholeskyCorrelation",
    "Circular",
    "Coupling",
    "Covariance",
    "Elementwise",
    "FixedAffine",
    "GatedTransformer",
    "GreaterThan",
    "Householder",
    "Hyper",
    "Identity",
    "Interval",
    "Invert",
    "LessThan",
    "LocationScale",
    "MaskedMLP",
    "Ordered",
    "Orthogonal",
    "Permutation",
    "Planar",
    "PositiveOrdered",
    "Radial",
    "Reshape",
    "Scan",
    "SigmoidalTransformer",
    "SinhArcsinhTransformer",
    "SplineTransformer",
    "Squeeze",
    "StickBreaking",
    "Sylvester",
    "TriangularAffine",
    "Turned",
    "UnitVector",
    "Vmap",
    "ZeroSum",
    "join_context",
    "random_orthogonal",
    "random_permutation",
    "reverse",
    "sum_slopes",
]

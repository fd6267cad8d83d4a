"""Invertible maps of one point to one point, each with both directions and log-determinants."""

from thalweg.bijections._autoregressive import Autoregressive
from thalweg.bijections._bijection import AbstractBijection, Invert
from thalweg.bijections._compose import Chain, Identity, Reshape, Scan, Squeeze, Vmap
from thalweg.bijections._coupling import Coupling
from thalweg.bijections._curved_supports import CholeskyCorrelation, Circular, Covariance, UnitVector
from thalweg.bijections._hyper import Hyper
from thalweg.bijections._linear import LU, Affine, Permutation, TriangularAffine, random_permutation, reverse
from thalweg.bijections._networks import MLP, MaskedMLP
from thalweg.bijections._planar_radial import Planar, Radial
from thalweg.bijections._supports import GreaterThan, Interval, LessThan, Ordered, PositiveOrdered, StickBreaking
from thalweg.bijections._transformers import (
    AbstractTransformer,
    AdditiveTransformer,
    AffineTransformer,
    SplineTransformer,
)

__all__ = [
    "LU",
    "MLP",
    "AbstractBijection",
    "AbstractTransformer",
    "AdditiveTransformer",
    "Affine",
    "AffineTransformer",
    "Autoregressive",
    "Chain",
    "CholeskyCorrelation",
    "Circular",
    "Coupling",
    "Covariance",
    "GreaterThan",
    "Hyper",
    "Identity",
    "Interval",
    "Invert",
    "LessThan",
    "MaskedMLP",
    "Ordered",
    "Permutation",
    "Planar",
    "PositiveOrdered",
    "Radial",
    "Reshape",
    "Scan",
    "SplineTransformer",
    "Squeeze",
    "StickBreaking",
    "TriangularAffine",
    "UnitVector",
    "Vmap",
    "random_permutation",
    "reverse",
]

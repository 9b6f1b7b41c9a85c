"""The digits on which the ruler is tested."""

from tests.equivariance.conftest import digits

__all__ = ["digits"]

"""Multi-tenant vision inference that can be answered for."""

__version__ = "0.1.0"

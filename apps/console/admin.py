"""Django finds the console's pages through this module."""

from apps.console import accounts, audit, compute, datarequests, datasets, network, permissions, tokens

__all__ = ["accounts", "audit", "compute", "datarequests", "datasets", "network", "permissions", "tokens"]

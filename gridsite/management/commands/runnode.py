"""`python manage.py runnode --port 8001 --dir DIR --network URL`"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from gridsite.serving import ServeCommand, trusted_pair


class Command(ServeCommand):
    help = "Run one node until SIGTERM or Ctrl-C. What the arguments leave open comes from the environment."
    role = "node"

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--network", help="URL of the network that it joins (GRID_NETWORK_URL).")

    def environment(self, options: dict[str, Any]) -> dict[str, str]:
        wanted = super().environment(options)
        if options["network"]:
            network = options["network"].rstrip("/")
            wanted |= {"GRID_NETWORK_URL": network} | trusted_pair(network)
        return wanted

"""`python manage.py runnetwork --port 8000 --dir DIR`"""

from __future__ import annotations

from gridsite.serving import ServeCommand


class Command(ServeCommand):
    help = "Run one network until SIGTERM or Ctrl-C. What the arguments leave open comes from the environment."
    role = "network"

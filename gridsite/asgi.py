"""The ASGI application: probes, HTTP, the data websocket, and background tasks that live as long as the process."""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gridsite.settings")

from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.urls import path

http = get_asgi_application()

from apps.wire.consumer import GridConsumer  # noqa: E402  (models must be loaded first)
from gridsite.body import BodyLimit  # noqa: E402
from gridsite.counting import CountFrames  # noqa: E402
from gridsite.lifespan import Lifespan  # noqa: E402
from gridsite.probes import Probes  # noqa: E402
from gridsite.threads import FewThreads  # noqa: E402

application = ProtocolTypeRouter(
    {
        "http": Probes(BodyLimit(FewThreads(http))),
        "websocket": CountFrames(URLRouter([path("ws/grid/", GridConsumer.as_asgi())])),
        "lifespan": Lifespan(),
    }
)

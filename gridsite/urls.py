"""Routes: REST under /api/, the console under /admin/. The websocket is routed in `asgi.py`."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

urlpatterns = [
    path("api/", include("apps.api.urls")),
    path("admin/", admin.site.urls),
    path("", RedirectView.as_view(url="/admin/"), name="home"),
]

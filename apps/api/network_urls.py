"""Routes between deployments and for the network's operator; `urls.py` includes them."""

from __future__ import annotations

from django.urls import path, re_path

from apps.api import network, searching

urlpatterns = [
    path("identity/", network.Identity.as_view()),
    path("nodes/", network.Nodes.as_view()),
    re_path(r"^nodes/(?P<id>[-a-z0-9]{1,40})/(?P<verb>approve|reject|remove)/$", network.Decide.as_view()),
    path("announcements/", network.Announcements.as_view()),
    path("search/", searching.Search.as_view()),
    path("search/facets/", searching.Counts.as_view()),
    path("search/suggest/", searching.Completions.as_view()),
    path("assertions/", network.Assertions.as_view()),
    path("challenge/", network.Challenge.as_view()),
    path("sign-in/assertion/", network.SignInByAssertion.as_view()),
    path("membership/", network.OwnMembership.as_view()),
]

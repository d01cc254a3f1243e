"""All routes under /api/. What is none answers with the same JSON as an object that is not there."""

from __future__ import annotations

from django.urls import include, path, re_path

from apps.api import audit, budgets, datasets, people, plans, requests, sessions, signing, views

urlpatterns = [
    path("", include("apps.api.network_urls")),
    path("sign-in/", signing.SignIn.as_view()),
    path("sign-out/", signing.SignOut.as_view()),
    path("me/", signing.Me.as_view()),
    path("users/", people.Users.as_view()),
    path("users/<str:username>/", people.OneUser.as_view()),
    path("teams/", people.Teams.as_view()),
    path("teams/<str:slug>/", people.OneTeam.as_view()),
    path("tokens/", people.Tokens.as_view()),
    path("tokens/<str:prefix>/", people.OneToken.as_view()),
    path("datasets/", datasets.Datasets.as_view()),
    path("datasets/<str:slug>/", datasets.OneDataset.as_view()),
    path("datasets/<str:slug>/grants/", datasets.Grants.as_view()),
    path("datasets/<str:slug>/budget/", budgets.OneBudget.as_view()),
    path("budget-requests/", budgets.BudgetRequests.as_view()),
    path("budget-requests/<uuid:id>/", budgets.OneBudgetRequest.as_view()),
    path("budget-requests/<uuid:id>/approve/", budgets.ApproveBudget.as_view()),
    path("budget-requests/<uuid:id>/deny/", budgets.DenyBudget.as_view()),
    path("budget-requests/<uuid:id>/withdraw/", budgets.WithdrawBudget.as_view()),
    path("domains/", budgets.Domains.as_view()),
    path("releases/", budgets.Releases.as_view()),
    path("releases/<uuid:id>/", budgets.OneRelease.as_view()),
    path("grants/<int:id>/", datasets.OneGrant.as_view()),
    path("plans/", plans.Plans.as_view()),
    path("plans/<str:name>/", plans.OnePlan.as_view()),
    path("plans/<str:name>/bytes/", plans.PlanBytes.as_view()),
    path("requests/", requests.Requests.as_view()),
    path("requests/<uuid:id>/", requests.OneRequest.as_view()),
    path("requests/<uuid:id>/approve/", requests.Approve.as_view()),
    path("requests/<uuid:id>/deny/", requests.Deny.as_view()),
    path("requests/<uuid:id>/withdraw/", requests.Withdraw.as_view()),
    path("sessions/", sessions.Sessions.as_view()),
    path("sessions/<uuid:id>/stop/", sessions.Stop.as_view()),
    path("audit/", audit.Events.as_view()),
    path("audit/verify/", audit.Verify.as_view()),
    re_path(r"", views.Absent.as_view()),
]

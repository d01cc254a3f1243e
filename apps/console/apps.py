from django.apps import AppConfig
from django.contrib.admin.apps import AdminConfig


class ConsoleConfig(AppConfig):
    name = "apps.console"
    verbose_name = "Console"


class ConsoleAdminConfig(AdminConfig):
    """Django's admin, with our site."""

    default_site = "apps.console.site.ConsoleSite"

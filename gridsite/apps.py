from django.apps import AppConfig


class GridsiteConfig(AppConfig):
    name = "gridsite"

    def ready(self) -> None:
        from gridsite import checks  # noqa: F401  (registers them)

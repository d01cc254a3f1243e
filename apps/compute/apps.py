from django.apps import AppConfig


class ComputeConfig(AppConfig):
    name = "apps.compute"
    verbose_name = "Compute"

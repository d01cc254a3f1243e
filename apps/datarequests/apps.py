from django.apps import AppConfig


class RequestsConfig(AppConfig):
    name = "apps.datarequests"
    verbose_name = "Requests"

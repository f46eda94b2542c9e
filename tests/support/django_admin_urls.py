"""The URLs of the Django project among the wrapped apps: the admin, where the tutorial puts it."""

from django.contrib import admin
from django.contrib.staticfiles.urls import staticfiles_urlpatterns
from django.urls import path

urlpatterns = [path("admin/", admin.site.urls), *staticfiles_urlpatterns()]

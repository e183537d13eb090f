"""Celery, kombu and click: the only place that imports them."""

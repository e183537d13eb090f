"""Holds, waiting and renewal over the ports; knows neither redis nor celery."""

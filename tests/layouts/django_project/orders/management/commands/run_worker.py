from bookshop.celery import app
from django.core.management import BaseCommand


class Command(BaseCommand):
    help = "Run a worker with the options of `celery worker`."

    def run_from_argv(self, argv):
        app.worker_main(["worker", *argv[2:]])

from celery.result import AsyncResult
from flask import Blueprint, request

from accounts.tasks import sync_account

bp = Blueprint("accounts", __name__)


@bp.post("/sync")
def start_sync():
    result = sync_account.delay(request.form.get("account_id", type=int))
    return {"result_id": result.id}


@bp.get("/result/<id>")
def task_result(id):
    result = AsyncResult(id)
    return {
        "ready": result.ready(),
        "successful": result.successful(),
        "value": result.result if result.ready() else None,
    }

from celery.result import AsyncResult
from fastapi import FastAPI
from pydantic import BaseModel
from worker import create_report

app = FastAPI()


class Order(BaseModel):
    tenant: str
    pages: int


@app.post("/reports", status_code=201)
def start_report(order: Order):
    task = create_report.delay(order.tenant, order.pages)
    return {"task_id": task.id}


@app.get("/reports/{task_id}")
def get_status(task_id: str):
    result = AsyncResult(task_id)
    return {"task_status": result.status, "task_result": result.result if result.ready() else None}

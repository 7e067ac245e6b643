"""FastAPI on uvicorn, as tutorials do it: a function, run in the thread pool."""

import os

import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from handler import Detector

app = FastAPI()
detector = Detector()


@app.post("/detect")
async def detect(request: Request) -> list[list[float]]:
    """A JPEG in, boxes out."""
    return await run_in_threadpool(detector, await request.body())


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PEER_PORT"]), log_level="warning", access_log=False)

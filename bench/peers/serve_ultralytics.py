"""Ultralytics behind FastAPI, as tutorials do it: the library reads the image, runs the model and finds the boxes."""

import os
from typing import Any

import uvicorn
from fastapi import FastAPI, UploadFile
from PIL import Image
from ultralytics import YOLO

app = FastAPI()
model = YOLO(os.environ["PEER_MODEL"], task="detect")


@app.post("/detect")
def detect(photo: UploadFile) -> list[dict[str, Any]]:
    """A JPEG in, boxes out."""
    (result,) = model.predict(Image.open(photo.file), imgsz=320, conf=0.25, iou=0.45, device="cpu", verbose=False)
    return result.summary()  # type: ignore[no-any-return]


if __name__ == "__main__":
    uvicorn.run(
        "serve_ultralytics:app", host="127.0.0.1", port=int(os.environ["PEER_PORT"]),
        workers=int(os.environ["PEER_WORKERS"]), log_level="warning", access_log=False,
    )  # fmt: skip

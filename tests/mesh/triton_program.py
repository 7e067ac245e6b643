"""Run by test_kserve with an interpreter that has tritonclient: the unmodified client against a mesh.

Arguments: the address, a token, a photo. Prints what it saw as JSON.
"""

from __future__ import annotations

import json
import queue
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton  # type: ignore[import-not-found, unused-ignore]


def _id(result: Any, error: Any) -> str:
    """The id of an answer of a stream; of a refusal its message."""
    return str(error.message() if error else result.get_response(as_json=True)["id"])


def main() -> None:
    """Calls what the client offers."""
    address, token, photo = sys.argv[1:]
    headers = {"authorization": f"Bearer {token}"}
    seen: dict[str, Any] = {}
    with triton.InferenceServerClient(address) as client:
        seen["ready"] = [
            client.is_server_live(headers=headers), client.is_server_ready(headers=headers),
            client.is_model_ready("faces", headers=headers), client.is_model_ready("nobody", headers=headers),
        ]  # fmt: skip
        metadata = client.get_model_metadata("faces", headers=headers, as_json=True)
        seen["metadata"] = metadata
        seen["config"] = client.get_model_config("faces", headers=headers, as_json=True)
        seen["index"] = client.get_model_repository_index(headers=headers, as_json=True)
        client.load_model("faces", headers=headers)

        tensor = triton.InferInput("images", [1, 3, 320, 320], "FP32")
        tensor.set_data_from_numpy(np.zeros((1, 3, 320, 320), np.float32))
        answer = client.infer("faces", [tensor], request_id="r1", priority=1, headers=headers)
        raw = answer.get_response(as_json=True)
        seen["raw"] = [raw["id"], raw["model_version"], list(answer.as_numpy("output0").shape)]

        file = triton.InferInput("images", [1], "BYTES")
        file.set_data_from_numpy(np.array([Path(photo).read_bytes()], dtype=np.object_))
        output = client.infer("faces", [file], headers=headers).as_numpy("output0")
        seen["faces"] = int((output[0, [5, 16]] > 0.25).any(axis=0).sum())

        answers: queue.Queue[Any] = queue.Queue()
        client.start_stream(lambda result, error: answers.put((result, error)), headers=headers)
        for number, name in enumerate(("faces", "nobody", "faces")):
            client.async_stream_infer(name, [tensor], request_id=f"s{number}")
        stream = [answers.get(timeout=60) for _ in range(3)]
        client.stop_stream()
        seen["stream"] = [_id(*one) for one in stream]

        seen["statistics"] = client.get_inference_statistics("faces", headers=headers, as_json=True)
        client.unload_model("faces", headers=headers)
        client.unload_model("faces", headers=headers)
        try:
            client.get_system_shared_memory_status(headers=headers)
        except triton.InferenceServerException as error:
            seen["shared memory"] = error.status()
        try:
            client.infer("faces", [tensor], priority=10, headers=headers)
        except triton.InferenceServerException as error:
            seen["priority"] = error.message()
        try:
            client.infer("faces", [triton.InferInput("images", [1, 3, 8], "FP32").set_data_from_numpy(
                np.zeros((1, 3, 8), np.float32))], headers=headers)
        except triton.InferenceServerException as error:
            seen["mismatch"] = error.message()
    json.dump(seen, sys.stdout)


main()

"""KServe's V2 protocol on detection's port."""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

from facetmesh.inference import inference_pb2, inference_pb2_grpc
from facetmesh.kit import catalog, files, status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from facetmesh.client import FacetmeshError

    from .conftest import Mesh

PINS = Path(__file__).resolve().parents[2] / "requirements" / "tritonclient.txt"
GREY = np.full((1, 3, 320, 320), 0.5, np.float32)


class Caller:
    """Calls as one tenant."""

    def __init__(self, channel: grpc.Channel, token: str) -> None:
        """Has a stub."""
        self._stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        self._metadata = (("authorization", f"Bearer {token}"),)

    def __call__(self, method: str, request: Any) -> Any:
        """The answer."""
        return getattr(self._stub, method)(request, metadata=self._metadata, timeout=60)

    def refusal(self, method: str, request: Any) -> FacetmeshError:
        """What a call is refused with."""
        with pytest.raises(grpc.RpcError) as raised:
            self(method, request)
        return status.from_rpc_error(raised.value)  # type: ignore[arg-type]


@pytest.fixture
def acme(mesh: Mesh) -> Iterator[Caller]:
    """Calls as acme."""
    with mesh.client(mesh.tenant("acme")) as client, grpc.insecure_channel(mesh.endpoints.detection) as channel:
        yield Caller(channel, client.token().access_token)


def tensor(array: np.ndarray[Any, Any] = GREY, model: str = "faces", **more: Any) -> inference_pb2.ModelInferRequest:
    """A request with a raw tensor."""
    request = inference_pb2.ModelInferRequest(model_name=model, **more)
    request.inputs.add(name="images", datatype="FP32", shape=array.shape)
    request.raw_input_contents.append(array.tobytes())
    return request


def photo(data: bytes) -> inference_pb2.ModelInferRequest:
    """A request with an image file."""
    request = inference_pb2.ModelInferRequest(model_name="faces")
    request.inputs.add(name="images", datatype="BYTES", shape=[1])
    request.raw_input_contents.append(struct.pack("<I", len(data)) + data)
    return request


def output(answer: inference_pb2.ModelInferResponse) -> np.ndarray[Any, Any]:
    """The one output."""
    (described,) = answer.outputs
    assert described.datatype == "FP32"
    return np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(described.shape)


def test_what_there_is(acme: Caller) -> None:
    assert acme("ServerLive", inference_pb2.ServerLiveRequest()).live
    assert acme("ServerReady", inference_pb2.ServerReadyRequest()).ready
    assert acme("ServerMetadata", inference_pb2.ServerMetadataRequest()).name == "facetmesh"
    assert acme("ModelReady", inference_pb2.ModelReadyRequest(name="faces")).ready
    assert not acme("ModelReady", inference_pb2.ModelReadyRequest(name="faces", version="7")).ready
    metadata = acme("ModelMetadata", inference_pb2.ModelMetadataRequest(name="faces"))
    assert [(one.name, one.datatype) for one in (*metadata.inputs, *metadata.outputs)] == [
        ("images", "FP32"), ("output0", "FP32"),
    ]  # fmt: skip
    config = acme("ModelConfig", inference_pb2.ModelConfigRequest(name="faces")).config
    assert config.input[0].data_type == inference_pb2.TYPE_FP32
    index = acme("RepositoryIndex", inference_pb2.RepositoryIndexRequest())
    assert ("faces", "1", "READY") in {(one.name, one.version, one.state) for one in index.models}


def test_tensors_and_files_in_raw_outputs_out(acme: Caller, group: bytes) -> None:
    answer = acme("ModelInfer", tensor(id="r1"))
    assert (answer.id, answer.model_version, answer.model_name) == ("r1", "1", "faces")
    assert answer.parameters["receipt"].string_param.startswith("tenants/acme/receipts/")
    assert output(answer).shape == (1, 22, 2100)
    inline = inference_pb2.ModelInferRequest(model_name="tenants/acme/models/faces")
    inline.inputs.add(name="images", datatype="FP32", shape=GREY.shape).contents.fp32_contents.extend(GREY.ravel())
    np.testing.assert_allclose(output(acme("ModelInfer", inline)), output(answer), atol=1e-4)
    seen = output(acme("ModelInfer", photo(group)))
    assert (seen[0, [5, 16]] > 0.25).any()  # faces, female and male


def test_what_does_not_fit_is_told(acme: Caller) -> None:
    small = acme.refusal("ModelInfer", tensor(np.zeros((1, 3, 8), np.float32)))
    assert (small.code, small.reason) == ("INVALID_ARGUMENT", "INPUT_MISMATCH")
    assert "[1, 3, 8]" in small.message
    short = tensor()
    short.raw_input_contents[0] = short.raw_input_contents[0][:-4]
    assert acme.refusal("ModelInfer", short).reason == "INPUT_MISMATCH"
    other = tensor()
    other.outputs.add(name="boxes")
    assert "output0" in acme.refusal("ModelInfer", other).message
    assert acme.refusal("ModelInfer", inference_pb2.ModelInferRequest(model_name="faces")).reason == "INPUT_MISMATCH"
    assert acme.refusal("ModelInfer", photo(b"no image")).reason == "IMAGE_NOT_RECOGNIZED"
    for name in ("nobody", "Faces!", "faces/versions/1"):
        assert acme.refusal("ModelInfer", tensor(model=name)).reason == "MODEL_NOT_FOUND"


def test_a_request_says_how_urgent_it_is(acme: Caller) -> None:
    request = tensor()
    request.parameters["priority"].uint64_param = 1
    assert output(acme("ModelInfer", request)).shape == (1, 22, 2100)
    request.parameters["priority"].int64_param = 10
    refused = acme.refusal("ModelInfer", request)
    assert (refused.code, refused.reason) == ("INVALID_ARGUMENT", "FIELD_INVALID")
    assert "9 last" in refused.message


def test_tenants_are_kept_apart(acme: Caller, mesh: Mesh) -> None:
    mesh.tenant("globex")  # has a model of that name
    for way in ("", "../", "tenants/acme/", "tenants/acme/../", "tenants/acme/../../", "tenants/acme/models/../../"):
        for name in (f"{way}globex/models/faces", f"{way}tenants/globex/models/faces"):
            assert acme.refusal("ModelInfer", tensor(model=name)).code in {"PERMISSION_DENIED", "NOT_FOUND"}, name
    refused = acme.refusal("ModelInfer", tensor(model="tenants/globex/models/faces"))
    assert (refused.code, refused.reason) == ("PERMISSION_DENIED", "TENANT_MISMATCH")
    index = acme("RepositoryIndex", inference_pb2.RepositoryIndexRequest())
    assert {one.name for one in index.models} >= {"faces"}
    with mesh.client(mesh.tenant("globex")) as client, grpc.insecure_channel(mesh.endpoints.detection) as channel:
        globex = Caller(channel, client.token().access_token)
        assert output(globex("ModelInfer", tensor())).shape == (1, 22, 2100)  # its own, by the token


def test_a_stream_goes_on_after_a_bad_request(acme: Caller) -> None:
    requests = [tensor(id="1"), tensor(model="nobody", id="2"), tensor(id="3")]
    answers = list(acme("ModelStreamInfer", iter(requests)))
    assert [one.infer_response.id for one in answers] == ["1", "2", "3"]
    assert [bool(one.error_message) for one in answers] == [False, True, False]
    receipts = {one.infer_response.parameters["receipt"].string_param for one in answers if not one.error_message}
    assert len(receipts) == 2


@pytest.fixture(scope="session")
def triton() -> Path:
    """A Python with tritonclient, which cannot live beside our own copy of the protocol."""
    folder = catalog.cache_folder() / f"tritonclient-{hashlib.sha256(PINS.read_bytes()).hexdigest()[:12]}"
    python = folder / "bin" / "python"
    with files.locked(catalog.cache_folder() / "tritonclient.lock"):
        if not (folder / "done").exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
            pip = [str(python), "-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(PINS)]
            subprocess.run(pip, check=True)
            (folder / "done").touch()
    return python


@pytest.mark.full
def test_tritons_own_client(mesh: Mesh, triton: Path, assets: dict[str, Path]) -> None:
    with mesh.client(mesh.tenant("acme")) as client:
        token = client.token().access_token
    program = Path(__file__).with_name("triton_program.py")
    done = subprocess.run(
        [str(triton), str(program), mesh.endpoints.detection, token, str(assets["photo-six-faces"])],
        capture_output=True, text=True, check=False, timeout=180,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["ready"] == [True, True, True, False]
    assert seen["raw"] == ["r1", "1", [1, 22, 2100]]
    assert seen["faces"] >= 6
    assert "9 last" in seen["priority"]
    first, refused, last = seen["stream"]
    assert (first, last) == ("s0", "s2")
    assert "MODEL_NOT_FOUND" in refused
    assert seen["shared memory"] == "StatusCode.UNIMPLEMENTED"
    assert "[1, 3, 8]" in seen["mismatch"]
    (statistics,) = seen["statistics"]["model_stats"]
    stats = statistics["inference_stats"]
    assert int(stats["success"]["count"]) >= 3
    stages = [stats[name] for name in ("queue", "compute_input", "compute_infer", "compute_output")]
    assert all(int(stage["count"]) >= 3 for stage in stages)
    assert sum(int(stage["ns"]) for stage in stages[1:3]) > 0
    assert int(statistics["execution_count"]) >= 1

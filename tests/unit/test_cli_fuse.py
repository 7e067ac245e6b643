"""`facetmesh fuse` against a service that answers as fusion does: what is asked for arrives, and files are written."""

from __future__ import annotations

import hashlib
import io
import json
import os
from concurrent import futures
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.api import httpbody_pb2
from google.longrunning import operations_pb2
from google.protobuf import empty_pb2
from PIL import Image
from typer.testing import CliRunner

from facetmesh.auth.v1 import auth_pb2, auth_pb2_grpc
from facetmesh.cli.main import app
from facetmesh.client import uploading
from facetmesh.fusion.v1 import fusion_pb2, fusion_pb2_grpc, image_pb2, image_pb2_grpc
from facetmesh.kit.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FACE = fusion_pb2.FaceBox(x_min=10, y_min=10, x_max=50, y_max=60)


def picture(colour: tuple[int, int, int]) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (120, 90), colour).save(stream, "PNG")
    return stream.getvalue()


class Auth(auth_pb2_grpc.AuthServiceServicer):
    """Issues tokens of acme's."""

    def IssueToken(self, request: Any, context: Any) -> Any:
        answer = auth_pb2.IssueTokenResponse(access_token="t", tenant="tenants/acme")
        answer.expire_time.GetCurrentTime()
        answer.expire_time.seconds += 600
        return answer


class Images(image_pb2_grpc.ImageServiceServicer):
    """Keeps files by their names; is away as often as it is told."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.away = 0

    def UploadImage(self, requests: Any, context: Any) -> Any:
        name = next(requests).name
        if self.away:
            self.away -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        self.files[name] = b"".join(request.chunk for request in requests)
        return image_pb2.Image(name=name, size_bytes=len(self.files[name]))

    def ListImages(self, request: Any, context: Any) -> Any:
        return image_pb2.ListImagesResponse(images=[image_pb2.Image(name=name) for name in self.files])

    def DeleteImage(self, request: Any, context: Any) -> Any:
        del self.files[request.name]
        return empty_pb2.Empty()


class Fusion(fusion_pb2_grpc.FusionServiceServicer):
    """Has every fusion done at once, and remembers what was asked for."""

    asked: fusion_pb2.Fusion

    def __init__(self) -> None:
        self.images = Images()

    def CreateFusion(self, request: Any, context: Any) -> Any:
        self.asked = request.fusion
        return operations_pb2.Operation(name="tenants/acme/operations/f")

    def WaitOperation(self, request: Any, context: Any) -> Any:
        operation = operations_pb2.Operation(name=request.name, done=True)
        made = fusion_pb2.Fusion(
            name="tenants/acme/fusions/f", receipt="tenants/acme/receipts/r", source_face=FACE, target_face=FACE
        )
        made.left_faces.add(face=FACE, reason="FACE_PROFILE")
        operation.response.Pack(made)
        return operation

    def WatchOperation(self, request: Any, context: Any) -> Any:
        assert request.name == "tenants/acme/operations/f"
        yield self.WaitOperation(request, context)

    def LinkFusion(self, request: Any, context: Any) -> Any:
        assert request.lifetime.seconds == 300
        return fusion_pb2.FusionLink(path=f"/v1/{request.name}:fetch?token=t.m")

    def DownloadFusion(self, request: Any, context: Any) -> Any:
        yield httpbody_pb2.HttpBody(data=picture((0, 0, 200)))


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fusion]:
    fusion = Fusion()
    server = grpc.server(futures.ThreadPoolExecutor(4))
    auth_pb2_grpc.add_AuthServiceServicer_to_server(Auth(), server)
    fusion_pb2_grpc.add_FusionServiceServicer_to_server(fusion, server)
    image_pb2_grpc.add_ImageServiceServicer_to_server(fusion.images, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setenv("FACETMESH_KEY", "right")
    monkeypatch.setenv("FACETMESH_ADDRESS", f"127.0.0.1:{port}")
    (tmp_path / "source.png").write_bytes(picture((200, 0, 0)))
    (tmp_path / "target.png").write_bytes(picture((0, 200, 0)))
    yield fusion
    server.stop(None)


def fuse(folder: Path, *arguments: str) -> Any:
    photos = [str(folder / "source.png"), str(folder / "target.png")]
    wanted = ["fuse", *photos, "--face-model=faces", f"--out={folder / 'fused.png'}", *arguments]
    return CliRunner().invoke(app, wanted, catch_exceptions=False)


def test_what_is_chosen_arrives_and_both_pictures_are_written(service: Fusion, tmp_path: Path) -> None:
    compared = tmp_path / "compared.png"
    done = fuse(
        tmp_path, "--pick=all", "--label=FACE_MALE", "--region=eyes", "--region=nose", "--feather=0.1", "--weight=0.5",
        "--ignore-occlusion", "--keep-colours", "--sole-source", "--priority=batch", f"--side-by-side={compared}",
        "--sex=male", "--min-age=18", "--max-age=60",
    )
    assert done.exit_code == 0, done.output
    asked = service.asked
    assert asked.sole_source_face
    assert asked.priority == fusion_pb2.PRIORITY_BATCH
    assert asked.target_selection.mode == fusion_pb2.FaceSelection.MODE_ALL
    assert asked.target_selection.label == "FACE_MALE"
    assert asked.target_selection.sex == fusion_pb2.FaceSelection.SEX_MALE
    assert (asked.target_selection.min_age, asked.target_selection.max_age) == (18, 60)
    assert asked.rendering.mask == fusion_pb2.Rendering.MASK_REGIONS
    assert list(asked.rendering.regions) == [fusion_pb2.Rendering.REGION_EYES, fusion_pb2.Rendering.REGION_NOSE]
    assert asked.rendering.weight == pytest.approx(0.5)
    assert asked.rendering.feather == pytest.approx(0.1)
    assert asked.rendering.ignore_occlusion
    assert asked.rendering.keep_colours
    assert (tmp_path / "fused.png").read_bytes() == picture((0, 0, 200))
    with Image.open(compared) as drawn:
        colours = {colour for _, colour in drawn.convert("RGB").getcolors(1 << 20)}
    assert {(200, 0, 0), (0, 200, 0), (0, 0, 200)} <= colours
    assert "FACE_PROFILE at 10,10" in done.output


def test_json_names_the_files(service: Fusion, tmp_path: Path) -> None:
    compared = tmp_path / "compared.png"
    photos = [str(tmp_path / "source.png"), str(tmp_path / "target.png")]
    done = CliRunner().invoke(app, [
        "--json", "fuse", *photos, "--face-model=faces", "--near=12,34.5", f"--out={tmp_path / 'f.png'}",
        f"--side-by-side={compared}",
    ])
    told = json.loads(done.stdout)
    assert (told["file"], told["side_by_side"]) == (str(tmp_path / "f.png"), str(compared))
    selection = service.asked.target_selection
    assert (selection.mode, selection.x, selection.y) == (fusion_pb2.FaceSelection.MODE_NEAREST, 12, 34.5)


@pytest.mark.parametrize("point", ["12", "a,b", "", "1,2,3"])
def test_what_is_no_point_is_refused_before_anything_is_sent(service: Fusion, tmp_path: Path, point: str) -> None:
    done = fuse(tmp_path, f"--near={point}")
    assert done.exit_code == 2
    assert not hasattr(service, "asked")


def test_what_is_there_already_is_named(service: Fusion, tmp_path: Path) -> None:
    wanted = ["fuse", "images/0a", "tenants/acme/fusions/f", "--face-model=faces", f"--out={tmp_path / 'f.png'}"]
    done = CliRunner().invoke(app, wanted, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    asked = service.asked
    assert (asked.source_name, asked.target_name) == ("tenants/acme/images/0a", "tenants/acme/fusions/f")
    assert (asked.WhichOneof("source"), asked.WhichOneof("target")) == ("source_name", "target_name")


def test_what_is_not_here_is_not_shown_beside_the_result(service: Fusion, tmp_path: Path) -> None:
    wanted = ["fuse", "images/0a", str(tmp_path / "target.png"), "--face-model=faces", "--side-by-side=s.png"]
    with pytest.raises(InvalidArgument) as caught:
        CliRunner().invoke(app, wanted, catch_exceptions=False)
    assert caught.value.reason == "FILE_MISSING"
    assert not hasattr(service, "asked")


@pytest.mark.parametrize("option", ["--out", "--side-by-side"])
def test_where_there_is_no_folder_nothing_is_asked_for(service: Fusion, tmp_path: Path, option: str) -> None:
    both = [str(tmp_path / name) for name in ("source.png", "target.png")]
    with pytest.raises(InvalidArgument, match="no folder") as caught:
        CliRunner().invoke(app, ["fuse", *both, "--face-model=faces", option, str(tmp_path / "no" / "a.png")],
                           catch_exceptions=False)  # fmt: skip
    assert caught.value.reason == "FILE_PROBLEM"
    assert not hasattr(service, "asked")


def test_a_picture_is_uploaded_listed_and_deleted(
    service: Fusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploading, "_CHUNK_BYTES", 100)
    monkeypatch.setattr(uploading, "_REST_S", 0.01)
    service.images.away = 2
    file = (tmp_path / "source.png").read_bytes()
    name = f"tenants/acme/images/{hashlib.sha256(file).hexdigest()}"

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["images", *arguments], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    assert name in run("upload", str(tmp_path / "source.png"))
    assert service.images.files == {name: file}
    assert len(file) > 100
    assert name in run("list")
    run("delete", name)
    assert service.images.files == {}


def test_what_was_interrupted_is_found_again(service: Fusion, tmp_path: Path) -> None:
    """By the name that was printed first; a fusion's name does for its operation's."""
    del service
    assert "tenants/acme/operations/f" in fuse(tmp_path).stderr
    done = CliRunner().invoke(app, ["fusions", "watch", "tenants/acme/fusions/f"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    out = tmp_path / "again.png"
    CliRunner().invoke(app, ["fusions", "download", "tenants/acme/fusions/f", f"--out={out}"], catch_exceptions=False)
    assert out.read_bytes() == picture((0, 0, 200))


def test_a_link_is_an_address_below_the_gateways(service: Fusion) -> None:
    del service
    done = CliRunner().invoke(app, ["fusions", "link", "f", "--minutes=5"], catch_exceptions=False)
    address = os.environ["FACETMESH_ADDRESS"]
    assert done.output.strip() == f"http://{address}/v1/tenants/acme/fusions/f:fetch?token=t.m"

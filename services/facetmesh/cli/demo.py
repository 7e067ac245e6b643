"""The main job, once, on real photos: what a newcomer sees first.

A mesh with a state folder of its own is started on free ports; all work goes
through the public API; then the mesh is stopped, and the receipts are verified
by another process, from files alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from facetmesh.cli import pictures
from facetmesh.cli.mesh.home import Home
from facetmesh.cli.mesh.supervisor import Supervisor
from facetmesh.client import ROLE_AUDITOR, ROLE_CALLER, ROLE_TENANT_ADMIN, AsyncClient, Endpoints
from facetmesh.kit import catalog
from facetmesh.kit.errors import FacetmeshError, Internal, NotFound, PermissionDenied
from facetmesh.verify import dump_receipt

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from facetmesh.cli.mesh.layout import Layout

DETECTOR = "nudenet-320n"
FACE_LABELS = ("FACE_FEMALE", "FACE_MALE")
"""The detector knows body parts too; the demo asks for faces alone."""
CROWD, PORTRAIT = "photo-six-faces", "photo-astronaut"
NEEDED = (DETECTOR, "facemesh", CROWD, PORTRAIT)
_MODEL = "faces"
_PUBLIC_DOMAIN = b"NASA's portraits are in the public domain."
"""What the demo has in place of a signed form."""
_KEY_ROLES = (ROLE_TENANT_ADMIN, ROLE_CALLER, ROLE_AUDITOR)


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was done."""

    name: str
    result: str
    seconds: float


class Demo:
    """The job.

    Args:
        folder: Where the pictures, receipts and the log's key go.
        progress: Is told the step that is being done, and details of it.
        layout: What its mesh is made of.
    """

    def __init__(self, folder: Path, progress: Callable[[str, str], None], layout: Layout) -> None:
        self.steps: list[Step] = []
        self._folder = folder
        self._progress = progress
        self._layout = layout
        self._current = ""
        self._photos: Mapping[str, Path] = {}
        self._keys: dict[str, str] = {}
        self._receipts: dict[str, str] = {}
        self._fusion = ""
        self._fused = folder / "fused.png"

    async def run(self) -> None:
        """Does all of it. Cancelled at any moment, it stops its mesh and leaves no process.

        Raises:
            FacetmeshError: A step failed, or did not show what it should.
        """
        await self._step("fetch models and photos", self._fetch())
        self._folder.mkdir(parents=True, exist_ok=True)
        with _scratch_home() as home:
            async with contextlib.AsyncExitStack() as stack:
                await self._step("start the mesh", self._start(stack, home))
                await self._use(Endpoints.read(home.endpoints), home.admin_key.read_text().strip())
                shutil.copy(home.log_key, self._folder)
                await self._step("stop the mesh", self._stop(stack))
        await self._step("verify the receipts offline", self._verify())

    async def _step(self, name: str, work: Awaitable[str]) -> None:
        self._current = name
        self._detail("")
        started = time.perf_counter()
        result = await work
        self.steps.append(Step(name, result, time.perf_counter() - started))

    async def _use(self, where: Endpoints, admin_key: str) -> None:
        async with AsyncClient(admin_key, where) as admin:
            await self._step("create two tenants, a key each", self._create_tenants(admin))
        async with AsyncClient(self._keys["acme"], where) as acme, AsyncClient(self._keys["globex"], where) as globex:
            await self._step("exchange the key for a token", self._exchange(acme))
            await self._step("give acme a detector", self._add_model(acme))
            await self._step("detect faces", self._detect(acme))
            await self._step("fuse a face into a photo", self._fuse(acme))
            await self._step("globex asks for what is acme's", self._trespass(globex))
            await self._step("fetch checkpoint and receipts", self._fetch_receipts(acme))

    async def _fetch(self) -> str:
        for asset_id in NEEDED:
            licence = catalog.asset(asset_id).licence
            # The command has said that it accepts this one.
            accepted = licence if asset_id == DETECTOR else None
            await asyncio.to_thread(catalog.fetch, asset_id, accept_licence=accepted, progress=self._detail)
        self._photos = {photo: catalog.path(photo) for photo in (CROWD, PORTRAIT)}
        return f"{len(NEEDED)} files, each of the hash that was pinned"

    async def _start(self, stack: contextlib.AsyncExitStack, home: Home) -> str:
        mesh = Supervisor(home, 0, lambda change: self._detail(f"{change.process} {change.state}"), self._layout)
        await stack.enter_async_context(mesh)
        return f"{len(mesh.pids)} processes: {', '.join(mesh.pids)}"

    async def _create_tenants(self, admin: AsyncClient) -> str:
        for tenant in ("acme", "globex"):
            await admin.create_tenant(
                tenant, display_name=tenant.capitalize(), licence_classes=("permissive", "copyleft"),
            )
            self._keys[tenant] = (await admin.create_key(tenant=tenant, roles=_KEY_ROLES)).secret
        return "acme, globex"

    async def _exchange(self, acme: AsyncClient) -> str:
        token = await acme.token()
        minutes = (token.expire_time.ToSeconds() - time.time()) / 60
        return f"for {token.tenant}, {minutes:.0f} minutes"

    async def _add_model(self, acme: AsyncClient) -> str:
        model = await acme.create_model(
            _MODEL, catalog_id=DETECTOR, accept_licence=catalog.asset(DETECTOR).licence,
        )
        return f"{model.name}, {len(model.labels)} labels, {model.licence}"

    async def _detect(self, acme: AsyncClient) -> str:
        photo = self._photos[CROWD].read_bytes()
        found = await acme.detect(_MODEL, photo, labels=FACE_LABELS)
        self._receipts["detection"] = found.receipt
        for one in found.detections:
            # Faces were asked for. What the model guesses of their sex was not, and is often wrong.
            one.label = "face"
        picture = self._folder / "detected.png"
        await asyncio.to_thread(pictures.draw_detections, photo, found.detections, picture)
        return f"{len(found.detections)} faces → {picture}"

    async def _fuse(self, acme: AsyncClient) -> str:
        source, target = self._photos[PORTRAIT].read_bytes(), self._photos[CROWD].read_bytes()
        consent = await acme.create_consent(
            [source], subject="the astronaut", purpose="To be shown in facetmesh's demo.", evidence=_PUBLIC_DOMAIN,
            expire_time=datetime.now(UTC) + timedelta(days=1),
        )
        result = await acme.fuse(source, target, face_model=_MODEL, consent=consent.name)
        self._fusion = result.fusion.name
        self._receipts["fusion"] = result.fusion.receipt
        self._fused.write_bytes(result.content)
        picture = self._folder / "fusion.png"
        await asyncio.to_thread(
            pictures.draw_fusion, source, target, result.content,
            result.fusion.source_face, [result.fusion.target_face], picture,
        )
        return f"the face of one photo in another → {picture}"

    async def _trespass(self, globex: AsyncClient) -> str:
        attempts: Mapping[str, Callable[[], Awaitable[object]]] = {
            "the fusion": partial(globex.download_fusion, self._fusion),
            "a receipt": partial(globex.receipt, self._receipts["detection"], wait_s=0),
            "the detector": partial(globex.get_model, f"tenants/acme/models/{_MODEL}"),
        }
        reasons = set()
        for what, attempt in attempts.items():
            try:
                await attempt()
            except (PermissionDenied, NotFound) as refusal:
                reasons.add(refusal.code)
            else:
                raise Internal(f"globex was given {what} of acme's.", reason="TENANT_LEAK")
        return f"refused {len(attempts)} times: {', '.join(sorted(reasons))}"

    async def _fetch_receipts(self, acme: AsyncClient) -> str:
        for what, name in self._receipts.items():
            self._receipt_file(what).write_text(dump_receipt(await acme.receipt(name)))
        checkpoint = await acme.checkpoint()
        (self._folder / "checkpoint.txt").write_text(checkpoint.note)
        return f"{len(self._receipts)} receipts; the log has {checkpoint.note.splitlines()[1]} entries"

    async def _stop(self, stack: contextlib.AsyncExitStack) -> str:
        await stack.aclose()
        return "no process is left"

    async def _verify(self) -> str:
        files = ("--log-key", str(self._folder / "log.vkey"), "--input", str(self._photos[CROWD]))
        await _run_cli("audit", "verify", str(self._receipt_file("detection")), *files)
        await _run_cli("audit", "verify", str(self._receipt_file("fusion")), *files, "--result", str(self._fused))
        return f"{len(self._receipts)} of {len(self._receipts)} hold, and the files are those that they record"

    def _detail(self, text: str) -> None:
        self._progress(self._current, text)

    def _receipt_file(self, what: str) -> Path:
        return self._folder / f"{what}-receipt.json"


async def _run_cli(*arguments: str) -> None:
    """Runs `facetmesh …` in a process of its own, which knows nothing of the mesh."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FACETMESH_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "facetmesh.cli", *arguments, env=environment,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        raise Internal(f"`facetmesh {' '.join(arguments)}` failed: {said.decode().strip()}", reason="NOT_VERIFIED")


@contextlib.contextmanager
def _scratch_home() -> Iterator[Home]:
    """A state folder for this once; kept only when something went wrong, for its logs."""
    folder = Path(tempfile.mkdtemp(prefix="facetmesh-demo-"))
    try:
        yield Home(folder)
    except FacetmeshError as error:
        error.message += f" Its logs are kept in {folder / 'logs'}."
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)

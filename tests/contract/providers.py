"""The providers of Dapr's API: each starts the sidecars of a world of apps as processes.

To add one, write it beside these and name it in PROVIDERS.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

import pytest
import yaml

from facetmesh.cli.mesh import binaries, daprd
from facetmesh.kit.errors import FailedPrecondition

from .harness import DEADLINE_S, App, free_port, halt, until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Kind: TypeAlias = Literal["quick", "patient", "shipped"]
COMPONENTS = Path(__file__).parent / "components"
SHIPPED = Path(__file__).resolve().parents[2] / "components"


class Provider:
    """What all have in common.

    Args:
        home: Their state folder.
        apps: The apps' replicas.
        resources: What they are set up with: the contract's own, with tries that are `quick` or so `patient` that an
            app can be away for a moment; or those that are `shipped`.
    """

    name: ClassVar[str]
    shipped_as: ClassVar[str]
    """Its folder below components/."""
    on_redis: ClassVar[bool] = False
    """Its state and events lie in Redis, whose component differs from SQLite's in ways that the cases name."""

    def __init__(self, home: Path, apps: Sequence[App], *, resources: Kind = "quick") -> None:
        self.home = home
        self.apps = apps
        self.components = home / "components"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._make_secrets()
        if resources == "shipped":
            shutil.copytree(SHIPPED / self.shipped_as, self.components)
        else:
            self._make_components(resources)

    def start(self) -> None:
        """Starts the sidecars; does not wait for them."""
        raise NotImplementedError

    async def ready(self) -> None:
        """Waits until they serve."""
        for app in self.apps:
            sidecar = app.sidecar()
            try:
                await sidecar.wait_ready(DEADLINE_S)
            finally:
                await sidecar.close()

    async def missed(self, app: App) -> None:
        """Waits until it is known that an app is away. What comes from then on waits for it."""

    def logs(self) -> str:
        """What the sidecars have written."""
        return "\n".join(path.read_text() for path in sorted(self.home.glob("*.log")))

    def kill(self) -> None:
        """As the kernel does it: no chance to tidy up."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Asks them to end; fails unless each finishes what it has begun."""
        assert not any(self._end(signal.SIGTERM)), self.logs()

    @contextlib.contextmanager
    def suspended(self) -> Iterator[None]:
        """They are there, and answer nothing."""
        for process in self._processes:
            halt(process.pid)
        try:
            yield
        finally:
            for process in self._processes:
                process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Leaves nothing behind."""
        self.kill()

    def _run(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
        with log.open("ab") as file:
            return subprocess.Popen(
                command, env={**os.environ, **environment}, cwd=self.home, stdout=file, stderr=file
            )

    def _end(self, number: signal.Signals) -> Sequence[int]:
        processes, self._processes = self._processes, []
        for process in processes:
            process.send_signal(number)
        try:
            return [process.wait(DEADLINE_S) for process in processes]
        finally:
            for process in processes:
                process.kill()

    def _make_secrets(self) -> None:
        secrets = self.home / "secrets"
        secrets.mkdir()
        for app in {app.id for app in self.apps}:
            file = secrets / f"{app}.json"
            file.write_text(json.dumps({"password": f"secret of {app}", "nested": {"inner": "deep"}}))
            file.chmod(0o600)

    def _make_components(self, resiliency: str) -> None:
        self.components.mkdir()
        own = COMPONENTS / self.name
        shutil.copy(COMPONENTS / "resiliency" / f"{resiliency}.yaml", self.components / "resiliency.yaml")
        for file in (COMPONENTS / "subscriptions.yaml", *own.iterdir()):
            shutil.copy(file, self.components)


class Embedded(Provider):
    """Our sidecar: one process for all apps."""

    name = shipped_as = "embedded"

    def start(self) -> None:
        """Starts the process."""
        tokens = {app.id: {"dapr_api_token": app.api_token, "app_api_token": app.app_token} for app in self.apps}
        command = [
            sys.executable, "-m", "facetmesh.sidecar", f"--home={self.home}", f"--components={self.components}",
            *(f"--app={app.id}:{app.grpc_port}:{app.http_port}:{app.callback_port}" for app in self.apps),
        ]  # fmt: skip
        environment = {"FACETMESH_SIDECAR_TOKENS": json.dumps(tokens)}
        self._processes = [self._run(command, environment, self.home / "sidecar.log")]


class Daprd(Provider):
    """Dapr's own: a process for each replica, and a Redis for all."""

    name = "daprd"
    shipped_as = "redis"
    on_redis = True

    def __init__(self, home: Path, apps: Sequence[App], *, resources: Kind = "quick") -> None:
        super().__init__(home, apps, resources=resources)
        if resources != "shipped":
            shutil.copy(SHIPPED / "redis" / "configuration.yaml", self.components)
        if resources == "patient":
            self._deliver_singly()
        self._starts = 0
        try:
            self._program, redis = binaries.daprd(), binaries.redis_server()
        except FailedPrecondition as missing:
            pytest.fail(missing.message)
        self._redis = daprd.Redis(redis, home / "redis", free_port(), "password-of-redis")
        self._broker = self._run(self._redis.command(), {}, home / "redis.log")

    def start(self) -> None:
        """Starts the sidecars; each begins a log of its own."""
        self._wait_for_redis()
        self._starts += 1
        for app in self.apps:
            sidecar = daprd.Daprd(
                self._program, app.id, app.grpc_port, app.http_port, app.callback_port, free_port(), self.components
            )
            environment = {
                **self._redis.environment(), "DAPR_API_TOKEN": app.api_token, "APP_API_TOKEN": app.app_token,
            }
            self._processes.append(self._run(sidecar.command(), environment, self._log(app)))

    async def missed(self, app: App) -> None:
        """It asks the app once a second. What it tries before it knows counts as tries."""
        status = re.compile(r"App entered (un-)?healthy status")

        def is_missed() -> bool:
            said = status.findall(self._log(app).read_text())
            return not said or said[-1] == "un-"

        await until(is_missed, f"the sidecar of {app.id} knows that its app is away")

    def stop(self) -> None:
        """Each ends by itself, with 0, or with 1 for either of two reasons.

        It gave up what an app did not finish in time, which Redis still has; or all was done, and of its connections
        with Redis it closed one twice.
        """
        for app, code in zip(self.apps, self._end(signal.SIGTERM), strict=True):
            log = self._log(app).read_text()
            reasons = ("Graceful shutdown timeout exceeded", "use of closed network connection")
            assert code == 0 or (code == 1 and any(reason in log for reason in reasons)), log

    def close(self) -> None:
        """Ends Redis too."""
        super().close()
        self._broker.terminate()
        self._broker.wait(DEADLINE_S)

    def _deliver_singly(self) -> None:
        """As components/redis does, which says why: bulk delivery does not survive an app that goes away."""
        file = self.components / "subscriptions.yaml"
        subscriptions = list(yaml.safe_load_all(file.read_text()))
        for subscription in subscriptions:
            if subscription["spec"].pop("bulkSubscribe", None):
                del subscription["spec"]["metadata"]
        file.write_text(yaml.safe_dump_all(subscriptions))

    def _log(self, app: App) -> Path:
        return self.home / f"{app.id}-{app.grpc_port}-{self._starts}.log"

    def _wait_for_redis(self) -> None:
        for _ in range(1000):
            with socket.socket() as probe:
                probe.settimeout(0.1)
                if probe.connect_ex(("127.0.0.1", self._redis.port)) == 0:
                    return
            try:
                self._broker.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
            break
        pytest.fail(f"Redis does not serve: {(self.home / 'redis.log').read_text()}")


BY_NAME: Mapping[str, type[Provider]] = {provider.name: provider for provider in (Embedded, Daprd)}
PROVIDERS = tuple(BY_NAME)

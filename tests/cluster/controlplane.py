"""A Kubernetes API server with its etcd, as processes of a test: the real ones, without nodes."""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.contract.harness import free_port

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

DEADLINE_S = 300


@dataclass
class ControlPlane:
    """etcd and kube-apiserver on free ports of the loopback, and what else a test runs beside them.

    Args:
        folder: Their state; a new one means an empty cluster.
        programs: Where etcd, kube-apiserver, kubectl and whatever else is run are, by name.
        options: What else the API server is told. Unless said otherwise, no controller runs that would make each
            namespace's account.
    """

    folder: Path
    programs: Mapping[str, str]
    options: tuple[str, ...] = ("--disable-admission-plugins=ServiceAccount",)
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    _running: list[subprocess.Popen[bytes]] = field(default_factory=list, repr=False)

    @property
    def kubeconfig(self) -> Path:
        """What kubectl and istiod are given."""
        return self.folder / "kubeconfig.json"

    def start(self) -> None:
        """Starts both and waits until they serve."""
        etcd, peer, port = free_port(), free_port(), free_port()
        key = self.folder / "service-accounts.pem"
        private = generate_private_key(65537, 2048)
        key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
        tokens = self.folder / "tokens.csv"
        tokens.write_text(f'{self.token},admin,admin,"system:masters"\n')
        self._write_kubeconfig(port)
        self.run(
            "etcd", f"--data-dir={self.folder / 'etcd'}", f"--listen-client-urls=http://127.0.0.1:{etcd}",
            f"--advertise-client-urls=http://127.0.0.1:{etcd}", f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-cluster=default=http://127.0.0.1:{peer}", "--unsafe-no-fsync", "--log-level=warn",
        )  # fmt: skip
        self.run(
            "kube-apiserver", f"--etcd-servers=http://127.0.0.1:{etcd}", f"--cert-dir={self.folder / 'certs'}",
            "--bind-address=127.0.0.1", f"--secure-port={port}", f"--token-auth-file={tokens}",
            "--service-cluster-ip-range=10.96.0.0/16", "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc", f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}", "--endpoint-reconciler-type=none",
            *self.options,
        )  # fmt: skip
        self.until(lambda: self.kubectl("get", "--raw=/readyz", check=False).returncode == 0, "the API server serves")

    def stop(self) -> None:
        """Ends all that runs. Nothing of it is wanted any more, so it gets no time to tidy up."""
        for process in reversed(self._running):
            process.kill()
            process.wait()

    def run(
        self, program: str, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Starts a program, which ends with the cluster. What it writes is in FOLDER/PROGRAM.log."""
        with (self.folder / f"{program}.log").open("ab") as log:
            process = subprocess.Popen(
                [self.programs[program], *arguments], stdout=log, stderr=subprocess.STDOUT, cwd=self.folder,
                env={"HOME": str(self.folder), **(environment or {})},
            )  # fmt: skip
        self._running.append(process)
        return process

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """Ends a program before the cluster does."""
        self._running.remove(process)
        process.kill()
        process.wait()

    def until(self, condition: Any, what: str, deadline_s: float = DEADLINE_S) -> None:
        """Waits for a condition while all that runs goes on running."""
        deadline = time.monotonic() + deadline_s
        while not condition():
            for process in self._running:
                assert process.poll() is None, f"{process.args} ended with {process.returncode}: {self.logs()}"
            assert time.monotonic() < deadline, f"not within {deadline_s} s: {what}\n{self.logs()}"
            time.sleep(0.1)

    def logs(self) -> str:
        """The end of each log."""
        return "\n".join(f"--- {path.name}\n{path.read_text()[-2000:]}" for path in self.folder.glob("*.log"))

    def kubectl(self, *arguments: str, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs kubectl as the cluster's administrator."""
        done = subprocess.run(
            [self.programs["kubectl"], f"--kubeconfig={self.kubeconfig}", *arguments], input=stdin,
            capture_output=True, text=True, check=False, timeout=DEADLINE_S,
        )
        assert not check or done.returncode == 0, f"kubectl {arguments}: {done.stderr}"
        return done

    def get(self, *arguments: str) -> Any:
        """What kubectl gets, parsed."""
        return json.loads(self.kubectl("get", *arguments, "--output=json").stdout)

    def define(self, definitions: Iterable[str]) -> None:
        """Applies resource definitions, of which each is a file or a folder of them, and waits until they serve."""
        for one in definitions:
            self.kubectl("apply", "--server-side", f"--filename={one}")
        self.kubectl(
            "wait", "--for=condition=Established", "customresourcedefinitions", "--all", f"--timeout={DEADLINE_S - 60}s"
        )
        # Where much else runs, their schemas take longer to be published than kubectl waits for them.
        self.until(
            lambda: self.kubectl("get", "--raw=/openapi/v2", check=False).returncode == 0, "schemas are published"
        )

    def apply(self, *manifests: Mapping[str, Any]) -> None:
        """Applies resources."""
        listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)})
        self.kubectl("apply", "--server-side", "--force-conflicts", "--filename=-", stdin=listed)

    def _write_kubeconfig(self, port: int) -> None:
        server = {"server": f"https://127.0.0.1:{port}", "insecure-skip-tls-verify": True}
        self.kubeconfig.touch(mode=0o600)
        self.kubeconfig.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": server}],
            "users": [{"name": "admin", "user": {"token": self.token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
        }))  # fmt: skip


@contextlib.contextmanager
def control_plane(
    folder: Path, programs: Mapping[str, str], options: tuple[str, ...] = ControlPlane.options
) -> Iterator[ControlPlane]:
    """A control plane that runs."""
    plane = ControlPlane(folder, programs, options)
    try:
        plane.start()
        yield plane
    finally:
        plane.stop()

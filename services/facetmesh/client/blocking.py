"""The client for programs without asyncio: the asynchronous one, on a thread with a loop."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Self, TypeVar

from facetmesh.client.aio import AsyncClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
    from types import TracebackType
    from typing import Any

    from facetmesh.client.endpoints import Endpoints

_Arguments = ParamSpec("_Arguments")
_Answer = TypeVar("_Answer")


def _blocking(
    method: Callable[Concatenate[AsyncClient, _Arguments], Coroutine[Any, Any, _Answer]],
) -> Callable[Concatenate[Client, _Arguments], _Answer]:
    """The method of Client that waits for AsyncClient's."""

    @functools.wraps(method)
    def wait(self: Client, /, *arguments: _Arguments.args, **options: _Arguments.kwargs) -> _Answer:
        return self.wait(method(self.asynchronous, *arguments, **options))

    return wait


def _iterating(
    method: Callable[Concatenate[AsyncClient, _Arguments], AsyncIterator[_Answer]],
) -> Callable[Concatenate[Client, _Arguments], Iterator[_Answer]]:
    """The method of Client that iterates over what AsyncClient's gives."""

    async def following(answers: AsyncIterator[_Answer]) -> tuple[_Answer] | None:
        try:
            return (await anext(answers),)
        except StopAsyncIteration:
            return None

    @functools.wraps(method)
    def iterate(self: Client, /, *arguments: _Arguments.args, **options: _Arguments.kwargs) -> Iterator[_Answer]:
        answers = method(self.asynchronous, *arguments, **options)
        try:
            while (answer := self.wait(following(answers))) is not None:
                yield answer[0]
        finally:
            # Who breaks off ends the call, and not whenever the collector comes.
            if isinstance(answers, AsyncGenerator) and self.is_open:
                self.wait(answers.aclose())

    return iterate


class Client:
    """Calls a mesh; each method is AsyncClient's of the same name, and returns when that has.

    It may be used by several threads at once, within `with Client(…) as client:`.

    Args:
        key: An API key; None for what needs none, such as `checkpoint`.
        endpoints: Where the services are; the mesh on this machine when None.
    """

    def __init__(self, key: str | None = None, endpoints: Endpoints | None = None) -> None:
        self.asynchronous = AsyncClient(key, endpoints)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="facetmesh-client", daemon=True)

    def __enter__(self) -> Self:
        """Opens the connections."""
        self._thread.start()
        self.wait(self.asynchronous.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None,
    ) -> None:
        """Closes the connections."""
        self.wait(self.asynchronous.__aexit__(kind, error, trace))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def is_open(self) -> bool:
        """Whether it can be used."""
        return self._thread.is_alive()

    def wait(self, work: Coroutine[Any, Any, _Answer]) -> _Answer:
        """The result of work, done on the client's loop; cancels it when interrupted.

        Raises:
            RuntimeError: The client is not open: its loop would never come to it.
        """
        if not self.is_open:
            work.close()
            raise RuntimeError("The client is not open: use it within `with Client(…) as client:`.")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    token = _blocking(AsyncClient.token)
    create_tenant = _blocking(AsyncClient.create_tenant)
    get_tenant = _blocking(AsyncClient.get_tenant)
    list_tenants = _blocking(AsyncClient.list_tenants)
    update_tenant = _blocking(AsyncClient.update_tenant)
    onboard_tenant = _blocking(AsyncClient.onboard_tenant)
    list_plans = _blocking(AsyncClient.list_plans)
    rotate_tenant_key = _blocking(AsyncClient.rotate_tenant_key)
    suspend_tenant = _blocking(AsyncClient.suspend_tenant)
    resume_tenant = _blocking(AsyncClient.resume_tenant)
    delete_tenant = _blocking(AsyncClient.delete_tenant)
    undelete_tenant = _blocking(AsyncClient.undelete_tenant)
    create_key = _blocking(AsyncClient.create_key)
    rotate_key = _blocking(AsyncClient.rotate_key)
    list_keys = _blocking(AsyncClient.list_keys)
    update_key = _blocking(AsyncClient.update_key)
    revoke_token = _blocking(AsyncClient.revoke_token)
    revoke_key = _blocking(AsyncClient.revoke_key)
    create_model = _blocking(AsyncClient.create_model)
    get_model = _blocking(AsyncClient.get_model)
    list_models = _blocking(AsyncClient.list_models)
    upload_model = _blocking(AsyncClient.upload_model)
    quantize_version = _blocking(AsyncClient.quantize_version)
    list_versions = _blocking(AsyncClient.list_versions)
    get_version = _blocking(AsyncClient.get_version)
    delete_version = _blocking(AsyncClient.delete_version)
    delete_model = _blocking(AsyncClient.delete_model)
    set_aliases = _blocking(AsyncClient.set_aliases)
    set_traffic = _blocking(AsyncClient.set_traffic)
    start_rollout = _blocking(AsyncClient.start_rollout)
    get_rollout = _blocking(AsyncClient.get_rollout)
    list_rollouts = _blocking(AsyncClient.list_rollouts)
    pause_rollout = _blocking(AsyncClient.pause_rollout)
    resume_rollout = _blocking(AsyncClient.resume_rollout)
    promote_rollout = _blocking(AsyncClient.promote_rollout)
    abort_rollout = _blocking(AsyncClient.abort_rollout)
    detect = _blocking(AsyncClient.detect)
    batch_detect = _blocking(AsyncClient.batch_detect)
    detect_stream = _iterating(AsyncClient.detect_stream)
    create_consent = _blocking(AsyncClient.create_consent)
    get_consent = _blocking(AsyncClient.get_consent)
    list_consents = _blocking(AsyncClient.list_consents)
    revoke_consent = _blocking(AsyncClient.revoke_consent)
    upload_image = _blocking(AsyncClient.upload_image)
    get_image = _blocking(AsyncClient.get_image)
    list_images = _blocking(AsyncClient.list_images)
    delete_image = _blocking(AsyncClient.delete_image)
    create_fusion = _blocking(AsyncClient.create_fusion)
    wait_fusion = _blocking(AsyncClient.wait_fusion)
    get_operation = _blocking(AsyncClient.get_operation)
    list_operations = _blocking(AsyncClient.list_operations)
    cancel_operation = _blocking(AsyncClient.cancel_operation)
    watch_operation = _iterating(AsyncClient.watch_operation)
    delete_fusion = _blocking(AsyncClient.delete_fusion)
    look_up_fusion = _blocking(AsyncClient.look_up_fusion)
    link_fusion = _blocking(AsyncClient.link_fusion)
    download_fusion = _blocking(AsyncClient.download_fusion)
    fuse = _blocking(AsyncClient.fuse)
    checkpoint = _blocking(AsyncClient.checkpoint)
    consistency_proof = _blocking(AsyncClient.consistency_proof)
    receipt = _blocking(AsyncClient.receipt)
    list_events = _blocking(AsyncClient.list_events)
    inclusion_proof = _blocking(AsyncClient.inclusion_proof)
    log_file = _blocking(AsyncClient.log_file)
    watch_events = _iterating(AsyncClient.watch_events)
    export_events = _iterating(AsyncClient.export_events)
    create_policy = _blocking(AsyncClient.create_policy)
    get_policy = _blocking(AsyncClient.get_policy)
    list_policies = _blocking(AsyncClient.list_policies)
    activate_policy = _blocking(AsyncClient.activate_policy)
    test_policies = _blocking(AsyncClient.test_policies)
    explain_decision = _blocking(AsyncClient.explain_decision)
    policy_schema = _blocking(AsyncClient.policy_schema)
    usage = _blocking(AsyncClient.usage)
    usage_records = _blocking(AsyncClient.usage_records)
    get_retention = _blocking(AsyncClient.get_retention)
    update_retention = _blocking(AsyncClient.update_retention)

"""CloudEvents in their JSON form, as Dapr writes them."""

from __future__ import annotations

import base64
import json
from functools import lru_cache
from typing import Any

BINARY = "application/octet-stream"
JSON = "application/json"
CLOUD_EVENT = "application/cloudevents+json"


@lru_cache(maxsize=64)
def media_type(content_type: str) -> str:
    """A content type without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def is_text(content_type: str) -> bool:
    """Whether data of this type is written as a JSON string."""
    media = media_type(content_type)
    return media.startswith("text/") or media == "application/xml"


def payload(event: dict[str, Any]) -> bytes:
    """The data of an event; empty when it has none.

    Raises:
        ValueError: The data is not what the event's content type promises.
    """
    encoded = event.get("data_base64")
    if encoded is not None:
        if not isinstance(encoded, str):
            raise ValueError("data_base64 is not a string")
        return base64.b64decode(encoded, validate=True)
    data = event.get("data")
    if data is None:
        return b""
    content_type = str(event.get("datacontenttype") or JSON)
    if media_type(content_type) in {JSON, CLOUD_EVENT}:
        return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
    if not isinstance(data, str):
        raise ValueError(f"data of type {content_type} is not a string")  # noqa: TRY004 - it is data that is wrong, not a caller
    return data.encode()


def text(event: dict[str, Any], attribute: str) -> str:
    """An attribute that is a string; "" when there is none."""
    value = event.get(attribute)
    return value if isinstance(value, str) else ""
